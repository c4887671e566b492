"""Working: what a worker hears while it is at a job, and how it gives back what cannot be done just now."""
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import db, eventually

from orkosi import acting, now, seconds, system
from plugins import queue
from plugins.queue import working


@pytest.fixture
def job(client):
    """A job under lease: its number and its token."""
    client.post("/task-queue/submit", {"task_type": "t", "timeout_seconds": 60})
    held = client.post("/task-queue/claim", {"worker_id": "w"}).data
    return held["id"], held["lease_token"]


def beating(client, job, **more):
    """A heartbeat in a thread of its own: the list that its answer and the seconds it took come into."""
    heard, began = [], time.monotonic()
    before = len(working._listening)
    threading.Thread(target=lambda: heard.append((client.post(f"/task-queue/{job[0]}/heartbeat", {"lease_token": job[1], "wait_seconds": 20} | more),
                                                  time.monotonic() - began)), daemon=True).start()
    eventually(lambda: len(working._listening) > before)
    return heard


def one(heard, within=1.0):
    eventually(lambda: heard, within)
    (answer, took), = heard
    assert took < within + 1
    return answer


@pytest.mark.parametrize("does, told", [
    (lambda client, id: client.post(f"/task-queue/{id}/cancel"), {"cancel": True, "pause": False}),
    (lambda client, id: queue.pause("default"), {"cancel": False, "pause": True})])
def test_a_heartbeat_that_waits_hears_at_once(client, lately, job, does, told):
    heard = beating(client, job)
    with acting(system()):
        does(client, job[0])
    answer = one(heard)
    assert answer.status == 200 and {name: answer.data[name] for name in told} == told
    assert not working._listening


def test_a_heartbeat_that_waits_extends_the_lease_before_and_no_longer(client, lately, job):
    heard = beating(client, job, extend_seconds=500, progress="half", wait_seconds=1)
    assert client.get(f"/task-queue/{job[0]}").data["lease_expires_at"] == lately(500), "at once, not when it is answered"
    answer = one(heard, within=2.5)
    assert answer.data == {"cancel": False, "pause": False, "lease_expires_at": lately(500)} and heard[0][1] >= 1
    assert client.get(f"/task-queue/{job[0]}").data["progress"] == "half" and not working._listening


@pytest.mark.parametrize("does", [
    lambda job: queue.release_active("default"), lambda job: queue.release(int(job[0][4:]), job[1]),
    lambda job: queue.fail(int(job[0][4:]), job[1], "no"), lambda job: queue.fail(int(job[0][4:]), job[1], "no", retryable=False), lambda job: queue.complete(int(job[0][4:]), job[1], None)])
def test_a_heartbeat_that_waits_hears_that_the_lease_is_over(client, job, does):
    heard = beating(client, job)
    with acting(system()):
        does(job)
    answer = one(heard)
    assert (answer.status, answer.code) == (409, "lease_lost")


def test_what_another_job_or_tenant_does_wakes_nobody(client, as_, job):
    heard = beating(client, job)
    other = client.post("/task-queue/submit", {"task_type": "t"}).data["id"]
    client.post(f"/task-queue/{other}/cancel"), as_("ann", tenant=None).post("/task-queue/submit", {"task_type": "t"})
    time.sleep(0.2)  # nothing may come
    assert not heard and len(working._listening) == 1
    client.post(f"/task-queue/{job[0]}/cancel")
    assert one(heard).data["cancel"]


def test_too_many_listeners_are_answered_at_once(client, job, monkeypatch):
    monkeypatch.setattr(working, "MOST", 0)
    began = time.monotonic()
    answer = client.post(f"/task-queue/{job[0]}/heartbeat", {"lease_token": job[1], "wait_seconds": 20})
    assert answer.status == 200 and time.monotonic() - began < 2


# ── leases ──


def test_a_lost_lease_says_whether_it_ever_was_one(client, job):
    said = lambda id, token: client.post(f"/task-queue/{id}/heartbeat", {"lease_token": token}).error  # noqa: E731
    assert said(job[0], "0" * 32)["message"].startswith("lease_token: That never was a lease of job_")
    other = client.post("/task-queue/submit", {"task_type": "t"}).data["id"]
    assert "never was" in said(other, job[1])["message"], "it is another job's"
    client.post(f"/task-queue/{job[0]}/release", {"lease_token": job[1]})
    assert said(job[0], job[1])["message"] == f"That lease of {job[0]} is no longer: the job is waiting; claim again"
    assert said(job[0], job[1])["code"] == said(job[0], "ö")["code"] == "lease_lost" and "never was" in said(job[0], "ö")["message"]


# ── putting off ──


def put_off(client, job, **more):
    return client.post(f"/task-queue/{job[0]}/release", {"lease_token": job[1], "reason": "the model is busy"} | more)


def again(client, id):
    """The put-off job, claimed once more."""
    db.write(lambda: db.run("UPDATE jobs SET run_at = :now WHERE :tenant", now=now(-1)))
    queue.executor.promote_due()
    held = client.post("/task-queue/claim", {"worker_id": "w"}).data
    assert held["id"] == id and held["attempt"] == 1, "at no cost of an attempt"
    return held["id"], held["lease_token"]


def test_a_job_is_put_off_longer_each_time_at_no_cost(client, lately, job):
    for number, wait in enumerate([30, 60, 120, 240, 480, 960, 1800, 1800], 1):
        after = put_off(client, job).data
        assert (after["status"], after["attempt"], after["deferrals"], after["run_at"]) == ("delayed", 0, number, lately(wait))
        why, = client.get(f"/task-queue/{job[0]}").data["why"]
        assert why["code"] == "put_off" and "the model is busy" in why["sentence"] and f"{number} times" in why["sentence"]
        job = again(client, job[0])
    client.post(f"/task-queue/{job[0]}/fail", {"lease_token": job[1], "error": "exit 1"})
    assert client.get(f"/task-queue/{job[0]}").data["deferrals"] == 0, "an attempt that counts ends the count"


def test_a_job_is_put_off_as_long_as_is_said(client, lately, job):
    assert put_off(client, job, retry_in_seconds=77).data["run_at"] == lately(77)
    assert put_off(client, again(client, job[0]), retry_in_seconds=0).data["status"] == "delayed"


def failed_for_good(answer, *words):
    assert (answer.data["status"], answer.data["attempt"]) == ("failed", 1)
    assert all(word in answer.data["error"] for word in ("no time left to wait", "the model is busy", *words))


def test_waiting_ends_a_day_after_it_began(client, job):
    put_off(client, job)
    job = again(client, job[0])
    db.write(lambda: db.run("UPDATE jobs SET deferred_since = :then WHERE :tenant", then=now(-86400 + 40)))
    assert put_off(client, job, retry_in_seconds=20).data["status"] == "delayed"
    failed_for_good(put_off(client, again(client, job[0]), retry_in_seconds=50), "put off 2 times since")


@pytest.mark.parametrize("until, fits", [
    (lambda: now(100), True), (lambda: now(20), False), (lambda: now()[:10], True), (lambda: "2999-01-01", True),
    (lambda: (datetime.now(UTC) - timedelta(seconds=2)).replace(tzinfo=None).isoformat(), True),  # over by the time it is first put off: it counts for nothing
    (lambda: (datetime.now(UTC) + timedelta(seconds=20)).astimezone().isoformat(), False)])
def test_waiting_ends_when_it_is_due(client, job, until, fits):
    answer = put_off(client, job, give_up_at=(last := until()))
    if fits and not (last == now()[:10] and seconds(now(30)) > seconds(f"{last}T23:59:59.999Z")):  # half a minute before midnight, today is too soon
        assert answer.data["status"] == "delayed"
    else:
        failed_for_good(answer)


def test_a_due_day_that_is_far_off_gives_more_than_a_day(client, job):
    put_off(client, job)
    job = again(client, job[0])
    db.write(lambda: db.run("UPDATE jobs SET deferred_since = :then WHERE :tenant", then=now(-5 * 86400)))
    assert put_off(client, job, give_up_at="2999-01-01").data["status"] == "delayed"


@pytest.mark.parametrize("sent, field", [
    ({"reason": None, "retry_in_seconds": 5}, "reason"), ({"reason": None, "give_up_at": "2026-01-01"}, "reason"), ({"give_up_at": "soon"}, "give_up_at"),
    ({"retry_in_seconds": -1}, "retry_in_seconds"), ({"retry_in_seconds": 1e9}, "retry_in_seconds"), ({"reason": ""}, "reason"), ({"until": 1}, "until")])
def test_what_cannot_be_meant_is_refused_by_name(client, job, sent, field):
    answer = put_off(client, job, **sent)
    assert answer.status == 400 and [detail["field"] for detail in answer.error["details"]] == [field]
    assert client.get(f"/task-queue/{job[0]}").data["status"] == "active"


# ── why ──


def test_a_silent_worker_is_told_of(client, job):
    assert client.get(f"/task-queue/{job[0]}").data["why"] == []
    db.write(lambda: db.run("UPDATE jobs SET claimed_at = :then, lease_expires_at = :soon WHERE :tenant", then=now(-41), soon=now(60 - 41)))
    why, = client.get("/task-queue").data[0]["why"]
    assert why["code"] == "worker_silent" and "Its worker w has not been heard of for 41 s" in why["sentence"]
    client.post(f"/task-queue/{job[0]}/heartbeat", {"lease_token": job[1]})
    assert client.get("/task-queue").data[0]["why"] == []


def test_why_is_asked_by_the_page(client, monkeypatch):
    """A list of many costs as many questions as a list of few."""
    client.post("/agents", {"name": "felix"})

    def asked(path):
        count, plain = [], type(db).all
        monkeypatch.setattr(type(db), "all", lambda self, *args, **more: count.append(1) or plain(self, *args, **more))
        found = client.get(path).data
        monkeypatch.setattr(type(db), "all", plain)
        return len(count), found
    numbers = []
    for more in range(2):
        for number in range(20):
            client.post("/tasks", {"title": f"{more} {number}", "assignee": "felix", "blocked_by": [1] if more or number else []})
        few, found = asked("/tasks?limit=100")
        jobs, listed = asked("/task-queue?limit=100")
        assert all(one["why"] for one in found[:-1]) and all(one["why"] for one in listed)
        numbers.append((few, jobs))
    assert numbers[0] == numbers[1]


def test_a_task_whose_job_was_cancelled_says_so_and_can_be_done_after_all(client):
    id = client.post("/tasks", {"title": "x", "assignee": "felix"}).data["id"]
    held = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    client.post(f"/task-queue/{held['id']}/cancel")
    task = client.get(f"/tasks/{id}").data
    assert (task["status"], [one["code"] for one in task["why"]]) == ("todo", ["cancelled"])
    again = client.patch(f"/tasks/{id}", {"status": "todo"}).data
    assert again["job_id"] not in (None, task["job_id"]) and client.get(f"/task-queue/{again['job_id']}").data["status"] == "waiting"


def test_a_finished_task_names_the_job_that_did_it(client):
    id = client.post("/tasks", {"title": "x", "assignee": "felix"}).data["id"]
    held = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"}).data
    client.post(f"/task-queue/{held['id']}/complete", {"lease_token": held["lease_token"], "result": {"resolution": "so"}})
    task = client.get(f"/tasks/{id}").data
    assert (task["status"], task["job_id"], task["why"]) == ("done", held["id"], [])
    back = client.patch(f"/tasks/{id}", {"status": "todo"}).data
    assert back["job_id"] not in (None, held["id"])


# ── once ──


def test_a_task_that_is_sent_twice_with_a_key_is_made_once(client):
    sent = lambda body: client.post("/tasks", body, headers={"Idempotency-Key": "k1"})  # noqa: E731
    first, second = sent({"title": "x", "dedupe": False}), sent({"title": "x", "dedupe": False})
    assert first.status == 201 and second.data == first.data and client.get("/tasks").meta["total"] == 1
    assert sent({"title": "y"}).status == 422


def test_who_is_answered_a_duplicate_is_told_why(client):
    for path, body in [("/tasks", {"title": "x"}), ("/task-queue/submit", {"task_type": "t", "idempotency_key": "k"})]:
        client.post(path, body)
        meta = client.post(path, body).meta
        assert meta["duplicate"] is True and "answered instead" in meta["message"]
