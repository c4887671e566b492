"""Automations and the supervisor: records, live state, and both drivers with real processes.

launchctl is the one stand-in (fake_launchctl.py): a program on PATH that runs real processes, records every argument
list, and answers, late and wrongly, as launchd's does.
"""
import json
import os
import plistlib
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HOME, eventually

from orkosi import Unavailable, Unprocessable, db, settings
from plugins import agents, supervisor
from plugins.agents import bootstrap
from plugins.supervisor import embedded, launchd, processes

NEW = {"name": "nightly", "agent_name": "felix", "type": "script", "path": "agents/felix/run.sh"}


def sleeper(label, data, script="echo $$ >> out; sleep 60 & sleep 60", **more):
    """A plist whose job writes its pid into `out` and stays."""
    return supervisor.write(label, {"ProgramArguments": ["/bin/sh", "-c", script], "WorkingDirectory": str(data), **more})


def pids(data):
    try:
        return [int(line) for line in (data / "out").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.fixture
def driver(data):
    """The embedded driver, running."""
    made, stop = embedded.Embedded(), threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    made.finish = lambda: (stop.set(), thread.join())
    yield made
    made.finish()


# ── records ──


@pytest.mark.parametrize("change, status", [
    ({}, 201),
    ({"type": "launchagent", "path": "/etc/passwd"}, 201),       # stored, never looked at
    ({"path": ""}, 400),
    ({"status": "gone"}, 400),
    ({"nmae": "x"}, 400),
    ({"name": None}, 400),
])
def test_recording_an_automation(client, change, status):
    assert client.post("/automations", NEW | change).status == status


@pytest.mark.parametrize("who, read, write", [
    ({"role": "viewer"}, 403, 403), ({"role": "member"}, 403, 403), ({"role": "editor"}, 200, 403), ({"role": "admin"}, 200, 201),
    ({"tenant": None}, 403, 403),
])
def test_who_may(as_, who, read, write):
    one = as_("ann", **who)
    assert one.get("/automations").status == read
    assert one.post("/automations", NEW).status == write


def test_a_record_is_changed_listed_searched_and_deleted(client):
    made = client.post("/automations", NEW).data
    assert client.post("/automations", NEW).status == 409
    assert client.patch(f"/automations/{made['id']}", {"label": "com.x", "status": "inactive"}).data["label"] == "com.x"
    assert client.patch("/automations/999", {}).status == 404
    for query, found in [("", 1), ("?agent_name=felix", 1), ("?type=launchagent", 0), ("?status=inactive", 1), ("?q=night", 1),
                         ("?q=nothing", 0), ("?q=%22%20%2A", 0), ("?q=felix%20OR", 0)]:
        assert client.get(f"/automations{query}").meta["total"] == found, query
    assert client.get(f"/automations?q={'x' * 101}").status == 400
    assert client.get("/automations?status=gone").status == 400
    assert client.delete(f"/automations/{made['id']}").data == {"deleted": True, "id": made["id"]}
    assert client.get(f"/automations/{made['id']}").status == 404


def test_live_state_is_looked_up_inside_the_data_folder_alone(client, data, tmp_path):
    script = data / "agents" / "felix" / "run.sh"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    made = client.post("/automations", NEW).data
    assert made["live"] == {"exists": True, "is_executable": False, "loaded": None, "pid": None, "last_exit": None}
    script.chmod(0o755)
    assert client.get(f"/automations/{made['id']}").data["live"]["is_executable"]
    (data / "link").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("x")
    for path in ("/etc/passwd", "../secret", "link/secret", str(tmp_path / "secret")):
        shown = client.post("/automations", NEW | {"path": path}).data
        assert shown["live"] is None and "outside" in shown["why"], path


def test_only_a_plist_in_jobs_is_loaded(client, data, tmp_path):
    body = NEW | {"type": "launchagent"}
    elsewhere = tmp_path / "com.evil.plist"
    elsewhere.write_bytes(plistlib.dumps({"Label": "com.evil", "ProgramArguments": ["/bin/true"]}))
    client.post("/automations", body | {"path": str(elsewhere)})
    (data / "jobs").mkdir(exist_ok=True)
    (data / "jobs" / "com.evil.plist").symlink_to(elsewhere)
    client.post("/automations", body | {"path": "jobs/com.evil.plist"})
    assert "com.evil" not in embedded.driver.jobs
    path = sleeper("com.good", data)
    made = client.post("/automations", body | {"path": str(path)}).data
    assert made["live"]["loaded"] is True
    assert client.patch(f"/automations/{made['id']}", {"status": "disabled"}).data["live"]["loaded"] is False
    client.patch(f"/automations/{made['id']}", {"status": "active"})
    client.delete(f"/automations/{made['id']}")
    assert "com.good" not in embedded.driver.jobs and path.exists()
    path.write_text("not a plist")
    assert client.post("/automations", body | {"path": str(path)}).status == 422


# ── embedded ──


def test_a_job_starts_at_load_in_its_folder_with_its_environment_and_files(driver, data, monkeypatch):
    path = sleeper("com.a", data, 'echo "$GREETING $PWD"; echo bad >&2; env >&2', RunAtLoad=True, EnvironmentVariables={"GREETING": "hé llo"},
                   StandardOutPath=str(data / "o.log"), StandardErrorPath=str(data / "e.log"))
    monkeypatch.setenv("ORKOSI_STRIPE_SECRET_KEY", "sk_live_x")
    driver.load(path)
    assert eventually(lambda: driver.status(path).last_exit is not None)
    assert driver.status(path) == supervisor.Status(True, None, 0)
    assert (data / "o.log").read_text() == f"hé llo {data}\n"
    assert "bad" in (data / "e.log").read_text() and "sk_live_x" not in (data / "e.log").read_text()


@pytest.mark.slow
def test_an_interval_starts_a_job_again_and_again_but_never_twice_at_once(driver, data):
    driver.load(sleeper("com.a", data, "echo $$ >> out", StartInterval=1))
    driver.load(sleeper("com.b", data, "echo $$ >> slow; sleep 2.3", StartInterval=1))
    time.sleep(3.4)  # the time of three starts, and of no more than four
    assert 3 <= len(pids(data)) <= 4
    assert len((data / "slow").read_text().split()) == 1


@pytest.mark.parametrize("script, starts", [("echo $$ >> out; exit 1", 2), ("echo $$ >> out; exit 0", 1)])
@pytest.mark.slow
def test_a_job_kept_alive_is_started_again_as_it_asked_and_not_too_often(driver, data, script, starts):
    driver.load(sleeper("com.a", data, script, KeepAlive={"SuccessfulExit": False}, RunAtLoad=True, ThrottleInterval=1))
    time.sleep(1.7)  # in which it would be started twice, or is not started again
    assert len(pids(data)) == starts


def test_unloading_ends_the_whole_process_group(driver, data):
    path = sleeper("com.a", data, "trap '' TERM; echo $$ >> out; sleep 60 & echo $! >> out; wait", RunAtLoad=True)
    driver.load(path)
    eventually(lambda: len(pids(data)) == 2)
    driver.jobs["com.a"].end(0.3)  # it does not listen to TERM
    driver.unload(path)
    assert not driver.status(path).loaded
    assert [pid for pid in pids(data) if processes.born(pid)] == []
    driver.unload(path)


def test_what_runs_is_ended_and_started_anew(driver, data):
    path = sleeper("com.a", data, RunAtLoad=True)
    driver.load(path)
    first, = eventually(lambda: pids(data))
    driver.load(path)  # as it stands: nothing happens
    driver.end(path)
    driver.start(path)
    eventually(lambda: len(pids(data)) == 2)
    assert driver.status(path).pid == pids(data)[1] and not processes.born(first)
    with pytest.raises(Unprocessable):
        driver.start(supervisor.plist_of("com.nothing"))


def test_a_changed_plist_is_taken_in(driver, data):
    driver.load(sleeper("com.a", data, RunAtLoad=True))
    first, = eventually(lambda: pids(data))
    driver.load(sleeper("com.a", data, "echo $$ >> out; sleep 50", RunAtLoad=True))
    eventually(lambda: len(pids(data)) == 2)
    assert not processes.born(first)


def test_the_end_of_the_server_ends_its_children(driver, data):
    driver.load(sleeper("com.a", data, RunAtLoad=True))
    pid, = eventually(lambda: pids(data))
    driver.finish()
    assert not processes.born(pid)


@pytest.mark.slow
def test_what_a_killed_server_left_is_adopted_and_not_started_twice(driver, data):
    path = sleeper("com.a", data, "echo $$ >> out; sleep 60", RunAtLoad=True)
    driver.load(path)
    pid, = eventually(lambda: pids(data))
    later, stop = embedded.Embedded(), threading.Event()  # as the next server would find it
    thread = threading.Thread(target=later.run, args=(stop,))
    thread.start()
    try:
        later.load(path)
        time.sleep(0.5)  # in which it would be started twice
        assert later.status(path).pid == pid and pids(data) == [pid]
        later.unload(path)
        assert eventually(lambda: not processes.born(pid))
    finally:
        stop.set()
        thread.join()


def test_a_pid_that_came_back_as_another_process_is_not_ours(data):
    (data / "a.pid").write_text(json.dumps({"pid": os.getpid(), "born": "1"}))
    assert processes.remembered(data / "a.pid") is None
    (data / "a.pid").write_text("[]")
    assert processes.remembered(data / "a.pid") is None


def test_a_program_that_is_not_there_is_reported_not_raised(driver, data):
    path = supervisor.write("com.a", {"ProgramArguments": ["/nowhere/program"], "RunAtLoad": True})
    driver.load(path)
    assert eventually(lambda: driver.status(path).last_exit) == 78


@pytest.mark.parametrize("odd", [{"EnvironmentVariables": {"N": 5}}, {"EnvironmentVariables": ["N"]}, {"WorkingDirectory": 5},
                                 {"StandardOutPath": 5}, {"StandardErrorPath": ["x"]}])
def test_an_odd_plist_fails_alone(driver, data, odd):
    bad = supervisor.write("com.a", {"ProgramArguments": ["/bin/true"], "RunAtLoad": True} | odd)
    driver.load(bad)
    assert eventually(lambda: driver.status(bad).last_exit) == 78
    driver.load(sleeper("com.b", data, "echo $$ >> out", RunAtLoad=True))
    assert eventually(lambda: pids(data)), "the others run all the same"


@pytest.mark.parametrize("content", [b"", b"<plist>", plistlib.dumps({"Label": "com.a"}), plistlib.dumps(["x"]),
                                     plistlib.dumps({"Label": "com.b", "ProgramArguments": ["/bin/true"]})])
def test_what_is_no_job_is_refused(data, content):
    supervisor.plist_of("com.a").parent.mkdir()
    supervisor.plist_of("com.a").write_bytes(content)
    with pytest.raises(Unprocessable):
        embedded.Embedded().load(supervisor.plist_of("com.a"))


# ── launchd ──


def test_launchd_is_asked_as_it_wants_to_be(launchctl, data):
    domain, path = f"gui/{os.getuid()}", sleeper("com.a", data, RunAtLoad=True)
    assert supervisor.status(path) == supervisor.Status()
    assert supervisor.load(path) is True and supervisor.load(path) is False
    first = eventually(lambda: supervisor.status(path).pid)
    assert supervisor.status(path) == supervisor.Status(True, first, None) and processes.born(first)
    supervisor.restart(path)
    second = eventually(lambda: supervisor.status(path).pid)
    assert second != first and not processes.born(first) and supervisor.status(path) == supervisor.Status(True, second, -15)
    other = sleeper("com.b", data)
    supervisor.load(other)
    assert supervisor.statuses([path, other, supervisor.plist_of("com.c")]) == [
        supervisor.Status(True, second, -15), supervisor.Status(True, None, 0), supervisor.Status()]
    supervisor.unload(path)
    supervisor.unload(path)
    assert not processes.born(second) and supervisor.status(path) == supervisor.Status()
    assert [call for call in launchctl() if call[0] not in ("print", "list")] == [
        ["bootstrap", domain, str(path)], ["kickstart", f"{domain}/com.a"], ["kill", "SIGTERM", f"{domain}/com.a"], ["kickstart", f"{domain}/com.a"],
        ["bootstrap", domain, str(other)], ["bootout", f"{domain}/com.a"], ["bootout", f"{domain}/com.a"]]


def test_what_does_not_want_to_end_is_made_to(launchctl, data, monkeypatch):
    monkeypatch.setattr(launchd, "PATIENCE", 1.0)
    path = sleeper("com.a", data, "trap '' TERM; while :; do sleep 0.1; done", RunAtLoad=True)
    supervisor.load(path)
    first = eventually(lambda: supervisor.status(path).pid)
    time.sleep(0.3)  # until the shell has set its trap
    supervisor.end(path)
    assert not processes.born(first) and supervisor.status(path) == supervisor.Status(True, None, -9)
    assert [call[1] for call in launchctl() if call[0] == "kill"] == ["SIGTERM", "SIGKILL"]


def test_launchd_reads_a_changed_plist_only_after_a_bootout(launchctl, data):
    supervisor.load(sleeper("com.a", data))
    supervisor.load(sleeper("com.a", data, StartInterval=5))
    called = [call[0] for call in launchctl() if call[0] != "print"]
    assert called[:3] == ["bootstrap", "bootout", "bootstrap"] and "bootout" not in called[3:] and supervisor.status(supervisor.plist_of("com.a")).loaded


def test_a_changed_plist_waits_for_what_runs_where_it_is_loaded_gently(launchctl, data):
    path = sleeper("com.a", data, f"while [ ! -e {data}/end ]; do sleep 0.1; done", RunAtLoad=True)
    supervisor.load(path)
    pid = eventually(lambda: supervisor.status(path).pid)
    sleeper("com.a", data, "exec sleep 60", RunAtLoad=True)
    assert supervisor.load(path, gently=True) is True
    supervisor.take_in()
    assert supervisor.status(path).pid == pid and "bootout" not in [call[0] for call in launchctl()]
    (data / "end").touch()
    eventually(lambda: supervisor.status(path).pid is None)
    supervisor.take_in()
    assert eventually(lambda: supervisor.status(path).pid) != pid and supervisor.load(path) is False, "it is taken in"
    supervisor.unload(path)


def test_a_label_that_is_still_on_its_way_out_is_waited_for(launchctl, data, tmp_path):
    (tmp_path / "launchd").mkdir(exist_ok=True)
    (tmp_path / "launchd" / "busy").write_text("2")
    path = sleeper("com.a", data, "trap 'sleep 1; exit' TERM; while :; do sleep 0.1; done", RunAtLoad=True)
    supervisor.load(path)
    eventually(lambda: supervisor.status(path).pid)
    time.sleep(0.3)  # until the shell has set its trap
    began = time.monotonic()
    supervisor.unload(path)
    supervisor.load(path)
    assert time.monotonic() - began > 2 and supervisor.status(path).loaded
    assert len([call for call in launchctl() if call[0] == "bootstrap"]) > 2, "it failed with 5 for a while"


def test_two_who_load_one_job_at_once_both_find_it_loaded(launchctl, data):
    path, made = sleeper("com.a", data, RunAtLoad=True), []
    threads = [threading.Thread(target=lambda: made.append(supervisor.load(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, False, True] and len([call for call in launchctl() if call[0] == "bootstrap"]) == 1


def test_what_launchd_holds_back_is_started_all_the_same(launchctl, data, tmp_path):
    (tmp_path / "launchd").mkdir(exist_ok=True)
    (tmp_path / "launchd" / "pend").write_text("")
    path = sleeper("com.a", data, RunAtLoad=True)
    supervisor.load(path)
    assert eventually(lambda: supervisor.status(path).pid)


def test_where_nobody_is_logged_in_it_is_said_and_auto_does_without(launchctl, data, tmp_path, monkeypatch):
    (tmp_path / "launchd").mkdir(exist_ok=True)
    (tmp_path / "launchd" / "nobody").write_text("")
    path = sleeper("com.a", data)
    for verb in (supervisor.load, supervisor.status):
        with pytest.raises(launchd.NobodyLoggedIn, match="log in at the screen"):
            verb(path)
    monkeypatch.setattr(sys, "platform", "darwin")
    settings.values["supervisor"] = "auto"
    supervisor._session.cache_clear()
    assert supervisor.driver() is embedded.driver
    (tmp_path / "launchd" / "nobody").unlink()
    assert supervisor.driver() is embedded.driver, "it does not change while jobs are in its care"
    supervisor._session.cache_clear()
    assert supervisor.driver() is launchd.driver
    supervisor._session.cache_clear()


def test_a_launchctl_that_fails_is_quoted(launchctl, data):
    with pytest.raises(Unavailable, match="Could not find service"):
        supervisor.start(sleeper("com.a", data))
    path = sleeper("com.a", data)
    path.chmod(0o666)
    with pytest.raises(Unavailable, match="bad ownership/permissions"):
        supervisor.load(path)


def test_without_launchctl_the_way_out_is_named(data, monkeypatch, tmp_path):
    monkeypatch.setitem(settings.values, "supervisor", "launchd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="embedded"):
        supervisor.status(supervisor.plist_of("com.a"))


def test_plists_are_written_whole_and_labels_carry_the_folder(data):
    path = sleeper("com.a", data, StartInterval=5)
    with open(path, "rb") as file:
        assert plistlib.load(file)["Label"] == "com.a"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.stat().st_mtime_ns
    sleeper("com.a", data, StartInterval=5)
    assert path.stat().st_mtime_ns == before
    assert len(supervisor.folder_hash()) == 8


@pytest.mark.parametrize("name", ["server", "agent", "worker"])
def test_the_templates_are_plists_of_the_right_shape(name):
    with open(HOME / "launchd" / f"com.orkosi.{name}.plist", "rb") as file:
        spec = plistlib.load(file)
    assert spec["Label"].startswith("com.orkosi.") and spec["RunAtLoad"] is True
    assert all(one.startswith(("/", "@", "serve", "--data")) for one in spec["ProgramArguments"])
    assert ("StartInterval" in spec) is (name == "agent") and ("KeepAlive" in spec) is (name != "agent")


def test_the_agent_template_shows_what_is_written(data):
    from plugins.agents import bootstrap, register
    with open(HOME / "launchd" / "com.orkosi.agent.plist", "rb") as file:
        template = plistlib.load(file)
    assert set(template) == set(supervisor.read(Path(bootstrap._plist(register("felix")))))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="macOS answers EPERM for a group of zombies")
def test_nobody_waits_for_the_dead():
    """A curl whose shell was ended is a zombie until init fetches it, and some take seconds."""
    leader = subprocess.Popen(["sleep", "60"], process_group=0)
    dead = subprocess.Popen(["true"], process_group=leader.pid)  # ours, and not fetched
    while Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # a look now and then
    assert processes.group_lives(leader.pid)
    began = time.monotonic()
    processes.end_group(leader.pid, 3.0, leader.poll)
    assert time.monotonic() - began < 1 and leader.returncode == -15 and not processes.group_lives(leader.pid)
    dead.wait()


def test_a_folder_that_moves_keeps_its_automations_as_they_were(client, crew, data):
    crew("ada")
    assert client.post("/agents/ada/stop", {}).status == 200
    before = client.get("/automations").data
    assert {one["type"]: one["status"] for one in before} == {"script": "active", "launchagent": "inactive"}
    db.write(lambda: db.run("UPDATE automations SET path = '/elsewhere' || path, label = 'com.orkosi.other' WHERE tenant_id = :tenant"))
    bootstrap.lay(agents.find("ada"))
    changed = [{name: value for name, value in one.items() if name != "updated_at"} for one in (*before, *client.get("/automations").data)]
    assert changed[:2] == changed[2:], "the same rows, by number, and what was stopped is not made active by a move"
