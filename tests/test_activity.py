"""The activity log: what it hears, who may write what into it, and what its numbers cost."""
from types import SimpleNamespace

import pytest
from conftest import Client, put

from orkosi import COUNTED, Actor, acting, db, emit, now, system, writes
from plugins import activity, keys

TASK = {"status": "todo", "assignee": None, "product_slug": None}


@pytest.fixture
def felix(application):
    """A client with agent felix's own key."""
    return Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])


def tell(event, subject=None, actor=None, **facts):
    with acting(actor or system()):
        db.write(lambda: emit(event, subject, **facts))


@pytest.mark.parametrize("actor, named", [
    (Actor(kind="user", id="7", user=7, tenant=1), ("user", "7")),
    (Actor(kind="key", id="key_1", user=7, tenant=1), ("user", "7")),
    (Actor(kind="key", id="key_1", tenant=1), ("system", "key_1")),
    (Actor(kind="agent", id="felix", name="felix", tenant=1), ("agent", "felix")),
    (system(), ("system", "system")),
])
def test_every_event_is_kept_with_its_actor(client, actor, named):
    tell("task.done", SimpleNamespace(**TASK, id=12, title="Fix it"), actor)
    entry = client.get("/activity-log?action=task.done").data[0]
    assert (entry["actor_type"], entry["actor_id"]) == named
    assert (entry["entity_type"], entry["entity_id"], entry["metadata"]) == ("task", "12", {"title": "Fix it"})


@pytest.mark.parametrize("event", ["job.completed", "log.written", "opened", "serving"])
def test_the_servers_own_noise_is_not_kept(client, event):
    before = client.get("/activity-log").meta["total"]
    tell(event, SimpleNamespace(**TASK, id=1, task_type="other", schedule=None, worker_id=None))
    assert client.get("/activity-log").meta["total"] == before


def test_what_is_rolled_back_was_never_in_the_log(client):
    @writes
    def fail():
        emit("task.done", SimpleNamespace(**TASK, id=1))
        raise KeyError("no")
    with pytest.raises(KeyError):
        fail()
    assert client.get("/activity-log?action=task.done").data == []


def test_an_event_belongs_to_the_tenant_of_its_subject(client, as_):
    other = as_("olga", tenant=None)
    tell("task.done", SimpleNamespace(**TASK, id=5, tenant_id=2))
    assert client.get("/activity-log?action=task.done").data == []
    assert [entry["entity_id"] for entry in other.get("/activity-log?action=task.done").data] == ["5"]


FULL = {"actor_type": "user", "actor_id": "999", "action": "task.reviewed"}


@pytest.mark.parametrize("body, status", [
    (FULL, 201),
    (FULL | {"entity_type": "task", "entity_id": "4", "metadata": {"a": [1]}}, 201),
    (FULL | {"actor_type": "robot"}, 400),
    (FULL | {"action": ""}, 400),
    (FULL | {"action": "  "}, 400),
    (FULL | {"action": "x" * 201}, 400),
    (FULL | {"metadata": "text"}, 400),
    (FULL | {"tenant_id": 2}, 400),
    ({"action": "x"}, 400),
])
def test_recording_an_activity(client, body, status):
    assert client.post("/activity-log", body).status == status


def test_nobody_but_an_administrator_says_who_did_it(client, as_, felix):
    assert client.post("/activity-log", FULL).data["actor_id"] == "999"
    ann = as_("ann", "editor")
    assert ann.post("/activity-log", FULL).data["actor_id"] == str(ann.get("/auth/me").data["id"])
    made = felix.post("/activity-log", FULL).data
    assert (made["actor_type"], made["actor_id"]) == ("agent", "felix")


@pytest.mark.parametrize("role, status", [("admin", 200), ("editor", 200), ("member", 403), ("viewer", 403)])
def test_reading_takes_an_editor(as_, role, status):
    ann = as_("ann", role)
    assert ann.get("/activity-log").status == ann.get("/activity-log/stats").status == status


def test_the_list_is_newest_first_and_narrows(client, felix):
    for number in range(3):
        client.post("/activity-log", FULL | {"action": f"step.{number}"})
    felix.post("/activity-log", FULL)
    assert [one["action"] for one in client.get("/activity-log?actor_id=999").data] == ["step.2", "step.1", "step.0"]
    assert [one["actor_id"] for one in client.get("/activity-log?actor_type=agent").data] == ["felix"]
    assert client.get("/activity-log?limit=0").status == client.get("/activity-log?actor=x").status == 400


def test_statistics_count_lately_and_stop_at_ten_thousand(client):
    @writes
    def fill():
        db.run("DELETE FROM activity WHERE tenant_id = :tenant")
        db.run_many("""INSERT INTO activity (tenant_id, actor_type, actor_id, action, created_at)
                       VALUES (1, 'system', 'test', :action, :at)""",
                    [{"action": "old", "at": now(-3 * 86400)}] * (COUNTED + 5) + [{"action": "new", "at": now()}] * 3)
    fill()
    found = client.get("/activity-log/stats").data
    assert (found["total"], found["total_exceeded"]) == (COUNTED, True)
    assert found["last_24h"] == {"total": 3, "total_exceeded": False, "by_action": {"new": 3}, "by_actor_type": {"system": 3}}
    assert (found["last_7d"]["total"], found["last_7d"]["total_exceeded"], found["last_7d"]["by_action"]["new"]) == (COUNTED, True, 3)


def test_statistics_read_one_index_alone(data):
    plan = [row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + activity.RECENT, since="", most=1)]
    assert any("COVERING INDEX idx_activity_by_created_at" in step for step in plan), plan


def test_what_is_very_old_is_forgotten(client, caplog):
    from plugins import activity, notifications
    caplog.set_level("INFO", "orkosi")
    db.write(lambda: db.run("DELETE FROM activity"))
    for id in range(1, 1205):
        put("activity", id=id, tenant_id=1 + id % 2, actor_type="system", actor_id="x", action="x", created_at=now(-86400 * (401 if id <= 1200 else 399)))
        if id % 100 == 0:
            put("notifications", id=id, tenant_id=1, title="t", message="m", created_at=now(-86400 * (181 if id <= 900 else 179)))
            put("notification_reads", tenant_id=1, reader="user:1", notification_id=id, read_at=now())
    activity.stream.prune(), notifications.prune()
    assert [row[0] for row in db.all(tuple, "SELECT id FROM activity ORDER BY id")] == [1201, 1202, 1203, 1204]
    assert [row[0] for row in db.all(tuple, "SELECT id FROM notifications ORDER BY id")] == [1000, 1100, 1200] and db.value("SELECT count(*) FROM notification_reads") == 3
    assert "1200 activities of more than 400 days ago are forgotten" in caplog.text and "9 notifications" in caplog.text
