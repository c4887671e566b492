"""Agents: made in ten steps, seen as they are, stopped and started; the run script itself, by a real shell."""
import itertools
import json
import os
import plistlib
import re
import shutil
import stat
import subprocess
import sys
import threading
import time

import pytest
from conftest import HOME, Client, eventually

from orkosi import acting, settings, system
from plugins import agents, keys, queue, supervisor
from plugins.agents import bootstrap, kept, paths, settling, state
from plugins.supervisor import embedded


@pytest.fixture(autouse=True)
def forget_jobs():
    """The embedded driver is one for the process; each test finds it empty. Nothing runs: no service does."""
    yield
    embedded.driver.jobs.clear()
    if "data" in settings.values:
        for flag in paths.stop_flag("x").parent.glob(f"orkosi-{supervisor.folder_hash()}-*.stop"):
            flag.unlink()


@pytest.fixture
def felix(client):
    return client.post("/agents", {"name": "felix", "interval_sec": 7}).data


@pytest.fixture
def agent_client(application, felix):
    """The API as felix, with his own key."""
    return Client(application, paths.key_file("felix").read_text().strip())


# ── making ──


@pytest.mark.parametrize("body, status", [
    ({"name": "felix"}, 200),
    ({"name": "felix", "display_name": "Félix $(id) `id` \"'", "model": "claude-haiku-4-5", "interval_sec": 1, "emoji": "📦", "color": "#3b82f6"}, 200),
    ({"name": "felix", "command": ["/bin/cat"]}, 200),
    ({"name": "f"}, 400), ({"name": "Felix"}, 400), ({"name": "felix\n"}, 400), ({"name": "../felix"}, 400), ({"name": "9lives"}, 400),
    ({"name": "f" * 32}, 400), ({"name": "félix"}, 400), ({}, 400),
    ({"name": "felix", "interval_sec": 0}, 400), ({"name": "felix", "interval": 5}, 400), ({"name": "felix", "command": []}, 400),
])
def test_making_an_agent(client, body, status):
    answer = client.post("/agents", body)
    assert answer.status == status
    if status == 200:
        assert [step["step"] for step in answer.data["steps"]] == list(range(1, 11))
        assert all(step["ok"] for step in answer.data["steps"]), answer.data["steps"]
        assert client.post("/agents", body).status == 409


def test_what_the_ten_steps_leave(client, data, felix):
    folder = data / "agents" / "felix"
    assert (folder / "workspace" / "SOUL.md").read_text().startswith("# Felix")
    assert stat.S_IMODE((data / "keys" / "felix").stat().st_mode) == 0o600
    assert os.access(folder / "run.sh", os.X_OK)
    assert felix["status"] == "idle" and felix["process"]["loaded"] and felix["last_heartbeat"]
    assert {one["type"] for one in felix["automations"]} == {"script", "launchagent"}
    path = data / "jobs" / f"com.orkosi.{supervisor.folder_hash()}.agent.felix.plist"
    with open(path, "rb") as file:
        plist = plistlib.load(file)
    assert plist["Label"] == path.stem and plist["StartInterval"] == 7 and plist["RunAtLoad"] is True
    assert plist["ProgramArguments"] == ["/bin/sh", str(folder / "run.sh")]
    assert all(part.startswith("/") for part in plist["EnvironmentVariables"]["PATH"].split(":"))
    assert client.get("/automations?agent_name=felix&type=launchagent").data[0]["live"]["loaded"]


def test_a_failed_step_is_named_and_the_next_call_goes_on(client, data):
    (data / "jobs").write_text("a file where a folder should be")
    steps = client.post("/agents", {"name": "felix"}).data["steps"]
    assert [step["ok"] for step in steps] == [True] * 5 + [False] * 5
    assert steps[5]["name"] == "plist" and "jobs" in steps[5]["detail"] and "skipped" in steps[6]["detail"]
    (data / "jobs").unlink()
    again = client.post("/agents", {"name": "felix", "interval_sec": 9})
    assert again.status == 200 and all(step["ok"] for step in again.data["steps"]) and again.data["interval_sec"] == 9
    assert client.post("/agents", {"name": "felix"}).status == 409


def test_in_another_tenant_an_agent_is_a_row_and_a_key(as_, application, data):
    founder = as_("ann", tenant=None)
    made = founder.post("/agents", {"name": "felix"}).data
    assert [step["step"] for step in made["steps"] if step["ok"]] == [1, 7]
    assert "not on this machine" in made["steps"][1]["detail"] and not (data / "agents").exists()
    assert Client(application, made["key"]).get("/auth/me").data["agent"] == "felix"
    assert founder.post("/agents", {"name": "felix"}).status == 409
    assert founder.post("/agents/felix/stop", {}).status == 403
    assert founder.get("/agents/felix").data["status"] == "idle" and founder.delete("/agents/felix").status == 200


@pytest.mark.parametrize("role, scopes, status", [
    ("viewer", None, 403), ("member", None, 403), ("editor", None, 200), ("admin", None, 200),
    ("admin", ("agents:write",), 403), ("admin", ("agents:control",), 200)])
def test_who_may_make_one(application, people, role, scopes, status):
    user, token = people("ann", role)
    if scopes:
        with acting(system()):
            token = keys.issue(1, "k", scopes, by=user.id)[1]
    ann = Client(application, token)
    assert ann.post("/agents", {"name": "felix"}).status == status
    allowed = role == "admin" and scopes is None
    assert (ann.post("/agents", {"name": "otto", "command": ["/bin/sh"]}).status == 200) is allowed


# ── seeing ──


def test_the_list_is_filtered_by_what_is_seen(client, felix):
    client.post("/agents", {"name": "anna"})
    client.post("/agents/anna/stop", {"note": "holiday"})
    assert [one["name"] for one in client.get("/agents").data] == ["anna", "felix"]
    for statuses, names in [("stopped", ["anna"]), ("idle,working", ["felix"]), ("error", [])]:
        assert [one["name"] for one in client.get(f"/agents?status={statuses}").data] == names
    assert client.get("/agents?status=gone").status == 400
    assert client.get("/agents?limit=1&offset=1").meta == {"total": 2, "limit": 1, "offset": 1, "has_more": False, "next_after": None}
    anna = client.get("/agents/anna").data
    assert (anna["note"], anna["state"]["status"], anna["state"]["note"]) == ("holiday", "stopped", "holiday")
    assert client.get("/agents/nobody").status == 404 and client.get("/agents/NOBODY").status == 400


def test_completion_rate_lease_and_state_file(client, felix, data, agent_client):
    done, task = (client.post("/tasks", {"title": title, "assignee": "felix"}).data for title in ("one", "two"))
    client.patch(f"/tasks/{done['id']}", {"status": "done"})
    (data / "agents" / "felix" / "state.json").write_text('{"mood": "fine", "status": "asleep"}')
    job = agent_client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    seen = client.get("/agents/felix").data
    assert seen["completion_rate"] == {"done": 1, "total": 2, "rate": 0.5}
    assert (seen["status"], seen["lease"]["task_id"], seen["lease"]["job_id"]) == ("working", task["id"], job["id"])
    assert seen["state"] == {"mood": "fine", "status": "working"} and seen["current_task"] == "two"
    for junk in ("[]", "{", "[" * 100_000):
        (data / "agents" / "felix" / "state.json").write_text(junk)
        assert client.get("/agents/felix").data["state"] == {"status": "working"}


@pytest.mark.parametrize("wanted, loaded, pid, leased, status", [
    ("stopped", True, 5, True, "stopped"), ("paused", True, None, True, "working"), ("paused", True, None, False, "paused"),
    ("running", True, 5, False, "active"), ("running", True, None, False, "idle"), ("running", False, None, False, "offline")])
def test_a_status_is_derived(data, felix, wanted, loaded, pid, leased, status):
    agent = agents.find("felix")
    agent.wanted = wanted
    assert state.status_of(agent, supervisor.Status(loaded, pid), leased) == status


def test_a_process_less_agent_is_what_it_last_said_until_it_is_silent(data):
    agent = agents.register("remote", reported="working")
    assert state.look([agent])[0].status == "working"
    agent.last_heartbeat = "2020-01-01T00:00:00.000Z"
    assert state.look([agent])[0].status == "offline"
    assert agents.report(agent.id, reported="blocked").reported == "blocked"


# ── stopping and starting ──


def test_stop_start_pause_resume_and_restart(client, data, felix):
    flag, plist = paths.stop_flag("felix"), supervisor.plist_of(felix["automations"][0]["label"])
    stopped = client.post("/agents/felix/stop", {"note": "why"}).data
    assert (stopped["status"], stopped["wanted"], stopped["process"]["loaded"]) == ("stopped", "stopped", False)
    assert stat.S_IMODE(flag.stat().st_mode) == 0o600
    assert client.post("/agents/felix/stop").status == 200  # again, and without a body
    assert client.post("/agents/felix/pause").status == 409
    assert client.get("/automations?type=launchagent").data[0]["status"] == "inactive"
    assert client.post("/agents/felix/start").data["status"] == "idle"
    assert not flag.exists() and supervisor.status(plist).loaded
    assert client.post("/agents/felix/pause").data["status"] == "paused"
    assert queue.paused("agent:felix") and supervisor.status(plist).loaded
    assert client.post("/agents/felix/resume").data["status"] == "idle" and not queue.paused("agent:felix")
    client.post("/agents/felix/pause")
    assert client.post("/agents/felix/start").data["status"] == "idle" and not queue.paused("agent:felix")
    assert client.post("/agents/felix/restart").data["status"] == "idle"
    assert client.post("/agents/Bad!/stop").status == 400 and client.post("/agents/nobody/stop").status == 404


def test_somebody_elses_stop_flag_is_not_followed(client, felix, tmp_path):
    flag, precious = paths.stop_flag("felix"), tmp_path / "precious"
    precious.write_text("x")
    flag.symlink_to(precious)
    assert client.post("/agents/felix/stop").data["status"] == "stopped" and precious.read_text() == "x"
    assert client.post("/agents/felix/start").status == 200 and precious.exists() and not flag.is_symlink()


def test_what_happens_to_an_agent_is_told(client, felix):
    for verb in ("stop", "start", "pause", "resume", "restart"):
        client.post(f"/agents/felix/{verb}")
    client.delete("/agents/felix")
    told = [one["action"] for one in client.get("/activity-log?limit=200").data if one["action"].startswith("agent.")]
    assert {"agent.created", "agent.ready", "agent.stopped", "agent.started", "agent.paused", "agent.resumed", "agent.restarted",
            "agent.deleted"} <= set(told)


def test_why_a_task_is_not_done(client, felix):
    task = client.post("/tasks", {"title": "one", "assignee": "felix"}).data["id"]
    other = client.post("/tasks", {"title": "two", "assignee": "nobody"}).data["id"]
    codes = lambda id: {one["code"] for one in client.get(f"/tasks/{id}").data["why"]}  # noqa: E731
    assert codes(other) == {"agent_unknown"}
    client.post("/agents/felix/pause")
    assert "agent_paused" in codes(task)
    client.post("/agents/felix/resume")
    client.post("/agents/felix/stop")
    assert "agent_stopped" in codes(task)


def test_changing_an_agent_changes_its_files(client, data, felix):
    assert client.patch("/agents/felix", {"interval_sec": 3, "command": ["/bin/cat", "a b"]}).data["interval_sec"] == 3
    plist = supervisor.read(supervisor.plist_of(felix["automations"][0]["label"]))
    assert plist["StartInterval"] == 3
    assert json.loads((data / "agents" / "felix" / "agent.json").read_text())["command"] == ["/bin/cat", "a b"]
    assert embedded.driver.jobs[plist["Label"]].interval == 3
    assert client.patch("/agents/felix", {"interval_sec": None}).status == 400
    assert client.patch("/agents/nobody", {}).status == 404


def test_deleting_an_agent_keeps_its_workspace(client, application, data, felix, agent_client):
    (data / "agents" / "felix" / "workspace" / "work.txt").write_text("mine")
    assert client.delete("/agents/felix").status == 200
    assert (data / "agents" / "felix" / "workspace" / "work.txt").exists() and not (data / "keys" / "felix").exists()
    assert not list((data / "jobs").iterdir()) and client.get("/automations").meta["total"] == 0
    assert agent_client.get("/auth/me").status == 401
    assert client.delete("/agents/felix").status == 404
    assert client.post("/agents", {"name": "felix"}).status == 200


def test_a_stop_gives_the_job_back_at_no_cost(client, felix, agent_client):
    client.post("/tasks", {"title": "one", "assignee": "felix"})
    job = agent_client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    client.post("/agents/felix/stop")
    shown = client.get(f"/task-queue/{job['id']}").data
    assert (shown["status"], shown["attempt"]) == ("waiting", 0)
    assert agent_client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]}).code == "lease_lost"


@pytest.mark.parametrize("end", ["the server ends", "restart", "stop"])
def test_what_is_finished_and_not_delivered_is_not_given_back(client, data, felix, agent_client, end):
    client.post("/tasks", {"title": "one", "assignee": "felix"})
    job = agent_client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    undelivered = data / "agents/felix/undelivered"
    for name in (f"{job['id']}-1.json", "job_x-1.json", f"{job['id']}.txt"):  # it may write anything there
        (undelivered / name).write_text("[]")
    with acting(system()):
        if end == "the server ends":
            settling._give_back()
        elif end == "restart":
            agents._put_down(agents.find("felix"))
        else:
            agents.stop("felix")
    told = agent_client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"resolution": "ok"}})
    assert told.status == 200 and client.get("/tasks/1").data["status"] == "done"


def test_a_replay_comes_before_no_task(client, felix, agent_client):
    run = client.post("/agent-runs", {"agent": "felix"}).data["id"]
    kept.keep_input("felix", run, {"task": None}, {}, frozenset())
    replayed = client.post(f"/agent-runs/{run}/replay").data["job_id"]
    least = client.post("/tasks", {"title": "least", "assignee": "felix", "priority": "P3"}).data
    claim = lambda: agent_client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data["id"]  # noqa: E731
    assert [claim(), claim()] == [least["job_id"], replayed]


def test_files_are_written_anew_where_the_folder_has_moved(client, data, felix, monkeypatch):
    elsewhere = data.with_name("moved")
    data.rename(elsewhere)
    monkeypatch.setitem(settings.values, "data", elsewhere)
    try:
        settling._drop_strangers()
        assert not bootstrap.stands_here(agents.find("felix"))
        settling._settle(agents.find("felix"))
        plist, = (elsewhere / "jobs").glob("*.plist")
        assert plist.stem == paths.label_of("felix") and str(elsewhere) in supervisor.read(plist)["ProgramArguments"][1]
        assert {one["path"] for one in client.get("/agents/felix").data["automations"]} == {
            str(plist), str(elsewhere / "agents" / "felix" / "run.sh")}
    finally:
        elsewhere.rename(data)


@pytest.mark.parametrize("harm", ["script", "empty", "gone", "workspace", "setting", "plist"])
def test_files_are_written_anew_where_they_are_not_what_this_version_writes(client, data, felix, monkeypatch, harm):
    folder, find = paths.folder_of("felix"), lambda: agents.find("felix")
    sound = {name: (folder / name).read_text() for name in ("run.sh", "run.env", "agent.json")}
    assert bootstrap.stands_here(find())
    match harm:
        case "script":  # an upgrade
            monkeypatch.setattr(bootstrap, "RUN_SH", bootstrap.RUN_SH + "# newer\n")
        case "empty":
            (folder / "run.sh").write_text("")
        case "gone":
            (folder / "run.env").unlink()
        case "workspace":
            shutil.rmtree(folder / "workspace")
        case "setting":
            monkeypatch.setitem(settings.values, "agent_path", "/opt/own tools")
        case "plist":
            monkeypatch.setattr(bootstrap, "_spec", lambda agent, plain=bootstrap._spec: plain(agent) | {"Nice": 5})
    assert not bootstrap.stands_here(find())
    settling._settle(find())
    assert bootstrap.stands_here(find()) and (folder / "workspace").is_dir() and (folder / "run.sh").stat().st_mode & 0o777 == 0o700
    assert (folder / "run.sh").read_text() == bootstrap.RUN_SH and (folder / "agent.json").read_text() == sound["agent.json"]
    assert ("/opt/own tools" in (folder / "run.env").read_text()) == (harm == "setting")
    assert supervisor.read(paths.plist_of("felix")).get("Nice") == (5 if harm == "plist" else None)


def test_plists_of_a_place_that_may_not_be_looked_into_are_removed_all_the_same(tmp_path, ordinary):
    jobs, home = tmp_path / "data/jobs", tmp_path / "home"
    jobs.mkdir(parents=True)
    for label in ("com.orkosi.00000000.agent.felix", "com.orkosi.00000000.agent.olga"):
        spec = {"Label": label, "ProgramArguments": ["/bin/cat"], "WorkingDirectory": str(home / "data")}
        (jobs / f"{label}.plist").write_bytes(plistlib.dumps(spec))
    (home / "data").mkdir(parents=True)
    home.chmod(0o000)
    code = ("import orkosi; orkosi.load(); from pathlib import Path; from plugins.agents import settling\n"
            f"orkosi.settings.load(data=Path({str(tmp_path / 'data')!r})); settling._drop_strangers()")
    done = subprocess.run([*ordinary, sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    home.chmod(0o700)
    assert (done.returncode, list(jobs.iterdir())) == (0, []), done.stderr


@pytest.mark.parametrize("first, second, wanted", [("stop", "start", "running"), ("start", "stop", "stopped"), ("restart", "stop", "stopped")])
def test_two_things_that_are_asked_of_one_agent_at_once_come_one_after_the_other(client, monkeypatch, first, second, wanted):
    client.post("/agents", {"name": "felix", "interval_sec": 3600})
    client.post("/agents", {"name": "otto", "interval_sec": 3600})
    entered, go, real = threading.Event(), threading.Event(), agents.write_file

    def slow(name, **facts):
        if name == "felix" and not entered.is_set():
            entered.set()
            go.wait(10)  # between its row and its process
        return real(name, **facts)
    monkeypatch.setattr(agents, "write_file", slow)
    answers = []
    one, two = (threading.Thread(target=lambda verb=verb: answers.append(client.post(f"/agents/felix/{verb}", {}).status)) for verb in (first, second))
    one.start()
    assert entered.wait(10)
    two.start()
    two.join(0.5)
    assert client.post("/agents/otto/stop", {}).data["status"] == "stopped", "another agent does not wait"
    go.set()
    one.join(10)
    two.join(10)
    found = client.get("/agents/felix").data
    assert answers == [200, 200] and agents.find("felix").wanted == wanted
    assert (found["process"]["loaded"], found["status"] == "stopped", paths.stop_flag("felix").exists()) == (
        wanted == "running", wanted == "stopped", wanted == "stopped")


def test_an_agent_whose_folder_is_gone_is_stopped_and_comes_again(client, data, felix):
    shutil.rmtree(data / "agents/felix")
    for verb, status in (("pause", "paused"), ("resume", None), ("stop", "stopped")):
        answer = client.post(f"/agents/felix/{verb}", {"note": "its folder is gone"})
        assert answer.status == 200 and status in (None, answer.data["status"]), answer
    assert not supervisor.status(paths.plist_of("felix")).loaded and not (data / "agents/felix").exists()
    assert client.post("/agents/felix/start", {}).data["process"]["loaded"] and (data / "agents/felix/workspace").is_dir()


@pytest.mark.slow
def test_under_launchd_an_agent_is_booted_kicked_and_put_out(client, data, launchctl):
    runs = lambda: int(re.search(r"runs = (\d+)", subprocess.run(["launchctl", "print", f"gui/{os.getuid()}/{paths.label_of('felix')}"],  # noqa: E731
                                                                  capture_output=True, text=True).stdout)[1])
    made = client.post("/agents", {"name": "felix", "interval_sec": 60}).data
    assert made["process"]["loaded"] is True and eventually(lambda: runs() >= 1)
    first = runs()
    assert client.post("/agents/felix/restart").data["process"]["loaded"] is True and eventually(lambda: runs() > first)
    assert client.post("/agents/felix/stop").data["process"]["loaded"] is False
    assert client.post("/agents/felix/start").data["process"]["loaded"] is True
    eventually(lambda: client.get("/agents/felix").data["process"]["pid"] is None)
    client.patch("/agents/felix", {"interval_sec": 50})
    client.delete("/agents/felix")
    assert [verb for verb, _ in itertools.groupby(call[0] for call in launchctl() if call[0] in ("bootstrap", "bootout"))] == [
        "bootstrap", "bootout", "bootstrap", "bootout", "bootstrap", "bootout"]
    assert ["kickstart", "-k"] not in [call[:2] for call in launchctl()]


def test_a_launchd_that_fails_is_a_named_step(client, launchctl, tmp_path):
    (tmp_path / "bin" / "launchctl").write_text("#!/bin/sh\necho 'Bootstrap failed: 5: Input/output error' >&2; exit 5\n")
    step = client.post("/agents", {"name": "felix"}).data["steps"][7]
    assert (step["name"], step["ok"]) == ("load", False) and "Input/output error" in step["detail"]
    assert client.get("/agents/felix").data["status"] == "offline"


# ── idle check and runs ──


def test_the_idle_check_needs_no_token_and_gives_nothing_away(client, anonymous, felix):
    ask = lambda name="felix": anonymous.get(f"/agent-runs/idle-check?agent_name={name}").data  # noqa: E731
    assert ask() == ask("nobody") == {"skip": True, "reason": "nothing to do"}
    assert anonymous.get("/agent-runs/idle-check").status == 400
    assert anonymous.get("/agent-runs/idle-check?agent_name=felix&run_mode=discovery").status == 200
    client.post("/tasks", {"title": "one", "assignee": "felix"})
    assert ask() == {"skip": False, "reason": "work is waiting"}
    client.post("/agents/felix/pause")
    assert ask() == {"skip": True, "reason": "paused"}
    client.post("/agents/felix/resume")
    client.post("/agents/felix/stop")
    assert ask() == {"skip": True, "reason": "stopped"}
    agents.idle.write_saved()
    assert client.get("/agents/felix").data["idle_skips"] == 4


def test_runs_are_recorded_by_the_agent_for_itself(client, felix, agent_client, as_):
    task, foreign = (client.post("/tasks", {"title": f"for {name}", "assignee": name}).data for name in ("felix", "otto"))
    elsewhere = as_("far", tenant=None).post("/task-queue/submit", {"task_type": "t"}).data["id"]
    for body in ({"job_id": foreign["job_id"]}, {"task_id": foreign["id"]}, {"job_id": elsewhere}, {"job_id": "job_999999"}, {"task_id": 999999}):
        assert agent_client.post("/agent-runs", body).status == 404, body
    assert client.post("/agent-runs", {"agent": "otto", "job_id": elsewhere}).status == 404
    run = agent_client.post("/agent-runs", {"agent": "somebody", "task_id": task["id"], "job_id": task["job_id"]}).data
    assert (run["agent"], run["task_id"], run["job_id"], run["status"]) == ("felix", task["id"], task["job_id"], "running")
    other = client.post("/agent-runs", {"agent": "otto"}).data
    assert client.post("/agent-runs", {}).status == 400
    assert agent_client.patch(f"/agent-runs/{other['id']}", {"status": "done"}).status == 404
    assert agent_client.get(f"/agent-runs/{other['id']}").status == 404
    done = agent_client.patch(f"/agent-runs/{run['id']}", {"status": "done", "tokens_in": 7, "cost_micros": 1200}).data
    assert (done["status"], done["tokens_in"], done["cost_micros"]) == ("done", 7, 1200) and done["finished_at"] and done["duration_ms"] >= 0
    for body in ({"status": "gone"}, {"tokens_in": -1}, {"cost": 1}):
        assert agent_client.patch(f"/agent-runs/{run['id']}", body).status == 400
    assert [one["id"] for one in client.get("/agent-runs").data] == [other["id"], run["id"]]
    assert [one["agent"] for one in agent_client.get("/agent-runs?agent=otto").data] == ["felix"]
    assert client.get("/agent-runs?agent=otto&status=running").meta["total"] == 1
    assert client.get(f"/agent-runs?task_id={task['id']}").meta["total"] == 1
    assert as_("out", tenant=None).get("/agent-runs").meta["total"] == 0


def test_a_run_whose_job_went_on_without_it_is_lost(client, felix, monkeypatch):
    job = client.post("/task-queue/submit", {"task_type": "t"}).data["id"]
    run = agents.runs.start("felix", task_id=None, job_id=int(job.removeprefix("job_")), mode="task")
    agents.runs.close_lost()
    assert client.get(f"/agent-runs/{run.id}").data["status"] == "running"  # too young to say
    monkeypatch.setattr(agents.runs, "now", lambda ahead=0.0: "2099-01-01T00:00:00.000Z")
    agents.runs.close_lost()
    assert client.get(f"/agent-runs/{run.id}").data["status"] == "lost"


# ── the run script ──


@pytest.mark.parametrize("folder", ["data", "it's \"my\" $(data) über"])
@pytest.mark.slow
def test_the_run_script_works_only_where_there_is_something_to_do(server, tmp_path, folder):
    running = server(folder=tmp_path / folder)
    token = server.admin(running)
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 3600}, token)
    # The run at load comes first, and must be over: it would call the witness, too.
    eventually(lambda: (one := running.call("GET", "/agents/felix", None, token)[1]["data"])["idle_skips"] and not one["process"]["pid"])
    home = running.folder / "agents" / "felix"
    # A Python that only says how it was called: whether it was is what matters here.
    witness = tmp_path / "python"
    witness.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/called"\n')
    witness.chmod(0o755)
    env = (home / "run.env").read_text()
    python = next(line for line in env.splitlines() if line.startswith("PYTHON="))
    (home / "run.env").write_text(env.replace(python, f"PYTHON={witness}"))

    def run():
        (tmp_path / "called").unlink(missing_ok=True)
        subprocess.run(["/bin/sh", str(home / "run.sh")], check=True, env={}, timeout=20)
        return (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else None

    assert run() is None
    running.call("POST", "/tasks", {"title": "one", "assignee": "felix"}, token)
    assert run()[1:] == ["run-agent", "felix", "--data", str(running.folder)]
    flag = next(line for line in env.splitlines() if line.startswith("STOP_FLAG=")).removeprefix("STOP_FLAG=")
    with open(flag, "x"):
        assert run() is None
    os.unlink(flag)
    os.symlink("/etc/passwd", flag)
    assert run()
    os.unlink(flag)
    running.stop()
    assert run() is None
    (home / "undelivered" / "job_1.json").write_text("[]")
    assert run()


@pytest.mark.slow
def test_the_idle_check_of_ten_sleeping_agents_is_counted(server):
    running = server()
    token = server.admin(running)
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 1}, token)
    assert eventually(lambda: running.call("GET", "/agents/felix", None, token)[1]["data"]["idle_skips"] >= 2, patience=15, every=0.5)
    time.sleep(0.1)  # in which a brain would have begun
    assert not (running.folder / "agents" / "felix" / "logs" / "brain.log").exists()
