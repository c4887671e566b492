"""Stories of automations: the records, and what is true of each file at that moment."""
import plistlib

import pytest
from conftest import eventually, listed, put

from plugins import supervisor
from plugins.supervisor import embedded

NOTHING = {"exists": False, "is_executable": False, "loaded": None, "pid": None, "last_exit": None}


@pytest.fixture(autouse=True)
def forget_jobs():
    """The embedded driver is one for the process; each test finds it empty."""
    yield
    for job in embedded.driver.jobs.values():
        job.end(0)
    embedded.driver.jobs.clear()


def started(label, script):
    """A loaded job that was started."""
    supervisor.load(supervisor.write(label, {"ProgramArguments": ["/bin/sh", "-c", script]}))
    embedded.driver.jobs[label].start()
    return embedded.driver.jobs[label]


def stored(id, home=1, live=NOTHING, why=None, **fields):
    """An automation as it is stored, and as it is shown."""
    shown = {"name": f"job{id}", "agent_name": "felix", "type": "script", "path": f"agents/felix/{id}.sh", "label": f"com.x{id}", "status": "active",
             "created_at": "2026-11-02T10:00:00.000Z", "updated_at": "2026-11-03T10:00:00.000Z"} | fields
    put("automations", id=id, tenant_id=home, **shown)
    return {"id": id} | shown | {"live": live, "why": why}


@pytest.mark.story("GET /api/automations", "GET /api/automations/{id}")
def test_automations_are_listed_with_what_is_true_of_them(client, data):
    home = data / "agents" / "felix"
    home.mkdir(parents=True)
    (home / "1.sh").write_text("#!/bin/sh\n")
    (home / "2.sh").write_text("#!/bin/sh\n")
    (home / "2.sh").chmod(0o755)
    ended, running = started("com.ended", "exit 3"), started("com.running", "sleep 60")
    assert eventually(lambda: not ended.runs())
    one = stored(1, live=NOTHING | {"exists": True})
    two = stored(2, live=NOTHING | {"exists": True, "is_executable": True}, agent_name="otto", name="nightly")
    three = stored(3, live=None, path="/etc/passwd", status="disabled", label=None,
                   why="The path is outside the data folder, and so it is never looked at")
    four = stored(4, type="launchagent", path="jobs/com.ended.plist", status="inactive", live=NOTHING | {"exists": True, "loaded": True, "last_exit": 3})
    five = stored(5, type="launchagent", path="jobs/com.running.plist", agent_name="otto",
                  live=NOTHING | {"exists": True, "loaded": True, "pid": running.child.pid})
    stored(6, home=2)
    assert listed(client, "/automations", [five, four, three, two, one], default=1000)
    for query, found in [("agent_name=otto", [five, two]), ("type=launchagent", [five, four]), ("status=disabled", [three]), ("status=active", [five, two, one]),
                         ("q=night", [two]), ("q=passwd", [three]), ("q=%22", []), ("q=felix&status=active", [two, one]), ("agent_name=ada", [])]:
        assert listed(client, f"/automations?{query}", found, default=1000)
    for shown in (one, two, three, four, five):
        assert client.get(f"/automations/{shown['id']}").json == {"data": shown}


@pytest.fixture
def job(data):
    """A plist in its place, whose job sleeps."""
    return supervisor.write("com.good", {"ProgramArguments": ["/bin/sleep", "60"]})


@pytest.mark.story("POST /api/automations")
def test_an_automation_is_what_was_sent_and_a_launch_agent_is_loaded(client, job, lately):
    full = {"name": "good", "agent_name": "felix", "type": "launchagent", "path": "jobs/com.good.plist", "label": "com.good", "status": "active"}
    made = client.post("/automations", full)
    times = {"created_at": lately, "updated_at": lately}
    live = {"exists": True, "is_executable": False, "loaded": True, "pid": None, "last_exit": None}
    assert (made.status, made.json) == (201, {"data": full | times | {"id": made.data["id"], "live": live, "why": None}})
    assert supervisor.status(job).loaded
    bare = client.post("/automations", {"name": "x", "agent_name": "otto", "type": "script", "path": "../x"}).data
    assert bare == {"id": made.data["id"] + 1, "name": "x", "agent_name": "otto", "type": "script", "path": "../x", "label": None, "status": "active", "live": None,
                    "why": "The path is outside the data folder, and so it is never looked at"} | times
    assert client.get("/automations").data == [bare, made.data]
    sleeping = supervisor.write("com.sleeping", {"ProgramArguments": ["/bin/sleep", "60"]})
    off = client.post("/automations", full | {"path": "jobs/com.sleeping.plist", "status": "inactive"}).data
    assert (off["status"], off["live"]["loaded"], supervisor.status(sleeping).loaded) == ("inactive", False, False)


@pytest.mark.story("PATCH /api/automations/{id}")
@pytest.mark.parametrize("change", [{"name": "n"}, {"agent_name": "ada"}, {"type": "other"}, {"path": "x.sh"}, {"label": None}, {"status": "inactive"}, {},
                                    {"name": "n", "agent_name": "ada", "type": "t", "path": "y", "label": "l", "status": "disabled"}])
def test_what_is_sent_of_an_automation_is_changed_and_no_more(client, lately, change):
    before, other = stored(1), stored(2)
    after = client.patch("/automations/1", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert client.get("/automations/1").data == after.data and client.get("/automations/2").data == other


@pytest.mark.story("PATCH /api/automations/{id}")
def test_the_supervisor_follows_a_change(client, data, job):
    before = stored(1, type="launchagent", path="jobs/com.good.plist")
    live = {"exists": True, "is_executable": False, "loaded": True, "pid": None, "last_exit": None}
    assert client.patch("/automations/1", {"status": "active"}).data["live"] == live and supervisor.status(job).loaded
    after = client.patch("/automations/1", {"path": "/elsewhere"}).data
    assert (after["live"], after["why"]) == (None, "The path is outside the data folder, and so it is never looked at")
    assert not supervisor.status(job).loaded and before["why"] is None


@pytest.mark.story("PATCH /api/automations/{id}")
def test_what_is_true_of_an_automation_is_told_after_a_change(client, data):
    script = data / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    ended, running = started("com.ended", "exit 3"), started("com.running", "sleep 60")
    assert eventually(lambda: not ended.runs())
    launched = NOTHING | {"exists": True, "loaded": True}
    for id, type, path, live in [(1, "script", "run.sh", NOTHING | {"exists": True, "is_executable": True}),
                                 (2, "launchagent", "jobs/com.ended.plist", launched | {"last_exit": 3}),
                                 (3, "launchagent", "jobs/com.running.plist", launched | {"pid": running.child.pid})]:
        stored(id, type=type, path=path)
        assert client.patch(f"/automations/{id}", {"name": "anew"}).data["live"] == live


@pytest.mark.story("DELETE /api/automations/{id}")
def test_a_deleted_automation_is_gone_and_unloaded_and_its_file_stays(client, data, job):
    stored(1, type="launchagent", path="jobs/com.good.plist"), stored(2)
    client.patch("/automations/1", {"status": "active"})
    assert client.delete("/automations/1").json == {"data": {"deleted": True, "id": 1}}
    assert [one["id"] for one in client.get("/automations").data] == [2]
    assert not supervisor.status(job).loaded and plistlib.loads(job.read_bytes())["Label"] == "com.good"
