"""Stories of reviews: what an agent did, seen by a person, and what that person says."""
import os

import pytest
from conftest import Like, eventually, put

from orkosi import acting, db, settings, system
from plugins.files import Seen, keep, versions


def at(second):
    return f"2026-11-02T10:00:{second:02d}.000Z"


def seed(task="review", finished=at(30)):
    put("tasks", id=5, tenant_id=1, title="t", title_key="t", status=task, assignee="felix", reason="report_unusable", note="n", resolution="r", created_by="system", created_at=at(0), updated_at=at(0))
    for id, agent, start in ((7, "otto", at(1)), (8, "felix", at(10))):
        put("agent_runs", id=id, tenant_id=1, agent=agent, task_id=5, status="done" if finished else "running", started_at=start, finished_at=finished)
    put("agent_runs", id=9, tenant_id=1, agent="felix", task_id=66, status="done", started_at=at(50), finished_at=at(51))


def file(name, content, since, agent="felix"):
    put("files", tenant_id=1, name=name, path=f"agents/{agent}/workspace/{name}", workspace=agent, content=content, size=len(content or ""), hash=content, synced=1, created_at=at(0), updated_at=since)


def version(name, content, since, until, agent="felix"):
    put("file_versions", tenant_id=1, path=f"agents/{agent}/workspace/{name}", workspace=agent, content=content, hash=content, since=since, until=until)


@pytest.mark.story("GET /api/tasks/{id}/review")
def test_what_the_last_run_did_to_its_files_is_shown(client):
    seed()
    file("same.txt", "as it was\n", at(5))
    file("changed.txt", "one\nTWO\nthree\n", at(20)), version("changed.txt", "one\ntwo\nthree\n", at(5), at(15)), version("changed.txt", "one\n2\nthree\n", at(15), at(20))
    file("added.txt", "new\n", at(12)), version("deleted.txt", "old\n", at(5), at(25))
    file("later.txt", "after it\n", at(50)), version("later.txt", "before\n", at(5), at(50))
    file("twice.txt", "again later\n", at(50)), version("twice.txt", "first\n", at(5), at(12)), version("twice.txt", "second\n", at(12), at(50))
    file("back.txt", "there\n", at(20)), version("back.txt", "there\n", at(5), at(15)), version("back.txt", "gone\n", at(15), at(20))
    file("passing.txt", "made after\n", at(55)), version("passing.txt", "made and gone\n", at(12), at(14))
    file("image.png", None, at(12)), version("image.png", None, at(5), at(12))
    file("other.txt", "otto's\n", at(12), "otto")
    for n in range(60):
        put("log_lines", source="file", agent="felix", level="info", message=f"line {n}", task_id=5, created_at=at(20))
    path = "agents/felix/workspace/"
    assert client.get("/tasks/5/review").json == {"data": {
        "task_id": 5, "status": "review", "reason": "report_unusable", "note": "n", "resolution": "r", "run_id": 8, "agent": "felix", "started_at": at(10),
        "finished_at": at(30), "more_changes": 0, "log": [f"line {n}" for n in range(10, 60)], "changes": [
            {"path": path + "added.txt", "what": "added", "diff": f"--- a/{path}added.txt\n+++ b/{path}added.txt\n@@ -0,0 +1 @@\n+new"},
            {"path": path + "changed.txt", "what": "changed", "diff": f"--- a/{path}changed.txt\n+++ b/{path}changed.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three"},
            {"path": path + "deleted.txt", "what": "deleted", "diff": f"--- a/{path}deleted.txt\n+++ b/{path}deleted.txt\n@@ -1 +0,0 @@\n-old"},
            {"path": path + "twice.txt", "what": "changed", "diff": f"--- a/{path}twice.txt\n+++ b/{path}twice.txt\n@@ -1 +1 @@\n-first\n+second"}]}}


def test_what_is_too_large_or_nothing_at_all(client):
    seed(finished=None)
    file("long.txt", "x\n" * 3000, at(20)), version("long.txt", "y\n", at(5), at(20))
    file("wide.txt", "w" * 40_000, at(20)), version("wide.txt", "y\n", at(5), at(20))
    for n in range(120):
        file(f"z{n:03d}", "z\n", at(20))
    found = client.get("/tasks/5/review").data
    assert found["changes"][0] == {"path": "agents/felix/workspace/long.txt", "what": "changed", "diff": None} and found["finished_at"] is None
    assert found["changes"][1]["diff"].endswith("\n… the rest is left out") and len(found["changes"]) == 100 and found["more_changes"] == 22
    id = client.post("/tasks", {"title": "nobody did anything"}).data["id"]
    assert client.get(f"/tasks/{id}/review").data == {"task_id": id, "status": "todo", "reason": None, "note": None, "resolution": None, "run_id": None, "agent": None,
                                                      "started_at": None, "finished_at": None, "changes": [], "more_changes": 0, "log": []}
    assert client.get("/tasks/99/review").status == 404


def test_the_last_versions_of_a_file_are_kept(client, monkeypatch):
    monkeypatch.setattr(settings, "file_versions", 3)
    path = "agents/felix/workspace/a.txt"
    rows = lambda: [row[0] for row in db.all(tuple, "SELECT content FROM file_versions ORDER BY id")]  # noqa: E731
    with acting(system()):
        for n in range(6):
            keep([Seen(path, f"v{n}", 2, f"h{n}", at(n))], [])
            keep([Seen(path, f"v{n}", 2, f"h{n}", at(n + 1))], [])  # only touched
        assert rows() == ["v2", "v3", "v4"]
        keep([], [path])
        assert rows() == ["v3", "v4", "v5"]
        keep([Seen("agents/felix/workspace/big", "x" * (versions.VERSIONED + 1), versions.VERSIONED + 1, "h", at(1))], [])
        keep([Seen("agents/felix/workspace/big", "small", 5, "g", at(2))], [])
    assert rows()[-1] is None


@pytest.mark.story("POST /api/tasks/{id}/approve")
def test_good_work_is_approved(client, lately):
    made = client.post("/tasks", {"title": "t", "status": "review"}).data
    after = client.post(f"/tasks/{made['id']}/approve", {"note": "well done"})
    assert after.status == 200 and after.json == {"data": made | {"status": "done", "note": "well done", "finished_at": lately, "updated_at": lately}}
    assert client.get(f"/tasks/{made['id']}").data["status"] == "done"
    assert {"task.done", "task.approved"} <= {one["action"] for one in client.get("/activity-log").data}
    again = client.post(f"/tasks/{made['id']}/approve", {})
    assert again.status == 409 and "is done; only what is in review" in again.error["message"] and client.post("/tasks/99/approve", {}).status == 404
    bare = client.post("/tasks", {"title": "u", "status": "review"}).data["id"]
    assert client.post(f"/tasks/{bare}/approve", {}).data["note"] is None
    assert "subtasks" not in after.data and after.data["why"] is None


@pytest.mark.story("POST /api/tasks/{id}/reject")
def test_bad_work_is_sent_back_with_a_word(client, lately):
    client.post("/agents", {"name": "felix"})
    made = client.post("/tasks", {"title": "t", "status": "review", "assignee": "felix"}).data
    after = client.post(f"/tasks/{made['id']}/reject", {"note": "Use metres"})
    assert after.status == 200 and after.data == made | {"status": "todo", "note": "Use metres", "updated_at": lately, "job_id": after.data["job_id"]}
    job = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    assert job["id"] == after.data["job_id"] and client.get(f"/tasks/{made['id']}").data["note"] == "Use metres"
    assert "subtasks" not in after.data and after.data["why"] is None and after.meta["warnings"] == [Like("Agent felix has no program: .*")]
    for body in ({}, {"note": ""}, {"note": "x" * 4001}, {"note": "x", "more": 1}):
        assert client.post(f"/tasks/{made['id']}/reject", body).status == 400
    assert client.post(f"/tasks/{made['id']}/reject", {"note": "x"}).status == 409 and client.post("/tasks/99/reject", {"note": "x"}).status == 404


@pytest.mark.slow
def test_the_note_reaches_the_brain_at_its_next_attempt(server):
    running = server()
    token = server.admin(running)
    call = lambda method, path, body=None: running.call(method, path, body, token)[1]["data"]  # noqa: E731
    call("POST", "/agents", {"name": "felix", "interval_sec": 1})
    workspace = running.folder / "agents/felix/workspace"
    (workspace / "report.txt").write_text("empty\n")
    eventually(lambda: any(one["path"].endswith("report.txt") for one in call("GET", "/files")), 15)
    brain = workspace / "brain"
    brain.write_text("""#!/bin/sh
cat > stdin.json; sed -n 's/.*"note": "\\([^"]*\\)".*/\\1/p' stdin.json > report.txt
echo thinking >&2
sleep 1
echo '{"status": "review"}' > "$ORKOSI_REPORT"
echo done
""")
    brain.chmod(0o755)
    task = call("POST", "/tasks", {"title": "measure", "assignee": "felix"})["id"]
    eventually(lambda: call("GET", f"/tasks/{task}")["status"] == "review", 20)
    call("POST", f"/tasks/{task}/reject", {"note": "Use metres"})
    eventually(lambda: (workspace / "report.txt").read_text() == "Use metres", 20)
    eventually(lambda: call("GET", f"/tasks/{task}")["status"] == "review", 20)
    path = "agents/felix/workspace/report.txt"
    eventually(lambda: path in [one["path"] for one in call("GET", f"/tasks/{task}/review")["changes"]], 15)
    found = call("GET", f"/tasks/{task}/review")
    change = next(one for one in found["changes"] if one["path"] == path)
    assert change["what"] == "changed" and change["diff"].endswith("+Use metres") and "thinking" in found["log"] and found["resolution"] == "done"
    assert call("POST", f"/tasks/{task}/approve", {})["status"] == "done" and os.path.exists(workspace)
