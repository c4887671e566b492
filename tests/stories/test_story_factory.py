"""Stories of the factory: rows, jobs and the supervisor's word as they are seeded, and what is made of them."""
import json
import math

import pytest
from conftest import put

from orkosi import db, now
from plugins import factory, supervisor
from plugins.factory import running

LONG_AGO = "2026-11-02T10:00:00.000Z"


def label(number):
    return f"com.orkosi.{supervisor.folder_hash()}.worker.{number}"


@pytest.fixture
def three(client, data, monkeypatch):
    """One that works, one that is held, one that is to go; and what the supervisor says of them."""
    put("factory", tenant_id=1, worker_count=2, max_concurrent=3, queues='["a", "b"]', updated_at=LONG_AGO)
    for number, wanted, more in ((1, "running", {"completed": 7, "failed": 2, "ms": 9000, "restarts": 4}), (2, "held", {"last_error": "ended with 1: boom"}),
                                 (3, "draining", {})):
        put("factory_workers", tenant_id=1, number=number, wanted=wanted, since=LONG_AGO, slots=number + 1, queues='["a", "b"]', created_at=LONG_AGO, **more)
    said = {label(1): supervisor.Status(True, 4711, None), label(2): supervisor.Status(False, None, 1), label(3): supervisor.Status(True, 4713, 0)}
    monkeypatch.setattr(supervisor, "statuses", lambda plists: [said.get(one.stem, supervisor.Status()) for one in plists])
    for number, pid in ((1, 4711), (3, 1)):  # the file of the third is of a process before
        (data / f"work/factory-{number}").mkdir(parents=True)
        (data / f"work/factory-{number}/state.json").write_text(json.dumps({"pid": pid, "started_at": LONG_AGO, "seen_at": now(-5), "draining": False}))
    return said


def jobs():
    """Two that the first runs, one of somebody else's, and ends of the last day and before."""
    for id, worker, state in ((1, "factory-1/0", "active"), (2, "factory-1/2", "active"), (3, "other/0", "active"), (4, None, "waiting"), (5, None, "waiting")):
        put("jobs", id=id, tenant_id=1, queue="a" if id != 5 else "b", task_type=f"t{id}", state=state, worker_id=worker, created_at=now(-100 - id),
            claimed_at=now(-10 * id) if worker else None, lease_token=str(id), lease_expires_at=now(60) if worker else None)
    put("jobs", id=6, tenant_id=1, queue="a", task_type="t", state="dead", created_at=LONG_AGO, finished_at=now(-60))
    put("jobs", id=7, tenant_id=1, queue="a", task_type="t", state="dead", created_at=LONG_AGO, finished_at=now(-90000))
    put("jobs", id=8, tenant_id=1, queue="z", task_type="t", state="dead", created_at=LONG_AGO, finished_at=now(-60))
    ends = [(1, "completed", ms, age) for ms, age in ((100, 60), (300, 3500), (2000, 3700), (40, 80000), (9999, 90000))] + [
        (2, "completed", 500, 10), (1, "failed", 5, 20), (2, "failed", 5, 90000)]
    for worker, outcome, ms, age in ends:
        put("factory_jobs", tenant_id=1, worker=worker, outcome=outcome, ms=ms, finished_at=now(-age))
    return [end for end in ends if end[3] < 86400]


@pytest.mark.story("GET /api/factory-workers")
def test_workers_are_seen_as_they_are(client, three):
    assert client.get("/factory-workers").json == {"data": client.get("/factory-workers").data, "meta": {
        "worker_count": 2, "max_concurrent": 3, "slots": 9, "busy": 0}}
    day = jobs()
    answer = client.get("/factory-workers")
    first, second, third = answer.data
    mine = [ms for worker, outcome, ms, _ in day if (worker, outcome) == (1, "completed")]
    seconds = [one.pop("seconds") for one in first["current"]]
    assert seconds == pytest.approx([10, 20], abs=2)
    heard = first.pop("last_seen_at")
    assert now(-8) < heard < now(-3)
    assert first == {"id": 1, "label": label(1), "state": "busy", "pid": 4711, "queues": ["a", "b"], "slots": 2, "busy": 2,
                     "current": [{"job_id": "job_1", "task_type": "t1"}, {"job_id": "job_2", "task_type": "t2"}], "completed": 7, "failed": 2,
                     "throughput_per_hour": 2, "avg_seconds": round(sum(mine) / len(mine) / 1000, 3), "restarts": 4, "last_error": None, "started_at": LONG_AGO}
    none = {"busy": 0, "current": [], "completed": 0, "failed": 0, "throughput_per_hour": 0, "avg_seconds": None, "restarts": 0, "last_error": None,
            "started_at": None, "last_seen_at": None, "queues": ["a", "b"]}
    assert second == none | {"id": 2, "label": label(2), "state": "held", "pid": None, "slots": 3, "last_error": "ended with 1: boom", "throughput_per_hour": 1,
                             "avg_seconds": 0.5}
    assert third == none | {"id": 3, "label": label(3), "state": "draining", "pid": 4713, "slots": 4}
    assert answer.meta == {"worker_count": 2, "max_concurrent": 3, "slots": 9, "busy": 2}


def test_the_states_of_one_that_is_wanted(client, three, data):
    look = lambda: client.get("/factory-workers").data[0]["state"]  # noqa: E731
    assert look() == "idle"
    (data / "work/factory-1/state.json").write_text(json.dumps({"pid": 4711, "draining": True}))
    assert look() == "draining"
    (data / "work/factory-1/state.json").write_text("no JSON")
    assert look() == "starting"
    three[label(1)] = supervisor.Status(True, None, 0)
    assert look() == "starting"
    three[label(3)] = supervisor.Status(False, None, 0)
    assert client.get("/factory-workers").data[2]["state"] == "stopped"


@pytest.mark.story("GET /api/factory-workers/stats")
def test_what_the_factory_did_is_counted(client, three):
    assert client.get("/factory-workers/stats").data == {
        "workers": 2, "busy": 0, "slots": 9, "waiting": 0, "active": 0, "completed": 0, "failed": 0, "dead": 0, "throughput_per_hour": 0, "avg_seconds": None,
        "p95_seconds": None, "oldest_waiting_seconds": None}
    day = jobs()
    took = sorted(ms for _, outcome, ms, _ in day if outcome == "completed")
    found = client.get("/factory-workers/stats").data
    assert found.pop("oldest_waiting_seconds") == pytest.approx(105, abs=2)
    assert found == {"workers": 2, "busy": 2, "slots": 9, "waiting": 2, "active": 3, "completed": 5, "failed": 1, "dead": 1,
                     "throughput_per_hour": sum(1 for _, outcome, _, age in day if outcome == "completed" and age < 3600),
                     "avg_seconds": sum(took) / len(took) / 1000, "p95_seconds": took[math.ceil(len(took) * 0.95) - 1] / 1000}


@pytest.mark.story("PATCH /api/factory-workers/config")
def test_what_is_wanted_is_kept_and_told(client, three):
    empty = client.patch("/factory-workers/config", {})
    assert empty.status == 200 and empty.data == {"worker_count": 2, "max_concurrent": 3, "queues": ["a", "b"], "wanted": 2, "running": 2}
    wanted = lambda: {one.number: (one.wanted, one.slots, one.queues) for one in workers()}  # noqa: E731
    assert wanted() == {1: ("draining", 2, ["a", "b"]), 2: ("held", 3, ["a", "b"]), 3: ("draining", 4, ["a", "b"])}  # the first had other slots
    client.patch("/factory-workers/config", {"worker_count": 4, "queues": ["c", "c"]})
    assert wanted() == {1: ("draining", 2, ["a", "b"]), 2: ("running", 3, ["c"]), 3: ("draining", 4, ["a", "b"]), 4: ("running", 3, ["c"])}
    assert client.patch("/factory-workers/config", {"max_concurrent": 8}).data == {"worker_count": 4, "max_concurrent": 8, "queues": ["c"], "wanted": 4,
                                                                                  "running": 2}
    assert wanted()[4][0] == "draining"
    assert client.patch("/factory-workers/config", {"worker_count": 0}).data["wanted"] == 0 and {one[0] for one in wanted().values()} == {"draining"}
    kept = db.one(dict, "SELECT * FROM factory")
    assert (kept["worker_count"], kept["max_concurrent"], kept["queues"]) == (0, 8, '["c"]')


def workers():
    from orkosi import acting, system
    with acting(system()):
        return factory.workers()


@pytest.mark.parametrize("body, field", [({"worker_count": 17}, "worker_count"), ({"worker_count": -1}, "worker_count"), ({"max_concurrent": 0}, "max_concurrent"),
                                         ({"max_concurrent": 9}, "max_concurrent"), ({"worker_count": "2"}, "worker_count"), ({"queues": []}, "queues"),
                                         ({"queues": ["agent:felix"]}, "queues"), ({"queues": ["orkosi"]}, "queue_name"), ({"count": 1}, "count")])
def test_what_cannot_be_wanted_is_named(client, body, field):
    said = client.patch("/factory-workers/config", body)
    assert said.status == 400 and field in str(said.json["error"]) and workers() == []


@pytest.mark.story("GET /api/factory-workers/health-summary")
def test_health_is_the_supervisors_own_word(client, three, monkeypatch):
    answer = client.get("/factory-workers/health-summary").data
    row = lambda n, state: {"id": n, "label": label(n), "pid": three[label(n)].pid, "loaded": three[label(n)].loaded,  # noqa: E731
                            "last_exit_status": three[label(n)].last_exit, "state": state}
    held = {"code": "worker_held", "worker_id": 2, "since": LONG_AGO, "message":
            "factory-2 died 5 times within a minute and is not started again: ended with 1: boom. See to that, then PATCH /api/factory-workers/config with the "
            "worker_count"}
    assert answer == {"status": "degraded", "supervisor": "embedded", "workers": [row(1, "idle"), row(2, "held"), row(3, "draining")], "alerts": [held]}
    three[label(1)] = supervisor.Status(False, None, 78)
    down = {"code": "worker_down", "worker_id": 1, "since": LONG_AGO, "message": "factory-1 is wanted and does not run"}
    assert client.get("/factory-workers/health-summary").data == {
        "status": "down", "supervisor": "embedded", "workers": [row(1, "starting"), row(2, "held"), row(3, "draining")], "alerts": [down, held]}
    monkeypatch.setattr(running, "SILENT", 1.0)
    three[label(1)] = supervisor.Status(True, 4711, None)
    assert [one["code"] for one in client.get("/factory-workers/health-summary").data["alerts"]] == ["worker_silent", "worker_held"]


def test_no_workers_are_well(client):
    assert client.get("/factory-workers").json == {"data": [], "meta": {"worker_count": 0, "max_concurrent": 1, "slots": 0, "busy": 0}}
    assert client.get("/factory-workers/health-summary").data == {"status": "ok", "supervisor": "embedded", "workers": [], "alerts": []}
    assert client.patch("/factory-workers/config", {}).data == {"worker_count": 0, "max_concurrent": 1, "queues": ["default"], "wanted": 0, "running": 0}
