"""Stories of discovery: engines, what they find, what is filed of it, and what it cost."""
import json

import pytest
from conftest import Like, listed, put

from orkosi import acting, db, now, seconds, system
from plugins import queue
from plugins.queue import executor

OLD, LATER = "2026-11-02T10:00:00.000Z", "2026-11-03T10:00:00.000Z"
FRESH = {"description": "", "schedule_interval_ms": 3_600_000, "model": None, "command": None, "enabled": True, "last_run_at": None, "last_status": None,
         "runs": {"total": 0, "failed": 0, "wasted": 0}, "findings": 0, "tasks": {"open": 0, "done": 0, "archived": 0}, "cost_micros": 0}


def work():
    """What lies in the server's own queue and is due, done here."""
    with acting(system()):
        while jobs := queue.claim(queue.OWN, "w", batch=50):
            for job in jobs:
                executor.run(job)


def let_come():
    """The slots of all schedules are now."""
    db.write(lambda: db.run("UPDATE jobs SET state = 'waiting', run_at = NULL WHERE state = 'delayed'"))
    work()


def printing(tmp_path, *lines, then=""):
    """A command that prints these lines."""
    path = tmp_path / "finder"
    text = "\n".join(json.dumps(one) if isinstance(one, dict) else one for one in lines)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n{then}\n")
    path.chmod(0o755)
    return [str(path)]


def engine(client, name="e", **fields):
    answer = client.post("/discovery-engines", {"name": name, "layer": "command"} | fields)
    assert answer.status == 201, answer
    return answer.data


def ran(client, slug="e"):
    """The newest run, once it was ordered and done."""
    assert client.post(f"/discovery-engines/{slug}/run").data["status"] == "queued"
    work()
    return client.get(f"/discovery-engines/{slug}").data["recent_runs"][0]


@pytest.mark.story("POST /api/discovery-engines")
def test_an_engine_is_made_with_its_schedule(client, lately):
    made = client.post("/discovery-engines", {"name": "Über Tasks!", "layer": "tasks"})
    assert made.status == 201 and made.json == {"data": FRESH | {"slug": "uber-tasks", "name": "Über Tasks!", "layer": "tasks", "created_at": lately,
                                                                  "next_run_at": lately(3600)}}
    full = {"name": "look", "layer": "command", "description": "Looks", "schedule_interval_ms": 60_000, "model": "m-1", "command": ["/bin/echo", "x"], "enabled": True}
    assert client.post("/discovery-engines", full).data == FRESH | full | {"slug": "look", "created_at": lately, "next_run_at": lately(60)}
    off = engine(client, "off", layer="agents", enabled=False)
    assert off == FRESH | {"slug": "off", "name": "off", "layer": "agents", "enabled": False, "created_at": lately, "next_run_at": None}
    assert db.value("SELECT count(*) FROM jobs WHERE state = 'delayed'") == 2


@pytest.mark.parametrize("fields, field", [
    ({"layer": "moon"}, "layer"), ({"layer": "command"}, "command"), ({"layer": "command", "command": []}, "command"), ({"command": ["x"]}, "command"),
    ({"schedule_interval_ms": 59_999}, "schedule_interval_ms"), ({"name": "Efficiency!"}, "name"), ({"name": "  "}, "name"), ({"name": "!!"}, "name"), ({"more": 1}, "more")])
def test_what_is_no_engine_is_named(client, fields, field):
    said = client.post("/discovery-engines", {"name": "n", "layer": "tasks"} | fields)
    assert said.status == 400 and field in said.json["error"]["message"], said
    assert db.value("SELECT count(*) FROM discovery_engines") == db.value("SELECT count(*) FROM jobs") == 0
    if field == "layer" and fields["layer"] == "moon":
        assert "agents, backups, credentials, files, logs, queue, tasks, command" in said.json["error"]["message"]


def test_a_slug_is_taken_once(client):
    engine(client, "A b", layer="tasks")
    assert client.post("/discovery-engines", {"name": "a-B", "layer": "tasks"}).status == 409


def seeded():
    """Two engines, their runs, and the tasks they filed."""
    for id, slug, more in ((1, "a", {"total": 9, "failed": 2, "wasted": 3, "findings": 14, "cost_micros": 700, "last_run_at": LATER, "last_status": "failed"}), (2, "b", {})):
        put("discovery_engines", id=id, tenant_id=1, slug=slug, name=slug.upper(), layer="command", command='["x", "y"]', model="m", description=f"of {slug}",
            schedule_interval_ms=90_000, enabled=0, created_at=OLD, updated_at=OLD, **more)
    for id, status in enumerate(("todo", "blocked", "review", "done", "done", "archived"), 1):
        put("tasks", id=id, tenant_id=1, title=f"t{id}", title_key=f"t{id}", status=status, created_by="system", created_at=OLD, updated_at=OLD)
        put("discovery_tasks", tenant_id=1, engine_id=1 if id != 5 else 2, run_id=1, fingerprint=str(id), task_id=id, filed_at=now(-50) if id < 6 else now(-40 * 86400))
    put("discovery_tasks", tenant_id=1, engine_id=1, run_id=1, fingerprint="gone", task_id=99, filed_at=OLD)
    runs = []
    for id, (age, status, new, took) in enumerate(((10, "done", 2, 30.5), (20, "done", 0, 60.25), (30, "failed", 1, 90.0), (40, "running", 0, None), (40 * 86400, "done", 5, 500.0)), 1):
        runs.append({"id": id, "trigger": "manual" if id == 1 else "schedule", "status": status, "started_at": OLD, "finished_at": LATER if took else None, "seconds": took,
                     "findings": new + 3, "new": new, "repeated": 2, "dismissed": 1, "cost_micros": 10 * id, "tokens": 100 * id, "error": "no" if status == "failed" else None})
        put("discovery_runs", **runs[-1], tenant_id=1, engine_id=1, slug="a", job_id=id, created_at=now(-age))
    return runs


SEEN = {"slug": "a", "name": "A", "description": "of a", "layer": "command", "schedule_interval_ms": 90_000, "model": "m", "command": ["x", "y"], "enabled": False,
        "next_run_at": None, "last_run_at": LATER, "last_status": "failed", "runs": {"total": 9, "failed": 2, "wasted": 3}, "findings": 14,
        "tasks": {"open": 3, "done": 1, "archived": 1}, "cost_micros": 700, "created_at": OLD}
SEEN_B = SEEN | {"slug": "b", "name": "B", "description": "of b", "last_run_at": None, "last_status": None, "runs": FRESH["runs"], "findings": 0, "cost_micros": 0,
                 "tasks": {"open": 0, "done": 1, "archived": 0}}


@pytest.mark.story("GET /api/discovery-engines", "GET /api/discovery-engines/{slug}")
def test_engines_are_seen_with_what_they_did(client):
    runs = seeded()
    assert listed(client, "/discovery-engines", [SEEN, SEEN_B])
    assert client.get("/discovery-engines/a").json == {"data": SEEN | {"recent_runs": runs[::-1]}}
    assert client.get("/discovery-engines/b").data == SEEN_B | {"recent_runs": []} and client.get("/discovery-engines/c").status == 404
    for id in range(6, 30):
        put("discovery_runs", id=id, tenant_id=1, engine_id=1, slug="a", trigger="manual", status="queued", created_at=OLD)
    assert [one["id"] for one in client.get("/discovery-engines/a").data["recent_runs"]] == list(range(29, 9, -1))


@pytest.mark.story("GET /api/discovery-engines/efficiency")
def test_what_was_in_vain_is_said(client):
    assert client.get("/discovery-engines/efficiency").data == []
    runs = [one for one in seeded()[:3]]
    new = sum(one["new"] for one in runs)
    cost = sum(one["cost_micros"] for one in runs)
    none = {"runs": 0, "compute_minutes": 0.0, "cost_micros": 0, "tokens": 0, "findings": 0, "tasks_created": 0, "wasted_runs": 0, "waste": 0.0, "cost_per_task_micros": None}
    assert client.get("/discovery-engines/efficiency").json == {"data": [
        {"slug": "a", "runs": 3, "compute_minutes": round(sum(one["seconds"] for one in runs) / 60, 2), "cost_micros": cost, "tokens": sum(one["tokens"] for one in runs),
         "findings": sum(one["findings"] for one in runs), "tasks_created": new, "tasks_done": 1, "wasted_runs": 1, "waste": round(1 / 3, 4),
         "cost_per_task_micros": round(cost / new)}, none | {"slug": "b", "tasks_done": 1}]}


@pytest.mark.story("PATCH /api/discovery-engines/{slug}")
def test_an_engine_is_changed_and_its_schedule_with_it(client, lately):
    made = engine(client, layer="tasks")
    change = {"name": "Another", "description": "d", "model": "m", "layer": "command", "command": ["/bin/echo"]}
    after = client.patch("/discovery-engines/e", change).data
    assert after == made | change and client.patch("/discovery-engines/e", {}).data == after
    assert client.patch("/discovery-engines/e", {"schedule_interval_ms": 120_000}).data == after | {"schedule_interval_ms": 120_000, "next_run_at": lately(120)}
    plan, = db.all(dict, "SELECT * FROM schedules")
    assert plan["every_ms"] == 120_000 and db.value("SELECT run_at FROM jobs WHERE state = 'delayed'") == plan["slot"]
    client.post("/discovery-engines/e/run")
    off = client.patch("/discovery-engines/e", {"enabled": False}).data
    assert (off["enabled"], off["next_run_at"], off["last_status"]) == (False, None, None)
    assert db.value("SELECT count(*) FROM schedules") == db.value("SELECT count(*) FROM discovery_runs") == 0
    assert db.value("SELECT count(*) FROM jobs WHERE state IN ('waiting', 'delayed')") == 0
    assert client.patch("/discovery-engines/e", {"enabled": True}).data["next_run_at"] == lately(120)
    assert client.patch("/discovery-engines/e", {"layer": "agents"}).data["command"] is None
    for body, field in (({"layer": "moon"}, "layer"), ({"command": ["x"]}, "command"), ({"schedule_interval_ms": 5}, "schedule_interval_ms"), ({"name": " "}, "name")):
        assert field in client.patch("/discovery-engines/e", body).json["error"]["message"]
    assert client.patch("/discovery-engines/no", {}).status == 404 and client.get("/discovery-engines/e").data["layer"] == "agents"


@pytest.mark.story("DELETE /api/discovery-engines/{slug}")
def test_an_ended_engine_leaves_what_it_found(client, tmp_path):
    engine(client, command=printing(tmp_path, {"title": "one"}))
    engine(client, "other", layer="tasks")
    ran(client)
    client.post("/discovery-engines/e/run")
    assert client.delete("/discovery-engines/e").json == {"data": {"deleted": True, "id": "e"}} and client.delete("/discovery-engines/e").status == 404
    assert [one["slug"] for one in client.get("/discovery-engines").data] == ["other"] and [one["title"] for one in client.get("/tasks").data] == ["one"]
    assert db.all(tuple, "SELECT slug, status FROM discovery_runs") == [("e", "done")] and db.value("SELECT count(*) FROM schedules") == 1
    assert db.value("SELECT count(*) FROM jobs WHERE state = 'waiting'") == 0


@pytest.mark.story("POST /api/discovery-engines/{slug}/run")
def test_a_run_is_ordered_once_and_files_what_it_finds(client, tmp_path, lately):
    client.post("/agents", {"name": "felix"})
    full = {"title": "Full", "fingerprint": "f", "description": "d", "priority": "P0", "assignee": "felix", "product_slug": "shop"}
    engine(client, command=printing(tmp_path, full, {"title": "Bare"}, {"title": "Bare"}, "",
                                    then='echo "$ORKOSI_MODEL" > "$ORKOSI_DATA/model"; echo \'{"tokens_in": 5, "tokens_out": 7, "cost_micros": 90}\' > "$ORKOSI_REPORT"'), model="m-9")
    first = client.post("/discovery-engines/e/run")
    job, = db.all(tuple, "SELECT id FROM jobs WHERE state = 'waiting'")
    assert first.status == 200 and first.json == {"data": {"run_id": 1, "job_id": f"job_{job[0]}", "status": "queued"}}
    again = client.post("/discovery-engines/e/run")
    assert again.data == first.data and again.meta == {"duplicate": True, "message": Like("A run of this engine is queued or under way.*")} and client.post("/discovery-engines/no/run").status == 404
    assert client.get("/discovery-engines/e").data["last_status"] == "queued"
    work()
    seen = client.get("/discovery-engines/e").data
    run, = seen["recent_runs"]
    assert 0 < run.pop("seconds") < 20
    assert run == {"id": 1, "trigger": "manual", "status": "done", "started_at": lately, "finished_at": lately, "findings": 3, "new": 2, "repeated": 1, "dismissed": 0,
                   "cost_micros": 90, "tokens": 12, "error": None}
    assert [seen[name] for name in ("last_run_at", "last_status", "runs", "findings", "tasks", "cost_micros")] == [
        lately, "done", {"total": 1, "failed": 0, "wasted": 0}, 3, {"open": 2, "done": 0, "archived": 0}, 90]
    bare, task = client.get("/tasks").data
    assert {name: task[name] for name in ("title", "description", "priority", "assignee", "product_slug")} == {name: full[name] for name in full if name != "fingerprint"}
    assert [bare[name] for name in ("title", "priority", "assignee", "type", "category", "tags", "status")] == ["Bare", "P2", None, "ops", "discovery", "e", "todo"]
    from orkosi import settings
    assert (settings.data / "model").read_text() == "m-9\n"


def test_the_clock_has_it_run(client, tmp_path):
    engine(client, command=printing(tmp_path, {"title": "one"}), schedule_interval_ms=60_000)
    let_come()
    seen = client.get("/discovery-engines/e").data
    assert [(one["trigger"], one["status"], one["new"]) for one in seen["recent_runs"]] == [("schedule", "done", 1)] and seen["next_run_at"] > now(50)
    let_come()
    assert client.get("/discovery-engines/e").data["runs"] == {"total": 2, "failed": 0, "wasted": 1}


def test_what_is_open_dismissed_done_and_deleted(client, tmp_path):
    """Open: repeated. Archived by a person: dismissed. Done: it came back, and says from where. Archived by the system: filed again."""
    engine(client, command=printing(tmp_path, *({"title": name} for name in ("open", "archived", "done", "swept", "deleted"))))
    ran(client)
    ids = {one["title"]: one["id"] for one in client.get("/tasks").data}
    client.patch(f"/tasks/{ids['archived']}", {"status": "archived"}), client.patch(f"/tasks/{ids['done']}", {"status": "done"})
    assert client.delete(f"/tasks/{ids['deleted']}").status == 200
    with acting(system()):
        from plugins import tasks
        tasks.change(ids["swept"], tasks.TaskPatch(status="archived"))
    run = ran(client)
    assert [run[name] for name in ("findings", "new", "repeated", "dismissed")] == [5, 2, 1, 2]
    again = {one["title"]: one for one in client.get("/tasks?status=todo").data}
    assert again.keys() == {"open", "done", "swept"} and again["open"]["id"] == ids["open"]
    assert f"It came back: task {ids['done']} was done at " in again["done"]["description"]
    assert db.value("SELECT previous_task_id FROM discovery_tasks WHERE task_id = :id", id=again["done"]["id"]) == ids["done"]
    assert [ran(client)[name] for name in ("new", "repeated", "dismissed")] == [0, 3, 2]
    assert client.get("/discovery-engines/e").data["tasks"] == {"open": 3, "done": 1, "archived": 2}


@pytest.mark.parametrize("command, said, new", [
    (["/nowhere/finder"], "/nowhere/finder cannot be run: No such file or directory", 0),
    (["sh", "-c", "echo '{\"title\": \"good\"}'; echo '{broken'; echo '{\"name\": 1}'"], "Line 2 is no finding: ", 1),
    (["sh", "-c", "echo '{\"title\": \"good\"}'; echo oh >&2; exit 3"], "It ended with 3: oh", 1),
    (["sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' 'x'"], "It printed more than 1,048,576 bytes; the rest was not read", 0),
    (["sh", "-c", "i=0; while [ $i -lt 250 ]; do i=$((i+1)); echo \"{\\\"title\\\": \\\"t$i\\\"}\"; done"], "There were 250 findings; those beyond 200 are left out", 200),
    (["sh", "-c", "echo '{\"title\": \"x\", \"assignee\": \"no body\"}'; echo '{\"title\": \"good\"}'"], "x: assignee: ", 1),
    (["sh", "-c", "printf '%0200000d\\n' 0 | tr 0 '['"], "Line 1 is no finding", 0)])
def test_a_bad_command_is_told_of_and_costs_nothing_else(client, command, said, new):
    engine(client, command=command)
    run = ran(client)
    assert run["status"] == "failed" and said in run["error"] and run["new"] == new == len(client.get("/tasks?limit=200").data)
    assert client.get("/discovery-engines/e").data["runs"] == {"total": 1, "failed": 1, "wasted": 0}


def test_a_command_that_takes_too_long_is_ended(client, monkeypatch):
    from orkosi import settings
    monkeypatch.setattr(settings, "discovery_seconds", 1)
    engine(client, command=["sh", "-c", "echo '{\"title\": \"before\"}'; sleep 300"])
    run = ran(client)
    assert run["error"] == "It took longer than 1 s and was ended" and run["new"] == 1 and run["seconds"] < 5


def test_only_an_administrator_names_a_command(client, as_, key_for):
    editor = as_("ed", role="editor")
    assert editor.post("/discovery-engines", {"name": "x", "layer": "command", "command": ["id"]}).status == 403
    assert editor.post("/discovery-engines", {"name": "x", "layer": "tasks"}).status == 201
    assert editor.patch("/discovery-engines/x", {"layer": "command", "command": ["id"]}).status == 403
    assert key_for("tasks:write", "tasks:read").post("/discovery-engines", {"name": "y", "layer": "tasks"}).status == 403
    assert key_for("tasks:write").post("/discovery-engines/x/run").status == 200


# ── the layers ──


def found(client, layer):
    """What a layer finds, as the tasks it files: titles, by age."""
    slug = engine(client, f"of {layer}", layer=layer)["slug"]
    run = ran(client, slug)
    assert run["status"] == "done", run
    before = [one["title"] for one in client.get("/tasks?limit=200").data if one["category"] == "discovery"][::-1]
    again = ran(client, slug)
    assert (again["new"], again["repeated"]) == (0, run["new"]), "a second run files none"
    return before


def test_tasks_that_stand_still(client):
    for id, (status, at) in enumerate((("blocked", now()), ("todo", now(-8 * 86400)), ("review", now(-8 * 86400)), ("todo", now(-6 * 86400)), ("done", OLD)), 1):
        put("tasks", id=id, tenant_id=1, title=f"t{id}", title_key=f"t{id}", status=status, last_error="why", created_by="system", created_at=OLD, updated_at=at)
    assert found(client, "tasks") == ["Unblock task 1: t1", "See to task 3, which stands still: t3", "See to task 2, which stands still: t2"]
    assert client.get("/tasks?q=Unblock").data[0]["description"] == "Task 1 is blocked. why"


def test_agents_that_fail_or_are_silent(client):
    for id, name in enumerate(("felix", "otto", "ada"), 1):
        put("agents", id=id, tenant_id=1, name=name, display_name=name, wanted="stopped" if name != "ada" else "running",
            steps='[{"step": 6, "name": "plist", "ok": true, "detail": ""}]', created_at=OLD, updated_at=OLD)
    for agent, statuses in (("felix", ("done", "failed", "timeout", "lost", "running")), ("otto", ("failed", "failed", "done"))):
        for status in statuses:
            put("agent_runs", tenant_id=1, agent=agent, status=status, error=f"{agent} {status}", started_at=OLD)
    assert found(client, "agents") == ["Agent ada is silent", "Agent felix fails: its last 3 runs did"]
    assert client.get("/tasks?q=felix").data[0]["description"] == "The last error was: felix lost"


def test_bursts_of_errors(client):
    for who, many, age in (("felix", 20, 60), ("otto", 19, 60), ("ada", 30, 7200)):
        for n in range(many):
            put("log_lines", source="db", agent=who, level="error", message=f"no {n}", created_at=now(-age))
    assert found(client, "logs") == ["felix logs many errors"] and client.get("/tasks?q=errors").data[0]["description"] == "20 in the last hour. The newest: no 19"


def test_dead_jobs_and_queues_that_nobody_works(client):
    for id, (place, state, age) in enumerate((("a", "dead", 60), ("a", "dead", 90), ("b", "dead", 90000), ("c", "waiting", 4000), ("d", "waiting", 60), ("a", "waiting", 60)), 1):
        put("jobs", id=id, tenant_id=1, queue=place, task_type="t", state=state, error="boom", created_at=now(-age), finished_at=now(-age) if state == "dead" else None)
    assert found(client, "queue") == ["Jobs of queue a are dead", "Nobody works queue c"]
    assert client.get("/tasks?q=dead").data[0]["description"] == "2 within a day. The newest is job_1 (t): boom"


def test_backups_that_are_missing_or_unproven(client, data):
    from plugins import backups
    assert found(client, "backups") == ["There is no backup"]
    with acting(system()):
        backups.making.folder().mkdir(exist_ok=True)
        name = backups.fresh_name("manual")
        backups.making.make(name, "manual")
        backups.note(name, verification="failed", size=(backups.making.folder() / name).stat().st_size)
    client.delete("/discovery-engines/of-backups")
    assert found(client, "backups")[1:] == ["The newest backup cannot be restored"]


def test_credentials_that_are_unused_or_old(client):
    for key, used, updated in (("A", None, now()), ("B", now(-100 * 86400), now(-200 * 86400)), ("C", now(-5), now(-179 * 86400)), ("D", now(-5), now(-181 * 86400))):
        client.post("/credentials", {"key": key, "value": "sesame"})
        db.write(lambda key=key, used=used, updated=updated: db.run("UPDATE credentials SET last_used_at = :used, updated_at = :updated, created_at = :updated WHERE key = :key",
                                                                    key=key, used=used, updated=updated))
    assert found(client, "credentials") == ["Nobody uses the credential B", "The credential B is old", "The credential D is old"]
    assert "sesame" not in str(client.get("/tasks").data)


def test_files_that_are_not_indexed(client, data):
    import os
    client.post("/agents", {"name": "felix"})
    for name, age in (("late.txt", 700), ("fresh.txt", 60), (".env", 700)):
        path = data / "agents/felix/workspace" / name
        path.write_text("x")
        os.utime(path, (seconds(now()) - age,) * 2)
    db.write(lambda: db.run("DELETE FROM files"))
    for path in (data / "agents/felix/workspace").iterdir():
        if path.name not in ("late.txt", ".env"):
            os.utime(path)
    assert found(client, "files") == ["Files of agents/felix/workspace are not indexed"]
    assert "for example agents/felix/workspace/late.txt" in client.get("/tasks?q=indexed").data[0]["description"]
