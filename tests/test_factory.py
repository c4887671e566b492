"""The factory: real worker processes, started, drained, killed and held."""
import fcntl
import os
import signal
import time

import pytest
from conftest import Client, eventually

from orkosi import acting, db, now, system
from plugins import factory, keys, queue, supervisor
from plugins.factory import running

ENOUGH = {"timeout_seconds": 60}


@pytest.fixture
def plant(server):
    return Plant(server)


class Plant:
    def __init__(self, server):
        self.server, self.running = server, server()
        self.token = server.admin(self.running)
        (self.running.folder / "workers").mkdir()

    def program(self, name, text):
        path = self.running.folder / "workers" / name
        path.write_text(text)
        path.chmod(0o755)

    def call(self, method, path, body=None):
        status, said = self.running.call(method, path, body, self.token)
        assert status in (200, 201), said
        return said["data"]

    def config(self, **more):
        return self.call("PATCH", "/factory-workers/config", more)

    def workers(self, *states, patience=20):
        """The workers, once they are in these states."""
        eventually(lambda: [one["state"] for one in self.call("GET", "/factory-workers")] == list(states), patience)
        return self.call("GET", "/factory-workers")

    def submit(self, task_type, **more):
        return self.call("POST", "/task-queue/submit", {"task_type": task_type, "max_attempts": 2, **ENOUGH, **more})["id"]

    def job(self, id):
        return self.call("GET", f"/task-queue/{id}")


@pytest.mark.slow
def test_workers_come_work_and_go(plant):
    plant.program("quick", "#!/bin/sh\necho '{\"ok\": true}'\n")
    plant.program("slow", f"#!/bin/sh\necho $$ >> {plant.running.folder}/slow\nsleep 3\necho slow\n")
    assert plant.config(worker_count=2, max_concurrent=2) == {"worker_count": 2, "max_concurrent": 2, "queues": ["default"], "wanted": 2, "running": 0}
    first, second = plant.workers("idle", "idle")
    assert first["slots"] == 2 and first["pid"] != second["pid"] and os.readlink(f"/proc/{first['pid']}/exe")
    quick = [plant.submit("quick") for _ in range(20)]
    eventually(lambda: all(plant.job(id)["status"] == "completed" for id in quick))
    assert plant.job(quick[0])["result"] == {"ok": True} and sum(one["completed"] for one in plant.call("GET", "/factory-workers")) == 20
    stats = plant.call("GET", "/factory-workers/stats")
    assert (stats["workers"], stats["slots"], stats["completed"], stats["throughput_per_hour"]) == (2, 4, 20, 20) and stats["p95_seconds"] >= stats["avg_seconds"] > 0
    slow = plant.submit("slow")
    eventually(lambda: (plant.running.folder / "slow").exists())
    busy = next(one for one in plant.call("GET", "/factory-workers") if one["busy"])
    assert busy["state"] == "busy" and busy["current"][0]["job_id"] == slow and busy["current"][0]["task_type"] == "slow"
    plant.config(worker_count=0)
    states = {one["id"]: one["state"] for one in plant.call("GET", "/factory-workers")}
    assert states[busy["id"]] == "draining"
    plant.workers()
    assert plant.job(slow)["result"] == "slow" and not list((plant.running.folder / "jobs").glob("*.worker.*"))
    assert plant.call("GET", "/factory-workers/health-summary")["status"] == "ok"


@pytest.mark.slow
def test_one_that_dies_comes_again_and_its_job_is_done(plant):
    plant.program("slow", f"#!/bin/sh\necho $$ >> {plant.running.folder}/slow\n[ $(wc -l < {plant.running.folder}/slow) -gt 1 ] || exec sleep 300\necho again\n")
    plant.config(worker_count=1)
    worker, = plant.workers("idle")
    id = plant.submit("slow")
    eventually(lambda: (plant.running.folder / "slow").exists())
    orphan = int((plant.running.folder / "slow").read_text().split()[0])
    os.kill(worker["pid"], signal.SIGKILL)
    eventually(lambda: plant.job(id)["status"] == "completed", 20)
    again, = plant.workers("idle")
    assert plant.job(id)["attempt"] == 2 and plant.job(id)["result"] == "again" and not os.path.exists(f"/proc/{orphan}")
    assert again["pid"] != worker["pid"] and again["restarts"] == 1 and "ended with -9" in again["last_error"]
    os.kill(again["pid"], signal.SIGTERM)  # somebody's hand: it is wanted all the same
    eventually(lambda: plant.workers("idle")[0]["pid"] not in (again["pid"], None), 20)


@pytest.mark.slow
def test_one_that_an_earlier_server_started_is_missed_when_it_dies(plant):
    plant.program("slow", f"#!/bin/sh\necho $$ >> {plant.running.folder}/slow\n[ $(wc -l < {plant.running.folder}/slow) -gt 1 ] || exec sleep 300\necho again\n")
    plant.config(worker_count=1)
    worker, = plant.workers("idle")
    plant.running.kill()
    plant.running = plant.server()
    assert plant.workers("idle")[0]["pid"] == worker["pid"]
    id = plant.submit("slow", timeout_seconds=300)
    eventually(lambda: (plant.running.folder / "slow").exists())
    os.kill(worker["pid"], signal.SIGKILL)
    eventually(lambda: plant.job(id)["status"] == "completed", 20)
    again, = plant.workers("idle")
    assert (plant.job(id)["attempt"], plant.job(id)["result"], again["restarts"]) == (2, "again", 1) and again["pid"] != worker["pid"]
    assert "was killed" in again["last_error"]


@pytest.mark.slow
def test_one_that_dies_five_times_within_a_minute_is_held(plant):
    folder = plant.running.folder / "work/factory-1"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a worker of its name is there already: it cannot start
        plant.config(worker_count=1)
        held, = plant.workers("held", patience=50)
        assert "factory-1 is at work already" in held["last_error"] and held["restarts"] == 5
        health = plant.call("GET", "/factory-workers/health-summary")
        assert health["status"] == "down" and health["alerts"][0]["code"] == "worker_held" and "at work already" in health["alerts"][0]["message"]
        assert plant.call("GET", "/notifications")[0]["title"] == "factory-1 is held"
    plant.config(worker_count=1)
    assert plant.workers("idle")[0]["restarts"] == 0


@pytest.mark.slow
def test_the_server_ends_and_comes_again(plant):
    """What ran is given back at no cost, and the next server has its workers again; a killed one adopts them."""
    plant.program("long", f"#!/bin/sh\necho $$ >> {plant.running.folder}/long\n[ $(wc -l < {plant.running.folder}/long) -gt 1 ] || exec sleep 300\necho again\n")
    plant.config(worker_count=1)
    plant.workers("idle")
    id = plant.submit("long")
    eventually(lambda: (plant.running.folder / "long").exists())
    plant.running.stop()
    plant.running = plant.server()
    eventually(lambda: plant.job(id)["status"] == "completed", 20)
    assert plant.job(id)["attempt"] == 1 and plant.job(id)["result"] == "again"
    worker, = plant.workers("idle")
    plant.running.kill()
    plant.running = plant.server()
    assert plant.workers("idle")[0]["pid"] == worker["pid"], "it is adopted"
    id = plant.submit("long")
    eventually(lambda: plant.job(id)["status"] == "completed", 20)


def one_worker(client, data):
    """The row of a worker, whose processes the test makes up."""
    client.patch("/factory-workers/config", {"worker_count": 1})
    (data / "work/factory-1").mkdir(parents=True)
    return factory.workers()[0]


def test_two_that_configure_it_at_once_each_change_what_they_name(client, monkeypatch):
    named, others = queue.named, [{"max_concurrent": 4}]

    def meanwhile(name):
        if others:
            client.patch("/factory-workers/config", others.pop())
        return named(name)
    monkeypatch.setattr(queue, "named", meanwhile)
    told = client.patch("/factory-workers/config", {"worker_count": 1, "queues": ["a"]}).data
    assert (told["worker_count"], told["max_concurrent"], told["queues"]) == (1, 4, ["a"])
    assert [one.slots for one in factory.workers()] == [4]


def test_what_the_next_process_claims_is_not_lost_with_the_one_before(client, data, monkeypatch):
    one = one_worker(client, data)
    submit = lambda: client.post("/task-queue/submit", {"task_type": "x", "max_attempts": 1}).data["id"]  # noqa: E731
    claim = lambda: client.post("/task-queue/claim", {"worker_id": "factory-1/0"})  # noqa: E731
    ended = []
    monkeypatch.setattr(running.trees, "end_left", lambda *args: ended.append(args))
    monkeypatch.setattr(running, "_pids", {1: 100})  # as it was at the look before
    old, new = submit(), submit()
    claim()
    time.sleep(0.01)  # so that the moments differ
    told = {"pid": 200, "started_at": now()}
    time.sleep(0.01)  # so that the moments differ
    claim()
    running._keep_running(one, running.Live(supervisor.Status(True, 200, -9), told, now()))
    assert [client.get(f"/task-queue/{id}").data["status"] for id in (old, new)] == ["dead", "active"]
    assert ended == [] and factory.workers()[0].restarts == 1, "what runs is the new one's"
    at = now()
    time.sleep(0.01)  # so that the moments differ
    later = submit()
    claim()
    running._keep_running(one, running.Live(supervisor.Status(True, None, -9), {}, at))
    assert [client.get(f"/task-queue/{id}").data["status"] for id in (new, later)] == ["dead", "active"] and len(ended) == 1


@pytest.mark.parametrize("how", ["is_active = 0", "deleted_at = '2026-01-01'", "created_by = NULL"])
def test_workers_get_another_key_when_theirs_is_no_good_any_more(client, data, monkeypatch, how):
    one_worker(client, data)
    monkeypatch.setattr(running, "_pids", {1: os.getpid()})
    live = running.Live(supervisor.Status(True, os.getpid(), None), {"pid": os.getpid(), "seen_at": now()}, now())
    monkeypatch.setattr(running, "look", lambda found: [live for _ in found])  # it lives, and goes on
    held = lambda: running.key_file().read_text().strip()  # noqa: E731
    with acting(system()):
        running.bring_about()
        first = held()
        running.bring_about()
        assert held() == first and keys.of(first), "a good one stays"
        db.write(lambda: db.run(f"UPDATE api_keys SET {how} WHERE name = 'factory workers'"))
        running.bring_about()
        assert held() != first and keys.of(held()).scopes == {"queue:work"}


def test_workers_get_another_key_when_its_maker_may_not_work_any_more(client, as_, data, monkeypatch):
    one_worker(client, data)
    monkeypatch.setattr(running, "_pids", {1: os.getpid()})
    live = running.Live(supervisor.Status(True, os.getpid(), None), {"pid": os.getpid(), "seen_at": now()}, now())
    monkeypatch.setattr(running, "look", lambda found: [live for _ in found])
    ask = lambda: Client(client.application, running.key_file().read_text().strip()).post("/task-queue/claim", {"worker_id": "w"}).status  # noqa: E731
    with acting(system()):
        running.bring_about()
    second = as_("ann", "admin")
    assert ask() == 200 and second.patch("/users/1", {"role": "demo"}).status == 200 and ask() == 403
    with acting(system()):
        running.bring_about()
    assert ask() == 200


@pytest.mark.slow
def test_an_idle_worker_that_is_killed_costs_no_attempt(plant):
    plant.program("brief", "#!/bin/sh\nsleep 2\necho ok\n")
    plant.config(worker_count=1)
    worker, = plant.workers("idle")
    os.kill(worker["pid"], signal.SIGKILL)
    time.sleep(1.2)  # until the server has heard that its waiting claim hung up: what is answered into a dead socket is a claim like another
    id = plant.submit("brief", max_attempts=1)
    eventually(lambda: plant.job(id)["status"] in ("completed", "dead"), 20)
    assert plant.job(id)["status"] == "completed" and plant.workers("idle")[0]["restarts"] == 1


def test_a_worker_under_launchd(client, launchctl, data, monkeypatch):
    """Its plist is one that launchd takes, it makes room for one of a newer version, and it goes when it is not wanted."""
    import plistlib
    client.patch("/factory-workers/config", {"worker_count": 1, "max_concurrent": 2, "queues": ["a", "b"]})
    with acting(system()):
        running.bring_about()
        plist = supervisor.plist_of(f"com.orkosi.{supervisor.folder_hash()}.worker.1")
        spec = plistlib.loads(plist.read_bytes())
        assert spec["KeepAlive"] == {"SuccessfulExit": False} and spec["Label"] == plist.stem and supervisor.status(plist).loaded
        assert [spec["ProgramArguments"][at + 1] for at, word in enumerate(spec["ProgramArguments"]) if word == "--queue"] == ["a", "b"]
        of = lambda: plistlib.loads(plist.read_bytes())["EnvironmentVariables"]["WORKER_OF"] if plist.exists() else None  # noqa: E731
        running.replace_old(), running.bring_about()
        assert of() == running.VERSION and client.get("/factory-workers").data[0]["state"] != "draining"
        monkeypatch.setattr(running, "VERSION", "9.9.9")
        running.replace_old()
        assert factory.workers()[0].wanted == "draining"
        eventually(lambda: running.bring_about() or of() == "9.9.9", 20)
        assert supervisor.status(plist).loaded and factory.workers()[0].wanted == "running"
        client.patch("/factory-workers/config", {"worker_count": 0})
        eventually(lambda: running.bring_about() or not plist.exists())
        assert not supervisor.status(plist).loaded and client.get("/factory-workers").data == []
    plist.write_text("no plist")
    assert supervisor.lives_elsewhere(plist), "of what is no job, nobody is ended"
