"""Stories of schedules: of tasks and of jobs, made, shown, changed, ended; and what their slots leave."""
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from conftest import Client, listed

from orkosi import acting, db, seconds, system
from plugins import keys, queue
from plugins.queue import executor

TASK = {"title": "Read the news", "description": "All of it", "priority": "P1", "assignee": "felix", "product_slug": "shop", "type": "research",
        "category": "daily", "tags": "news", "estimated_minutes": 5, "max_duration_seconds": 600}
NONE = {"description": "", "priority": "P2", "assignee": None, "product_slug": None, "type": "other", "category": None, "tags": None,
        "estimated_minutes": None, "max_duration_seconds": 3600}
JOBS = {"priority": 0, "max_attempts": 3, "catch_up": "skip", "overlap": "skip", "enabled": True}
UNTRIED = {"last_run_at": None, "runs": 0, "missed": 0, "last_error": None, "task_id": None}


def row(name):
    return db.one(dict, "SELECT * FROM schedules WHERE name = :name", name=name)


def stamps(kept):
    return {"id": kept["id"], "job_id": kept["job_id"] and f"job_{kept['job_id']}", "next_run_at": kept["slot"], "created_at": kept["created_at"],
            "updated_at": kept["updated_at"]}


def let_come():
    """The slot of each schedule is now; what it does is done. The server's own hands are ours here."""
    db.write(lambda: db.run("UPDATE jobs SET state = 'waiting', run_at = NULL WHERE state = 'delayed'"))
    with acting(system()):
        for job in queue.claim(queue.OWN, "w", batch=50):
            executor.run(job)


def eight(days=0):
    """The next eight o'clocks of Berlin, worked out by hand."""
    here = datetime.now(ZoneInfo("Europe/Berlin"))
    first = here.replace(hour=8, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=(first <= here) + days)).timestamp()


@pytest.mark.story("POST /api/schedules")
def test_a_task_every_morning(client):
    client.post("/agents", {"name": "felix"}), client.post("/products", {"name": "Shop", "slug": "shop"})
    made = client.post("/schedules", {"name": "news", "cron": "0 8 * * *", "tz": "Europe/Berlin", "task": TASK, "catch_up": "once", "max_attempts": 2})
    assert made.status == 201 and made.json == {"data": stamps(row("news")) | JOBS | UNTRIED | {
        "name": "news", "cron": "0 8 * * *", "every_ms": None, "tz": "Europe/Berlin", "task": TASK, "queue_name": None, "payload": None,
        "catch_up": "once", "max_attempts": 2}}
    assert seconds(made.data["next_run_at"]) == eight() and client.get("/tasks").data == []
    let_come()
    task, = client.get("/tasks").data
    assert {name: task[name] for name in TASK} == TASK and task["status"] == "todo" and task["job_id"]
    seen = client.get(f"/schedules/{made.data['id']}").data
    assert seen["task_id"] == task["id"] and seen["runs"] == 1 and seen["last_run_at"] and seen["missed"] == 0 and seen["job_id"] != made.data["job_id"]


@pytest.mark.story("POST /api/schedules")
def test_a_job_again_and_again(client):
    made = client.post("/schedules", {"name": "resize", "every_ms": 60_000, "queue_name": "images", "payload": {"of": "all"}, "priority": 4, "overlap": "queue"})
    assert made.status == 201 and made.data == stamps(kept := row("resize")) | {"next_run_at": queue.iso(seconds(kept["slot"]) + 60)} | JOBS | UNTRIED | {
        "name": "resize", "cron": None, "every_ms": 60_000, "tz": None, "task": None, "queue_name": "images", "payload": {"of": "all"}, "priority": 4,
        "overlap": "queue"}
    job, = client.get("/task-queue?queue_name=images").data
    assert [job[name] for name in ("id", "task_type", "payload", "priority", "max_attempts")] == [made.data["job_id"], "resize", {"of": "all"}, 4, 3]
    assert seconds(kept["slot"]) == pytest.approx(seconds(kept["created_at"]), abs=0.1)  # `every` begins at once
    off = client.post("/schedules", {"name": "off", "every_ms": 60_000, "queue_name": "images", "enabled": False}).data
    assert (off["enabled"], off["next_run_at"], off["job_id"], off["payload"]) == (False, None, None, {})
    assert len(client.get("/task-queue?queue_name=images").data) == 1


def test_a_task_still_open_holds_the_next_one_or_not(client):
    for name, overlap in (("skips", "skip"), ("queues", "queue")):
        client.post("/schedules", {"name": name, "every_ms": 60_000, "task": {"title": name}, "overlap": overlap})
    let_come(), let_come()
    titles = [one["title"] for one in client.get("/tasks").data]
    assert sorted(titles) == ["queues", "queues", "skips"] and [row(name)["missed"] for name in ("skips", "queues")] == [1, 0]
    client.patch(f"/tasks/{row('skips')['task_id']}", {"status": "done"})
    let_come()
    assert [one["title"] for one in client.get("/tasks").data].count("skips") == 2 and row("skips")["missed"] == 1


def test_a_slot_is_filed_once_though_its_job_runs_twice(client):
    client.post("/schedules", {"name": "a", "every_ms": 60_000, "task": {"title": "t"}, "overlap": "queue"})
    from plugins.schedules import Due, filing
    one = row("a")
    with acting(system()):
        first = filing.file(Due(one["id"], one["slot"]))
        assert filing.file(Due(one["id"], one["slot"])) == first and len(client.get("/tasks").data) == 1


def test_another_tenants_schedule_files_its_own_task(client, as_):
    """The server's own jobs lie in the host's queue, whoever they are for."""
    with acting(system(7)):
        from plugins import schedules
        schedules.keep(queue.OWN, "t", {"title": "theirs"}, every=60_000, task_type="schedules.file")
    let_come()
    assert db.all(tuple, "SELECT tenant_id, title FROM tasks") == [(7, "theirs")] and client.get("/tasks").data == [] == client.get("/schedules").data
    assert row("t")["runs"] == 1 and row("t")["slot"] > row("t")["filed_slot"]


def test_why_a_slot_failed_is_told(client):
    made = client.post("/schedules", {"name": "a", "every_ms": 60_000, "task": {"title": "t"}, "max_attempts": 1}).data
    db.write(lambda: db.run("""UPDATE schedules SET payload = '{"title": " "}'"""))
    let_come()
    assert "title" in row("a")["last_error"] and row("a")["job_id"] != int(made["job_id"][4:])  # and there is a next one all the same
    db.write(lambda: db.run("""UPDATE schedules SET payload = '{"title": "t"}'"""))
    assert client.get(f"/schedules/{made['id']}").data["last_error"] == row("a")["last_error"]
    let_come()
    assert row("a")["last_error"] is None and len(client.get("/tasks").data) == 1


@pytest.mark.parametrize("fields, field", [
    ({"task": None, "queue_name": None}, "task"), ({"queue_name": "q"}, "task"), ({"cron": "0 8 * * *"}, "cron"), ({"every_ms": None}, "cron"),
    ({"tz": "UTC"}, "tz"), ({"every_ms": 999}, "every_ms"), ({"every_ms": None, "cron": "nonsense"}, "cron"), ({"every_ms": None, "cron": "0 0 30 2 *"}, "cron"),
    ({"every_ms": None, "cron": "0 8 * * *", "tz": "Mars/Base"}, "tz"), ({"name": " "}, "name"), ({"payload": {"a": 1}}, "payload"),
    ({"priority": 1}, "priority"), ({"task": {"title": " "}}, "task.title"), ({"task": {"title": "x", "assignee": "no body"}}, "assignee"),
    ({"task": None, "queue_name": "orkosi"}, "queue_name"), ({"task": {"title": "x", "status": "done"}}, "task")])
def test_what_is_no_schedule_is_named(client, fields, field):
    said = client.post("/schedules", {"name": "n", "every_ms": 60_000, "task": {"title": "t"}} | fields)
    assert said.status == 400 and any(field in one["field"] for one in said.json["error"]["details"]), said
    assert db.value("SELECT count(*) FROM schedules") == db.value("SELECT count(*) FROM jobs") == 0


def test_a_name_is_given_once(client):
    body = {"name": "n", "every_ms": 60_000, "task": {"title": "t"}}
    first = client.post("/schedules", body).data
    assert client.post("/schedules", body).status == 409 and client.get("/schedules").data == [first]
    assert client.post("/schedules", {"name": "n", "every_ms": 60_000, "queue_name": "q"}).status == 201  # another kind
    assert client.post("/schedules", body | {"name": "m", "task": {"title": "t", "assignee": "ghost"}}).meta["warnings"] == [
        "There is no agent ghost; create it, or assign the task to another"]


def test_there_is_an_end_to_how_many(client, monkeypatch):
    from orkosi import settings
    monkeypatch.setattr(settings, "schedules_most", 2)
    made = [client.post("/schedules", {"name": f"n{n}", "every_ms": 60_000, "queue_name": "q", "enabled": False}).status for n in range(3)]
    assert made == [201, 201, 409] and client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "x", "data": {}, "every": 60_000}).status == 409
    assert client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "n0", "data": {}, "every": 60_000}).status == 201, "one that is there may be changed"


@pytest.mark.story("GET /api/schedules", "GET /api/schedules/{id}")
def test_schedules_are_listed_and_shown(client):
    a = client.post("/schedules", {"name": "a", "cron": "0 8 * * *", "tz": "Europe/Berlin", "task": {"title": "t"}}).data
    b = client.post("/schedules", {"name": "b", "every_ms": 60_000, "queue_name": "q", "payload": {"x": 1}}).data
    c = client.post("/schedules", {"name": "c", "every_ms": 60_000, "queue_name": "r", "enabled": False}).data
    assert a["task"] == NONE | {"title": "t"}
    assert listed(client, "/schedules", [a, b, c])
    assert client.get("/schedules?queue_name=q").data == [b] and client.get("/schedules?enabled=false").data == [c]
    assert client.get("/schedules?enabled=true").data == [a, b]
    shown = client.get(f"/schedules/{a['id']}").data
    assert shown == a | {"coming": shown["coming"]} and [seconds(one) for one in shown["coming"]] == [eight(day) for day in range(5)]
    often = client.get(f"/schedules/{b['id']}").data
    assert [seconds(one) - seconds(often["coming"][0]) for one in often["coming"]] == pytest.approx([0, 60, 120, 180, 240])
    assert client.get(f"/schedules/{c['id']}").data == c | {"coming": []} and client.get("/schedules/99").status == 404
    db.write(lambda: db.run("UPDATE schedules SET runs = 3, missed = 2, last_run_at = '2026-11-02T10:00:00.000Z', last_error = 'no', task_id = 5 WHERE name = 'c'"))
    assert client.get("/schedules").data[2] == c | {"runs": 3, "missed": 2, "last_run_at": "2026-11-02T10:00:00.000Z", "last_error": "no", "task_id": 5}


@pytest.mark.story("PATCH /api/schedules/{id}")
def test_a_schedule_is_changed(client, lately):
    a = client.post("/schedules", {"name": "a", "cron": "0 8 * * *", "tz": "UTC", "task": {"title": "t"}}).data
    b = client.post("/schedules", {"name": "b", "cron": "0 8 * * *", "tz": "Europe/Berlin", "queue_name": "q", "payload": {"x": 1}}).data
    assert client.patch(f"/schedules/{a['id']}", {"task": {"title": "u", "priority": "P0"}}).data["task"] == NONE | {"title": "u", "priority": "P0"}
    change = {"name": "c", "payload": {"y": 2}, "priority": 3, "max_attempts": 5, "catch_up": "once", "overlap": "queue"}
    after = client.patch(f"/schedules/{b['id']}", change).data
    assert after == b | change | {"updated_at": lately, "job_id": after["job_id"]} and after["next_run_at"] == b["next_run_at"]
    job, = client.get("/task-queue?queue_name=q").data
    assert [job[name] for name in ("id", "task_type", "payload", "priority", "max_attempts", "run_at")] == [
        after["job_id"], "c", {"y": 2}, 3, 5, after["next_run_at"]]
    moved = client.patch(f"/schedules/{b['id']}", {"tz": "UTC"}).data
    assert moved["tz"] == "UTC" and seconds(moved["next_run_at"]) % 86400 == 8 * 3600
    every = client.patch(f"/schedules/{b['id']}", {"every_ms": 90_000}).data
    assert (every["cron"], every["every_ms"], every["tz"]) == (None, 90_000, None)
    assert seconds(every["next_run_at"]) == pytest.approx(seconds(every["updated_at"]) + 90, abs=0.2)
    assert client.patch(f"/schedules/{b['id']}", {"tz": "UTC"}).status == 400
    back = client.patch(f"/schedules/{b['id']}", {"cron": "30 * * * *"}).data
    assert (back["cron"], back["every_ms"]) == ("30 * * * *", None) and seconds(back["next_run_at"]) % 3600 == 1800
    off = client.patch(f"/schedules/{b['id']}", {"enabled": False}).data
    assert (off["enabled"], off["next_run_at"], off["job_id"]) == (False, None, None) and client.get("/task-queue?queue_name=q").data == []
    on = client.patch(f"/schedules/{b['id']}", {"enabled": True}).data
    assert on["next_run_at"] == back["next_run_at"] and len(client.get("/task-queue?queue_name=q").data) == 1
    for body, field in (({"task": {"title": "x"}}, "task"), ({"cron": "0 8 * * *", "every_ms": 5000}, "every_ms"), ({"cron": "x"}, "cron"), ({"tz": "x/y"}, "tz")):
        assert client.patch(f"/schedules/{b['id']}", body).json["error"]["details"][0]["field"] == field
    assert client.patch(f"/schedules/{a['id']}", {"payload": {}}).json["error"]["details"][0]["field"] == "payload"
    assert client.get(f"/schedules/{b['id']}").data == on | {"coming": client.get(f"/schedules/{b['id']}").data["coming"]}
    assert client.patch("/schedules/99", {}).status == 404


@pytest.mark.story("DELETE /api/schedules/{id}")
def test_a_schedule_is_ended(client):
    a, b = (client.post("/schedules", {"name": name, "every_ms": 60_000, "task": {"title": name}}).data["id"] for name in "ab")
    let_come()
    assert client.delete(f"/schedules/{a}").json == {"data": {"deleted": True, "id": a}} and client.delete(f"/schedules/{a}").status == 404
    assert [one["id"] for one in client.get("/schedules").data] == [b] and len(client.get("/tasks").data) == 2
    assert db.value("SELECT count(*) FROM jobs WHERE state = 'delayed'") == 1


def test_a_key_needs_the_right_to_do_it_once(application, client, key_for):
    """What a key may not do once, it may not have done every minute; and an agent's sees no plans."""
    client.post("/agents", {"name": "felix"})
    body = {"name": "n", "every_ms": 60_000, "task": {"title": "t"}}
    one = client.post("/schedules", body).data["id"]
    plans = key_for("schedules:read", "schedules:write")
    assert plans.post("/schedules", body | {"name": "m"}).status == plans.patch(f"/schedules/{one}", {}).status == plans.delete(f"/schedules/{one}").status == 403
    assert plans.post("/schedules", {"name": "m", "every_ms": 60_000, "queue_name": "q"}).status == 403 and len(plans.get("/schedules").data) == 1
    files = key_for("schedules:write", "tasks:write")
    assert files.post("/schedules", body | {"name": "m"}).status == 201 and files.get("/schedules").status == 403
    felix = Client(application, keys.issue(1, "f", ["schedules:read", "schedules:write", "tasks:write", "queue:submit"], agent="felix")[1])
    assert {felix.get("/schedules").status, felix.get(f"/schedules/{one}").status, felix.post("/schedules", body).status,
            felix.patch(f"/schedules/{one}", {}).status, felix.delete(f"/schedules/{one}").status} == {403}
