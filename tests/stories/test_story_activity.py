"""Stories of the activity log: rows stored as they are, and what its three operations make of them."""
import pytest
from conftest import Client, db, listed, put

from orkosi import now
from plugins import keys


def row(id, home=1, **fields):
    """An entry as it is stored, and as it is shown."""
    shown = {"actor_type": "user", "actor_id": "7", "action": "task.done", "entity_type": "task", "entity_id": "12",
             "metadata": {"title": "Fix it"}, "created_at": "2026-11-02T10:00:00.000Z"} | fields
    put("activity", id=id, tenant_id=home, **shown)
    return {"id": id} | shown


@pytest.fixture
def empty(client):
    """A log in which nothing stands."""
    db.write(lambda: db.run("DELETE FROM activity WHERE :tenant"))


@pytest.mark.story("GET /api/activity-log")
def test_the_log_is_every_row_newest_first(client, empty):
    done = row(1001)
    job = row(1002, actor_type="system", actor_id="key_1", action="key.used", entity_type=None, entity_id=None, metadata=None)
    agent = row(1003, actor_type="agent", actor_id="felix", action="task.done", entity_id="13", created_at="2026-11-03T10:00:00.000Z")
    row(1004, home=2)
    assert listed(client, "/activity-log", [agent, job, done])
    for query, found in [("actor_type=agent", [agent]), ("actor_type=system", [job]), ("actor_id=7", [done]), ("action=task.done", [agent, done]),
                         ("action=task.done&actor_id=felix&actor_type=agent", [agent]), ("action=task.gone", [])]:
        assert listed(client, f"/activity-log?{query}", found)


@pytest.mark.story("POST /api/activity-log")
def test_an_entry_is_what_was_sent_with_the_actor_that_one_may_name(client, as_, application, lately):
    sent = {"actor_type": "agent", "actor_id": "otto", "action": "shop.opened", "entity_type": "shop", "entity_id": "5", "metadata": {"rooms": [1, 2]}}
    made = client.post("/activity-log", sent)
    assert (made.status, made.json) == (201, {"data": sent | {"id": made.data["id"], "created_at": lately}})
    bare = {"actor_type": "system", "actor_id": "clock", "action": "tick"}
    least = client.post("/activity-log", bare).data
    assert least == bare | {"id": made.data["id"] + 1, "entity_type": None, "entity_id": None, "metadata": None, "created_at": lately}
    ann = as_("ann")
    assert ann.post("/activity-log", sent).data["actor_type"] == "user"
    assert ann.post("/activity-log", sent).data["actor_id"] == str(ann.get("/auth/me").data["id"])
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert felix.post("/activity-log", sent | {"actor_id": "ada"}).data.items() >= {"actor_type": "agent", "actor_id": "felix"}.items()
    assert client.get("/activity-log?action=tick").data == [least] and client.get("/activity-log?actor_id=otto").data == [made.data]


@pytest.mark.story("GET /api/activity-log/stats")
def test_the_numbers_count_the_rows_of_their_time(client, empty):
    for id, (ago, action, kind) in enumerate([(60, "task.done", "agent"), (3600, "task.done", "user"), (7200, "rule.created", "user"),
                                              (2 * 86400, "task.done", "agent"), (6 * 86400, "key.made", "system"), (8 * 86400, "task.done", "user")], 1):
        row(id, action=action, actor_type=kind, created_at=now(-ago))
    row(99, home=2, created_at=now())
    assert client.get("/activity-log/stats").json == {"data": {
        "total": 6, "total_exceeded": False,
        "last_24h": {"total": 3, "total_exceeded": False, "by_action": {"task.done": 2, "rule.created": 1}, "by_actor_type": {"agent": 1, "user": 2}},
        "last_7d": {"total": 5, "total_exceeded": False, "by_action": {"task.done": 3, "rule.created": 1, "key.made": 1},
                    "by_actor_type": {"agent": 2, "user": 2, "system": 1}}}}


@pytest.mark.story("GET /api/activity-log/stats")
@pytest.mark.parametrize("rows, exceeded", [(10_000, False), (10_003, True)])
def test_beyond_ten_thousand_the_newest_are_counted_and_it_is_said(client, empty, rows, exceeded):
    row = {"at": now(-60), "action": "task.done"}
    db.write(lambda: db.run_many("INSERT INTO activity (tenant_id, actor_type, actor_id, action, created_at) VALUES (1, 'user', '7', :action, :at)",
                                 [row | {"at": now(-3600), "action": "rule.created"}] * 3 + [row] * (rows - 3)))
    counted = {"task.done": 10_000} if exceeded else {"task.done": 9_997, "rule.created": 3}
    lately = {"total": 10_000, "total_exceeded": exceeded, "by_action": counted, "by_actor_type": {"user": 10_000}}
    assert client.get("/activity-log/stats").data == {"total": 10_000, "total_exceeded": exceeded, "last_24h": lately, "last_7d": lately}
