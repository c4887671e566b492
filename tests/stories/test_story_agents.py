"""Stories of agents: rows driven from outside, one that lives here with its files and its process, and the runs of both."""
import json

import pytest
from conftest import Client, Like, db, eventually, listed, put

from orkosi import HOST_TENANT, now, settings
from plugins import keys, queue, supervisor
from plugins.agents import bootstrap, idle, state
from plugins.supervisor import embedded

OLD, OLDER = "2026-11-03T10:00:00.000Z", "2026-11-02T10:00:00.000Z"
FULL = {"display_name": "Félix", "role": "builder", "model": "opus", "interval_sec": 7, "emoji": "📦", "color": "#3b82f6", "command": ["/bin/cat", "a b"],
        "adapter": None, "base_url": None, "delegates": True}
STEPS = [{"step": 1, "name": "row", "ok": True, "detail": "agent"}, {"step": 2, "name": "workspace", "ok": False, "detail": "not on this machine"}]


@pytest.fixture(autouse=True)
def forget_jobs():
    """The embedded driver is one for the process; each test finds it empty."""
    yield
    for job in embedded.driver.jobs.values():
        job.end(0)
    embedded.driver.jobs.clear()


def remote(id, name, home=1, *, status="idle", **fields):
    """An agent as it is stored, driven from outside, and as it is shown."""
    row = FULL | {"name": name, "template": None, "workspace_path": f"work/{name}", "wanted": "running", "reported": "idle", "note": "hi", "current_task": None, "steps": STEPS,
                  "last_heartbeat": None, "idle_skips": 3, "created_at": OLDER, "updated_at": OLD} | fields
    put("agents", id=id, tenant_id=home, **row)
    return row | {"id": id, "tenant_id": home, "status": status, "state": {"status": status}, "automations": [], "process": None, "lease": None,
                  "completion_rate": {"done": 0, "total": 0, "rate": 0.0}, "heartbeat_age_seconds": None}


def holds(id, agent, task):
    """A job of the agent's that is under lease; what is shown of it."""
    put("jobs", id=id, tenant_id=1, queue=f"agent:{agent}", task_type="task", state="active", lease_token="t", created_at=OLDER, claimed_at=OLD,
        lease_expires_at="2099-01-01T00:00:00.000Z")
    put("tasks", id=task, tenant_id=1, title="Sort it", title_key="sort it", status="in_progress", assignee=agent, job_id=id, created_by="user:7",
        created_at=OLDER, updated_at=OLD)
    return {"job_id": f"job_{id}", "task_id": task, "title": "Sort it", "claimed_at": OLD, "lease_expires_at": "2099-01-01T00:00:00.000Z"}


def task(id, agent, status):
    put("tasks", id=id, tenant_id=1, title=f"t{id}", title_key=f"t{id}", status=status, assignee=agent, created_by="user:7", created_at=OLDER, updated_at=OLD)


def script(id, agent):
    """An automation on record, as it is stored and shown."""
    row = {"id": id, "name": "nightly", "agent_name": agent, "type": "script", "path": "x.sh", "label": "com.x", "status": "inactive", "created_at": OLDER,
           "updated_at": OLD}
    put("automations", tenant_id=1, **row)
    return row


def runs(data, script):
    """Start what the run script of felix is from now on; its job."""
    (data / "agents/felix/run.sh").write_text(f"{script}\n")
    job = embedded.driver.jobs[state.label_of("felix")]
    job.start()
    return job


# ── as they are seen ──


@pytest.mark.story("GET /api/agents", "GET /api/agents/{name}")
def test_agents_are_listed_by_name_with_all_that_is_true_of_them(client):
    zoe, ada = remote(1, "zoe", status="stopped", wanted="stopped"), remote(2, "ada", status="blocked", reported="blocked", model=None, command=None)
    tim = remote(3, "tim", status="working", role="writer") | {"lease": holds(7, "tim", 10), "current_task": "Sort it", "automations": [script(5, "tim")]}
    for id, status in ((11, "done"), (12, "done"), (13, "archived"), (14, "todo")):
        task(id, "tim", status)
    tim["completion_rate"] = {"done": 2, "total": 4, "rate": 0.5}
    bob = remote(4, "bob", status="offline", reported="working", last_heartbeat=now(-7200), emoji=None)
    bob["heartbeat_age_seconds"] = pytest.approx(7200, abs=20)
    remote(5, "far", home=2)
    assert listed(client, "/agents", [ada, bob, tim, zoe])
    for query, found in [("stopped", [zoe]), ("working,blocked", [ada, tim]), ("offline", [bob]), ("error", [])]:
        assert listed(client, f"/agents?status={query}", found)
    for agent in (zoe, ada, tim, bob):
        assert client.get(f"/agents/{agent['name']}").json == {"data": agent}


@pytest.fixture
def felix(client, data, lately):
    """An agent that was made on this machine, and how it is shown."""
    made = client.post("/agents", FULL | {"name": "felix"})
    home, label = data / "agents" / "felix", f"com.orkosi.{supervisor.folder_hash()}.agent.felix"
    details = ["agent 1", str(home / "workspace"), str(home / "workspace" / "SOUL.md"), str(home / "run.sh"), "run script and launch agent",
               str(data / "jobs" / f"{label}.plist"), str(data / "keys" / "felix"), label, "first sign of life", "written"]
    names = ["row", "workspace", "soul", "run script", "automations", "plist", "key", "load", "heartbeat", "log"]
    own = [{"id": id, "name": f"felix {what}", "agent_name": "felix", "type": type, "path": path, "label": label, "status": "active", "created_at": lately,
            "updated_at": lately} for id, what, type, path in ((1, "run script", "script", details[3]), (2, "launch agent", "launchagent", details[5]))]
    shown = FULL | {"template": None,
        "id": 1, "name": "felix", "tenant_id": HOST_TENANT, "workspace_path": "agents/felix/workspace", "wanted": "running", "reported": "idle", "note": None,
        "current_task": None, "last_heartbeat": lately, "idle_skips": 0, "created_at": lately, "updated_at": lately, "status": "idle",
        "steps": [{"step": number, "name": name, "ok": True, "detail": detail} for number, (name, detail) in enumerate(zip(names, details, strict=True), 1)],
        "state": {"status": "idle", "note": None, "updated_at": lately}, "automations": own, "process": {"loaded": True, "pid": None, "last_exit": None},
        "lease": None, "completion_rate": {"done": 0, "total": 0, "rate": 0.0}, "heartbeat_age_seconds": pytest.approx(0, abs=20)}
    assert (made.status, made.json) == (200, {"data": shown | {"key": None}})
    return shown


def heartless(agent):
    """Without the one number that grows from one look to the next."""
    return {name: value for name, value in agent.items() if name != "heartbeat_age_seconds"}


@pytest.mark.story("POST /api/agents", "GET /api/agents/{name}", "GET /api/agents")
def test_an_agent_of_this_machine_is_made_with_its_files_and_seen_at_work(client, data, felix, lately):
    assert client.get("/agents/felix").json == {"data": felix} and client.get("/agents").data == [felix]
    assert (data / "agents/felix/workspace/SOUL.md").read_text().startswith("# Félix\n\nRole: builder\n")
    assert json.loads((data / "agents/felix/agent.json").read_text()) == {
        "name": "felix", "display_name": "Félix", "role": "builder", "model": "opus", "command": ["/bin/cat", "a b"],
        "adapter": None, "base_url": None, "interval_sec": 7, "delegates": True}
    job = runs(data, "exec sleep 60")
    (data / "agents/felix/state.json").write_text('{"mood": "fine", "status": "asleep"}')
    seen = client.get("/agents/felix").data
    assert seen == felix | {"status": "active", "state": {"mood": "fine", "status": "active"}, "process": {"loaded": True, "pid": job.child.pid, "last_exit": None}}
    assert [heartless(one) for one in client.get("/agents").data] == [heartless(seen)]
    job.end(0)
    runs(data, "exit 3")
    assert eventually(lambda: not job.runs())
    assert client.get("/agents/felix").data["process"] == client.get("/agents").data[0]["process"] == {"loaded": True, "pid": None, "last_exit": 3}


@pytest.mark.story("POST /api/agents")
def test_elsewhere_an_agent_is_a_row_and_a_key(as_, application, lately):
    founder = as_("ann", tenant=None)
    tenant = founder.get("/auth/me").data["tenant"]
    made = founder.post("/agents", {"name": "otto"}).data
    done = {1: "agent 1", 7: "shown once in `key`"}
    names = ["row", "workspace", "soul", "run script", "automations", "plist", "key", "load", "heartbeat", "log"]
    assert made == {
        "id": 1, "name": "otto", "tenant_id": tenant, "display_name": "Otto", "role": "agent", "model": None, "emoji": None, "color": None, "interval_sec": 60, "adapter": None, "base_url": None, "template": None, "delegates": False,
        "command": None, "workspace_path": None, "wanted": "running", "reported": "idle", "note": None, "current_task": None, "last_heartbeat": None, "idle_skips": 0,
        "created_at": lately, "updated_at": lately, "status": "idle", "state": {"status": "idle"}, "automations": [], "process": None, "lease": None,
        "completion_rate": {"done": 0, "total": 0, "rate": 0.0}, "heartbeat_age_seconds": None, "key": Like("ork_[A-Za-z0-9_]{20,}"),
        "steps": [{"step": number, "name": name, "ok": number in done, "detail": done.get(number, "not on this machine")} for number, name in enumerate(names, 1)]}
    assert Client(application, made["key"]).get("/auth/me").data["agent"] == "otto"


@pytest.mark.story("POST /api/agents")
def test_an_agent_for_whom_there_is_work_already_is_shown_with_it(client, felix, lately):
    task(11, "otto", "done")
    lease = holds(7, "otto", 10)
    made = client.post("/agents", {"name": "otto"}).data
    assert (made["lease"], made["status"], made["current_task"]) == (lease, "working", "Sort it")
    assert made["completion_rate"] == {"done": 1, "total": 2, "rate": 0.5}


@pytest.mark.story("POST /api/agents")
def test_an_agent_whose_making_stopped_half_way_is_made_by_the_same_request(client, data, lately):
    (data / "jobs").write_text("a file where a folder should be")
    steps = client.post("/agents", FULL | {"name": "felix"}).data["steps"]
    assert [one["ok"] for one in steps] == [True] * 5 + [False] * 5 and "jobs" in steps[5]["detail"]
    assert steps[6] == {"step": 7, "name": "key", "ok": False, "detail": "skipped: an earlier step failed"}
    (data / "jobs").unlink()
    db.write(lambda: db.run("UPDATE agents SET note = 'wait', idle_skips = 4 WHERE :tenant"))
    made = client.post("/agents", {"name": "felix", "interval_sec": 9}).data
    assert all(one["ok"] for one in made["steps"]) and made.items() >= (FULL | {"interval_sec": 9, "note": "wait", "idle_skips": 4}).items()


# ── changing, and going ──


@pytest.mark.story("PATCH /api/agents/{name}")
@pytest.mark.parametrize("change", [{"display_name": "F"}, {"role": "writer"}, {"model": None}, {"interval_sec": 9}, {"emoji": None}, {"color": "red"},
                                    {"command": None}, {"adapter": "codex", "command": None}, {"adapter": "shell"}, {"note": "busy"}, {"delegates": False},
                                    {"adapter": "claude-code", "command": None, "base_url": "http://127.0.0.1:9/v1"}, {name: value for name, value in FULL.items()}, {}])
def test_what_is_sent_of_an_agent_is_changed_and_no_more(client, lately, change):
    before, other = remote(1, "felix", display_name="x", last_heartbeat=now(-60)), remote(2, "otto")
    before |= {"automations": [script(5, "felix")], "heartbeat_age_seconds": pytest.approx(60, abs=20)}
    after = client.patch("/agents/felix", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert [heartless(one) for one in client.get("/agents").data] == [heartless(after.data), heartless(other)]


@pytest.mark.story("PATCH /api/agents/{name}")
def test_a_change_of_an_agent_that_lives_here_reaches_its_files_and_its_job(client, data, felix):
    holds(7, "felix", 10), task(11, "felix", "done")
    after = client.patch("/agents/felix", {"interval_sec": 30, "command": ["/bin/true"]}).data
    lease = {"job_id": "job_7", "task_id": 10, "title": "Sort it", "claimed_at": OLD, "lease_expires_at": "2099-01-01T00:00:00.000Z"}
    assert after == felix | {"interval_sec": 30, "command": ["/bin/true"], "lease": lease, "status": "working", "current_task": "Sort it",
                             "state": felix["state"] | {"status": "working"}, "completion_rate": {"done": 1, "total": 2, "rate": 0.5}}
    assert json.loads((data / "agents/felix/agent.json").read_text()) == {
        "name": "felix", "display_name": "Félix", "role": "builder", "model": "opus", "command": ["/bin/true"], "adapter": None,
        "base_url": None, "interval_sec": 30, "delegates": True}
    job = embedded.driver.jobs[state.label_of("felix")]
    assert job.interval == 30
    runs(data, "exit 3")
    assert eventually(lambda: not job.runs())
    runs(data, "exec sleep 60")
    assert client.patch("/agents/felix", {}).data["process"] == {"loaded": True, "pid": job.child.pid, "last_exit": 3}


@pytest.mark.story("DELETE /api/agents/{name}")
def test_a_deleted_agent_is_gone_with_its_key_and_its_process(client, application, data, felix):
    otto, key = remote(2, "otto"), Client(application, bootstrap.key_file("felix").read_text().strip())
    assert client.delete("/agents/felix").json == {"data": {"deleted": True, "id": 1}}
    assert client.get("/agents").data == [otto] and key.get("/auth/me").status == 401
    assert not embedded.driver.jobs and not list((data / "jobs").iterdir()) and (data / "agents/felix/workspace/SOUL.md").exists()
    assert client.get("/automations").data == []


# ── stopping and starting ──

TURNS = ("POST /api/agents/{name}/stop", "POST /api/agents/{name}/start", "POST /api/agents/{name}/restart", "POST /api/agents/{name}/pause",
         "POST /api/agents/{name}/resume")


@pytest.mark.story(*TURNS)
def test_an_agent_that_lives_here_is_stopped_started_paused_and_resumed(client, felix, lately):
    path, flag = supervisor.plist_of(state.label_of("felix")), bootstrap.stop_flag("felix")
    for verb, wanted, status, loaded in [("stop", "stopped", "stopped", False), ("start", "running", "idle", True), ("pause", "paused", "paused", True),
                                         ("resume", "running", "idle", True), ("restart", "running", "idle", True)]:
        automations = [one | {"status": "inactive" if wanted == "stopped" and one["type"] == "launchagent" else "active"} for one in felix["automations"]]
        expected = felix | {"wanted": wanted, "status": status, "note": f"why {verb}", "automations": automations,
                            "state": {"status": status, "note": f"why {verb}", "updated_at": lately}}
        answer = client.post(f"/agents/felix/{verb}", {"note": f"why {verb}"})
        process = answer.data["process"]
        assert answer.json == {"data": expected | {"process": {"loaded": loaded, "pid": process["pid"], "last_exit": process["last_exit"]}}}, verb
        assert heartless(client.get("/agents/felix").data) == heartless(answer.data)
        assert supervisor.status(path).loaded is loaded and flag.exists() is (verb == "stop")
        assert queue.paused("agent:felix") is (verb == "pause")
        assert client.post(f"/agents/felix/{verb}", {}).data["note"] is None


@pytest.mark.story(*TURNS)
@pytest.mark.parametrize("verb, wanted, status", [("stop", "stopped", "stopped"), ("start", "running", "working"), ("restart", "running", "working"),
                                                 ("pause", "paused", "working"), ("resume", "running", "working")])
def test_whatever_becomes_of_an_agent_all_of_it_is_shown(client, lately, verb, wanted, status):
    before = remote(1, "felix", current_task="Old", last_heartbeat=now(-60)) | {"automations": [script(5, "felix")]}
    lease = holds(7, "felix", 10)
    task(11, "felix", "done")
    after = client.post(f"/agents/felix/{verb}", {"note": "so"}).data
    stopped = verb == "stop"
    assert after == before | {
        "wanted": wanted, "status": status, "state": {"status": status}, "note": "so", "updated_at": lately, "lease": None if stopped else lease,
        "current_task": "Old" if stopped else "Sort it", "completion_rate": {"done": 1, "total": 2, "rate": 0.5},
        "heartbeat_age_seconds": pytest.approx(60, abs=20)}
    assert heartless(client.get("/agents/felix").data) == heartless(after)
    assert db.value("SELECT state FROM jobs WHERE id = 7 AND :tenant") == ("waiting" if stopped else "active")


@pytest.mark.story(*TURNS)
@pytest.mark.parametrize("verb", ["start", "restart", "pause", "resume"])
def test_the_process_of_an_agent_is_shown_after_each_turn(client, data, felix, verb):
    job = runs(data, "exit 3")
    eventually(lambda: not job.runs())
    runs(data, "exec sleep 60")
    process = client.post(f"/agents/felix/{verb}", {}).data["process"]
    assert process == {"loaded": True, "pid": job.child and job.child.pid, "last_exit": -15 if verb == "restart" else 3}


# ── runs ──


def run(id, home=1, **fields):
    """A run as it is stored, and as it is shown."""
    shown = {"agent": "felix", "task_id": 10, "job_id": "job_7", "mode": "task", "status": "running", "exit_code": 3, "tokens_in": 5, "tokens_out": 6,
             "cost_micros": 1200, "duration_ms": 90, "note": "n", "error": "e", "unpaid_tokens": 3, "stdout_bytes": 70000, "stderr_bytes": 4,
             "truncated": True, "replay_of": 9, "started_at": OLD, "finished_at": None} | fields
    put("agent_runs", **shown | {"id": id, "tenant_id": home, "job_id": shown["job_id"] and int(shown["job_id"][4:])})
    return {"id": id} | shown


@pytest.mark.story("GET /api/agent-runs", "GET /api/agent-runs/{id}")
def test_runs_are_listed_newest_first_and_narrowed(client, application):
    one, two = run(1), run(2, agent="otto", status="done", finished_at="2026-11-04T10:00:00.000Z", task_id=None, job_id=None, exit_code=0)
    three = run(3, agent="otto", note=None, error=None, duration_ms=None, mode="discovery")
    run(4, home=2)
    assert listed(client, "/agent-runs", [three, two, one])
    for query, found in [("agent=otto", [three, two]), ("status=done", [two]), ("task_id=10", [three, one]), ("agent=otto&task_id=10&status=running", [three]),
                         ("agent=ada", [])]:
        assert listed(client, f"/agent-runs?{query}", found)
    for shown in (one, two, three):
        assert client.get(f"/agent-runs/{shown['id']}").json == {"data": shown}
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert listed(felix, "/agent-runs", [one]) and felix.get("/agent-runs/2").status == 404


@pytest.mark.story("POST /api/agent-runs")
def test_a_run_is_what_was_sent_and_a_sign_of_life(client, application, lately):
    remote(1, "felix"), holds(7, "felix", 10)
    made = client.post("/agent-runs", {"agent": "felix", "task_id": 10, "job_id": "job_7", "mode": "discovery"})
    told = {"status": "running", "exit_code": None, "tokens_in": 0, "tokens_out": 0, "cost_micros": 0, "duration_ms": None, "note": None, "error": None,
            "unpaid_tokens": 0, "stdout_bytes": 0, "stderr_bytes": 0, "truncated": False, "replay_of": None, "started_at": lately, "finished_at": None}
    assert (made.status, made.json) == (201, {"data": told | {"id": 1, "agent": "felix", "task_id": 10, "job_id": "job_7", "mode": "discovery"}})
    assert client.get("/agents/felix").data["last_heartbeat"] == lately
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    bare = felix.post("/agent-runs", {"job_id": 7}).data
    assert bare == told | {"id": 2, "agent": "felix", "task_id": None, "job_id": "job_7", "mode": "task"}
    again = felix.post("/agent-runs", {"job_id": 7, "mode": "replay", "replay_of": 1}).data
    assert again == told | {"id": 3, "agent": "felix", "task_id": None, "job_id": "job_7", "mode": "replay", "replay_of": 1}
    assert client.get("/agent-runs").data == [again, bare, made.data]
    run(8, home=2), run(9, agent="otto")
    assert [felix.post("/agent-runs", {"replay_of": number}).status for number in (8, 9, 99)] == [404, 404, 404]


@pytest.mark.story("PATCH /api/agent-runs/{id}")
@pytest.mark.parametrize("change", [{"exit_code": 9}, {"tokens_in": 50}, {"tokens_out": 60}, {"cost_micros": 7}, {"duration_ms": 8}, {"note": "m"}, {"error": None},
                                    {"stdout_bytes": 1}, {"stderr_bytes": 2}, {"truncated": False},
                                    {"status": "running"}, {"status": "done", "duration_ms": 4}, {}])
def test_what_is_reported_of_a_run_is_changed_and_no_more(client, lately, change):
    before, other = run(1), run(2)
    remote(1, "felix")
    after = client.patch("/agent-runs/1", change)
    ended = change.get("status") == "done"
    assert after.json == {"data": before | change | {"finished_at": lately if ended else None}}
    assert client.get("/agent-runs").data == [other, after.data] and client.get("/agents/felix").data["last_heartbeat"] == lately


@pytest.mark.story("PATCH /api/agent-runs/{id}")
def test_a_run_that_ends_has_taken_the_time_since_its_start(client):
    run(1, started_at=now(-5), duration_ms=None)
    assert client.patch("/agent-runs/1", {"status": "failed"}).data["duration_ms"] == pytest.approx(5000, abs=2000)


def kept_here(name="felix", **files):
    """An agent of this machine, and what is kept of its first run."""
    remote(1, name, steps=[{"step": 5, "name": "plist", "ok": True, "detail": ""}])
    folder = settings.data / "agents" / name / "runs" / "1"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text)


@pytest.mark.story("GET /api/agent-runs/{id}/output")
def test_what_a_run_wrote_is_read_piece_by_piece(client):
    kept_here(stdout="ab€d", stderr="oh")
    run(1, status="done", finished_at=OLD), run(2), run(3, agent="otto")
    get = lambda query="": client.get(f"/agent-runs/1/output{query}").json  # noqa: E731
    whole = {"run_id": 1, "stream": "stdout", "offset": 0, "next_offset": None, "size": 6, "bytes": 70000, "text": "ab€d"}
    assert get() == get("?stream=stdout&offset=0") == {"data": whole}
    assert get("?limit=4") == {"data": whole | {"text": "ab", "next_offset": 2}}, "no character is cut in two"
    assert get("?offset=2&limit=4") == {"data": whole | {"offset": 2, "text": "€d"}}
    assert get("?stream=stderr") == {"data": whole | {"stream": "stderr", "size": 2, "bytes": 4, "text": "oh"}}
    db.write(lambda: db.run("UPDATE agent_runs SET finished_at = NULL WHERE id = 1 AND :tenant"))
    assert get() == {"data": whole | {"next_offset": 6}}, "there may be more"
    assert [client.get(f"/agent-runs/{number}/output").status for number in (2, 3, 4)] == [404, 404, 404]


@pytest.mark.story("POST /api/agent-runs/{id}/replay")
def test_a_run_is_done_again_by_a_job_of_its_agents(client):
    kept_here(input_json='{"told": {"task": null, "rules": [], "job": {}}}')
    run(1, status="failed", finished_at=OLD), run(2), run(3, agent="otto")
    made = client.post("/agent-runs/1/replay")
    job = db.one(dict, "SELECT id, queue, task_type, payload, state FROM jobs WHERE :tenant")
    assert (made.status, made.json) == (201, {"data": {"job_id": f"job_{job.pop('id')}"}})
    assert job == {"queue": "agent:felix", "task_type": "replay", "payload": '{"run_id":1}', "state": "waiting"}
    assert [client.post(f"/agent-runs/{number}/replay").status for number in (2, 3, 4)] == [409, 409, 404]


@pytest.mark.story("GET /api/agent-runs/idle-check")
def test_the_idle_check_says_whether_there_is_work_and_why_not(client, anonymous):
    remote(1, "felix"), remote(2, "otto"), remote(3, "ada", wanted="stopped"), remote(4, "bob", wanted="paused")
    client.post("/task-queue/submit", {"task_type": "t", "queue_name": "agent:felix"})
    for name, answer in [("felix", {"skip": False, "reason": "work is waiting"}), ("otto", {"skip": True, "reason": "nothing to do"}),
                         ("ada", {"skip": True, "reason": "stopped"}), ("bob", {"skip": True, "reason": "paused"}),
                         ("nobody", {"skip": True, "reason": "nothing to do"})]:
        assert anonymous.get(f"/agent-runs/idle-check?agent_name={name}").json == {"data": answer}
    idle.write_saved()
    assert [one["idle_skips"] for one in client.get("/agents").data] == [4, 4, 3, 4]
