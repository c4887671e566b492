"""The queue's promises, in process: order, leases, attempts, idempotence, waiting."""
import threading
import time

import pytest
from conftest import CURSOR, Like, eventually

import orkosi
from orkosi import Conflict, acting, db, now, seconds, system
from plugins import once, queue, tenants
from plugins.queue import executor


def submitted(client, **fields):
    return client.post("/task-queue/submit", {"task_type": "t"} | fields)


def claimed(client, **fields):
    return client.post("/task-queue/claim", {"worker_id": "w"} | fields).data


@pytest.mark.parametrize("body, status", [
    ({"task_type": "index"}, 201),
    ({"task_type": "index", "payload": {"deep": [1, {"a": None}]}, "priority": -5}, 201),
    ({}, 400),
    ({"task_type": ""}, 400),
    ({"task_type": "index", "payload": []}, 400),
    ({"task_type": "index", "prioritty": 1}, 400),
    ({"task_type": "index", "timeout_seconds": 0}, 400),
    ({"task_type": "index", "max_attempts": 26}, 400),
    ({"task_type": "index", "queue_name": "../etc"}, 400),
    ({"task_type": "index", "queue_name": "x\n"}, 400),
    ({"task_type": "index", "tenant_id": 99}, 404),
    ({"task_type": "index", "payload": {"x": "y" * 300_000}}, 400),
])
def test_submitting(client, body, status):
    assert client.post("/task-queue/submit", body).status == status


def test_every_wrong_field_is_named(client):
    answer = client.post("/task-queue/submit", {"priority": "high", "max_attempts": 0, "colour": "red"})
    assert answer.status == 400 and answer.wrong == ["colour", "max_attempts", "priority", "task_type"]


def test_claiming_gives_a_lease_in_order(client):
    ids = [submitted(client, priority=priority).data["id"] for priority in (1, 0, 0, -1)]
    order = [claimed(client)["id"] for _ in range(4)]
    assert order == [ids[3], ids[1], ids[2], ids[0]]
    assert claimed(client) is None
    assert claimed(client, batch_size=10) is None


def test_a_batch_comes_in_order_and_as_a_list(client):
    ids = [submitted(client).data["id"] for _ in range(5)]
    jobs = claimed(client, batch_size=3)
    assert [job["id"] for job in jobs] == ids[:3]
    assert len({job["lease_token"] for job in jobs}) == 3 and jobs[0]["attempt"] == 1


def test_a_claim_may_ask_for_one_type(client):
    submitted(client, task_type="a")
    wanted = submitted(client, task_type="b").data["id"]
    assert claimed(client, task_type="b")["id"] == wanted
    assert claimed(client, task_type="b") is None


def test_a_repeat_with_the_same_key_is_the_first_job(client):
    first = submitted(client, idempotency_key="k", payload={"n": 1})
    again = submitted(client, idempotency_key="k", payload={"n": 2})
    assert (first.status, again.status, again.meta) == (201, 200, {"duplicate": True, "message": Like(".*answered.*")})
    assert again.data["id"] == first.data["id"] and again.data["payload"] == {"n": 1}
    assert submitted(client, idempotency_key="k", queue_name="other").status == 201


def test_completing_twice_changes_nothing(client):
    submitted(client)
    job = claimed(client)
    done = client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"ok": 1}})
    again = client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "result": {"ok": 2}})
    assert (done.status, again.status) == (200, 200)
    assert again.data["job"]["result"] == {"ok": 1} and again.data["next"] is None


def test_one_round_trip_a_job(client):
    first, second = submitted(client).data["id"], submitted(client).data["id"]
    job = claimed(client)
    answer = client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"], "claim_next": True})
    assert (job["id"], answer.data["next"]["id"]) == (first, second)


@pytest.mark.parametrize("verb, body", [("complete", {}), ("fail", {"error": "x"}), ("release", {}), ("heartbeat", {})])
def test_a_wrong_lease_token_is_409_and_changes_nothing(client, verb, body):
    submitted(client)
    job = claimed(client)
    answer = client.post(f"/task-queue/{job['id']}/{verb}", body | {"lease_token": "stolen"})
    assert (answer.status, answer.code) == (409, "lease_lost")
    assert client.get(f"/task-queue/{job['id']}").data["status"] == "active"


@pytest.mark.parametrize("id, status", [("job_999", 404), ("nonsense", 400), ("job_", 400), ("job_99999999999999999999", 400)])
def test_unknown_jobs(client, id, status):
    assert client.get(f"/task-queue/{id}").status == status


def test_failing_backs_off_exponentially_and_then_dies(client):
    submitted(client, max_attempts=3)
    pauses = []
    for _ in range(3):
        job = claimed(client)
        failed = client.post(f"/task-queue/{job['id']}/fail", {"lease_token": job["lease_token"], "error": "boom"}).data
        if failed["run_at"]:
            pauses.append(round(orkosi.seconds(failed["run_at"]) - time.time()))
            db.write(lambda: db.run("UPDATE jobs SET run_at = :now", now=now(-1)))
            executor.promote_due()
    assert pauses == [5, 10] and failed["status"] == "dead" and failed["error"] == "boom"
    assert client.get(f"/task-queue/{job['id']}").data["why"][0]["code"] == "attempts_exhausted"
    assert client.post("/task-queue/retry", {"queue_name": "default"}).data == {"retried": 1}
    assert claimed(client)["attempt"] == 1


def test_not_retryable_is_final(client):
    submitted(client)
    job = claimed(client)
    answer = client.post(f"/task-queue/{job['id']}/fail", {"lease_token": job["lease_token"], "error": "no", "retryable": False})
    assert answer.data["status"] == "failed"


def test_releasing_costs_no_attempt(client):
    submitted(client)
    job = claimed(client)
    assert client.post(f"/task-queue/{job['id']}/release", {"lease_token": job["lease_token"]}).data["attempt"] == 0
    assert claimed(client)["attempt"] == 1


def test_an_expired_lease_is_taken_back_and_the_stale_worker_is_refused(client):
    submitted(client, timeout_seconds=1)
    stale = claimed(client)
    db.write(lambda: db.run("UPDATE jobs SET lease_expires_at = :now", now=now(-1)))
    executor.rescue()
    fresh = claimed(client)
    assert (fresh["id"], fresh["attempt"]) == (stale["id"], 2)
    assert client.post(f"/task-queue/{stale['id']}/complete", {"lease_token": stale["lease_token"]}).status == 409
    assert client.post(f"/task-queue/{fresh['id']}/complete", {"lease_token": fresh["lease_token"]}).status == 200


def test_a_sleep_of_the_machine_costs_no_lease(client, monkeypatch):
    """Clocks that go ahead by an hour between two looks of the sweeper, while one job has 300 s left, and another's were over before."""
    ids = [client.post("/task-queue/submit", {"task_type": name, "timeout_seconds": lease}).data["id"] for name, lease in (("a", 300), ("b", 300))]
    for _ in ids:
        assert client.post("/task-queue/claim", {"worker_id": "w"}).status == 200
    over = now(-1)
    db.write(lambda: db.run("UPDATE jobs SET lease_expires_at = :over WHERE id = :id", over=over, id=queue.id_of(ids[1])))
    before = client.get(f"/task-queue/{ids[0]}").data["lease_expires_at"]
    clocks, real = executor.Clocks(), time.time
    assert clocks.jumped() == 0.0
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    jump = clocks.jumped()
    assert 3595 < jump < 3605
    assert executor.lengthen(jump, clocks.before) == 1
    executor.rescue()
    assert clocks.jumped() == 0.0
    monkeypatch.undo()  # the session would be over
    first, second = (client.get(f"/task-queue/{id}").data for id in ids)
    assert first["status"] == "active" and abs(seconds(first["lease_expires_at"]) - seconds(before) - 3600) < 5
    assert second["status"] == "waiting" and second["attempt"] == 1


@pytest.mark.parametrize("server", ["runs", "is started anew"])
def test_a_clock_that_is_set_back_strands_nothing(client, monkeypatch, server):
    """It was a day ahead; what was counted from then is as long as it was to be, and what was counted before stays."""
    real, day = time.time, 86400
    with acting(system()):
        before, _ = queue.submit("q", "delayed before", delay=3 * day)
        held = queue.claim("q", "w")
        monkeypatch.setattr(time, "time", lambda: real() + day)
        clocks = executor.Clocks()
        ids = {name: queue.submit("q", name, delay=60 if name == "delayed" else 0)[0].id for name in ("leased", "retried", "put off", "delayed")}
        jobs = {job.task_type: job for job in queue.claim("q", "w", batch=9)}
        queue.fail(ids["retried"], jobs["retried"].lease_token, "no", retry_in=40)
        queue.put_off(ids["put off"], jobs["put off"].lease_token, "busy", after=50)
        executor._running[ids["leased"]] = jobs["leased"]  # as if a hand of the server had it
        monkeypatch.setattr(time, "time", real)
        fresh, _ = queue.submit("right", "t")
        queue.claim("right", "w")  # by the right clock, before anybody has looked
        try:
            if server == "runs":
                jump = clocks.jumped()
                assert -day - 5 < jump < -day + 5
                for tell in executor._clock_ears:
                    tell(jump)
            else:
                for _ in range(2):
                    executor.began("opened", None)
            found = {name: queue.find(id) for name, id in ids.items()}
            ahead = {name: round(seconds(job.lease_expires_at or job.run_at) - time.time()) for name, job in found.items()}
            assert all(abs(ahead[name] - wait) < 5 for name, wait in (("leased", 300), ("retried", 40), ("put off", 50), ("delayed", 60))), ahead
            assert abs(seconds(queue.find(fresh.id).lease_expires_at) - time.time() - 300) < 5
            assert abs(seconds(queue.find(before.id).run_at) - time.time() - 3 * day) < 5 and not held
            if server == "runs":  # whoever keeps it alive goes by the new clock, too
                db.write(lambda: db.run("UPDATE jobs SET lease_expires_at = :soon WHERE state = 'active'", soon=now(1)))
                executor._extend_own()
                assert seconds(queue.find(ids["leased"]).lease_expires_at) - time.time() > 290
        finally:
            executor._running.clear()


def test_leases_that_keep_running_out_end_in_dead(client):
    submitted(client, max_attempts=1)
    job = claimed(client)
    db.write(lambda: db.run("UPDATE jobs SET lease_expires_at = :now", now=now(-1)))
    executor.rescue()
    found = client.get(f"/task-queue/{job['id']}").data
    assert found["status"] == "dead" and "lease" in found["error"]


def test_a_heartbeat_only_extends(client):
    submitted(client, timeout_seconds=100)
    job = claimed(client)
    beat = client.post(f"/task-queue/{job['id']}/heartbeat", {"lease_token": job["lease_token"], "extend_seconds": 1, "progress": {"at": 5}})
    assert beat.data == {"cancel": False, "pause": False, "lease_expires_at": job["lease_expires_at"]}
    later = client.post(f"/task-queue/{job['id']}/heartbeat", {"lease_token": job["lease_token"], "extend_seconds": 500})
    assert later.data["lease_expires_at"] > job["lease_expires_at"]
    assert client.get(f"/task-queue/{job['id']}").data["progress"] == {"at": 5}


def test_a_cancelled_job_tells_its_worker(client):
    submitted(client)
    job = claimed(client)
    assert client.post(f"/task-queue/{job['id']}/cancel").data["status"] == "cancelled"
    assert client.post(f"/task-queue/{job['id']}/heartbeat", {"lease_token": job["lease_token"]}).data["cancel"] is True
    assert client.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]}).status == 409
    assert client.post(f"/task-queue/{job['id']}/cancel").status == 409


def test_a_paused_queue_gives_nothing_and_says_why(client):
    job = submitted(client, queue_name="q").data
    queue.pause("q")
    assert claimed(client, queue_name="q") is None
    assert client.get(f"/task-queue/{job['id']}").data["why"][0]["code"] == "queue_paused"
    queue.resume("q")
    assert claimed(client, queue_name="q")["id"] == job["id"]


def test_a_long_poll_wakes_when_a_job_comes(client):
    got = []
    waiter = threading.Thread(target=lambda: got.append((claimed(client, wait_seconds=10), time.monotonic())))
    waiter.start()
    eventually(lambda: queue.waiting._sleepers)
    sent = time.monotonic()
    job = submitted(client).data
    waiter.join()
    assert got[0][0]["id"] == job["id"] and got[0][1] - sent < 0.5
    assert not queue.waiting._sleepers


def test_eight_workers_share_without_doubling(data):
    def work(found):
        with acting(system()):
            while jobs := queue.claim("q", "w", batch=3):
                for job in jobs:
                    queue.complete(job.id, job.lease_token)
                    found.append(job.id)
    ids = [queue.submit("q", "t")[0].id for _ in range(200)]
    found = []
    workers = [threading.Thread(target=work, args=(found,)) for _ in range(8)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert sorted(found) == ids


def test_listing_and_counting(client):
    for number in range(5):
        submitted(client, queue_name="a" if number % 2 else "b", task_type=f"t{number % 2}")
    claimed(client, queue_name="a")
    assert client.get("/task-queue?queue_name=a&limit=1").meta == {"total": 2, "limit": 1, "offset": 0, "has_more": True, "next_after": Like(CURSOR)}
    assert [job["status"] for job in client.get("/task-queue?status=active").data] == ["active"]
    assert len(client.get("/task-queue?task_type=t0").data) == 3
    counts = {one["queue_name"]: one["counts"] for one in client.get("/task-queue/stats").data}
    assert counts["a"]["active"] == 1 and counts["a"]["waiting"] == 1 and counts["b"]["waiting"] == 3
    assert client.get("/task-queue?statsu=active").status == 400


def test_held_jobs_wait_until_let_go(data):
    job, _ = queue.submit("q", "t", held_for="Waits for task 7")
    assert queue.claim("q", "w") == [] and queue.why(queue.find(job.id))[0].sentence == "Waits for task 7"
    queue.unhold(job.id)
    assert queue.claim("q", "w")[0].id == job.id


def test_the_servers_own_jobs_run_and_a_failed_one_is_tried_again(data, monkeypatch):
    seen = []

    def greet(payload: dict) -> None:
        seen.append(payload)
        if len(seen) == 1:
            raise ValueError("not today")
    monkeypatch.setitem(queue.plugin.jobs, "test.greet", greet)
    job = executor.later("test.greet", {"name": "ann"})
    executor.run(queue.claim(executor.OWN, "w")[0])
    assert queue.find(job.id).state == "delayed" and "ValueError" in queue.find(job.id).error
    db.write(lambda: db.run("UPDATE jobs SET run_at = :now", now=now(-1)))
    executor.promote_due()
    executor.run(queue.claim(executor.OWN, "w")[0])
    assert queue.find(job.id).state == "completed" and seen == [{"name": "ann"}] * 2


def test_finished_jobs_are_pruned_when_their_time_is_over(data):
    for age in (8, 1):
        job, _ = queue.submit("q", "t")
        held = queue.claim("q", "w")[0]
        queue.complete(held.id, held.lease_token)
        db.write(lambda age=age, job=job: db.run("UPDATE jobs SET finished_at = :at WHERE id = :id", at=now(-age * 86400), id=job.id))
    executor.prune()
    assert db.value("SELECT count(*) FROM jobs") == 1


def test_a_failed_verb_undoes_itself_alone(data):
    from orkosi import writes

    @writes
    def half():
        queue.submit("q", "t")
        raise Conflict("changed my mind")
    with pytest.raises(Conflict):
        half()
    assert queue.claim("q", "w") == []


def test_a_write_that_fails_in_a_shared_commit_fails_alone(data):
    """Many writers at once, every third of which fails: the others hold, exactly once."""
    from orkosi import writes

    @writes
    def perhaps(number):
        job, _ = queue.submit("q", "t", {"n": number})
        if number % 3 == 0:
            raise Conflict(f"no {number}")
        return job.id
    made, refused, lock = {}, [], threading.Lock()

    def work(start):
        with acting(system()):
            for number in range(start, start + 50):
                try:
                    id = perhaps(number)
                    with lock:
                        made[number] = id
                except Conflict as problem:
                    refused.append(problem.message)
    workers = [threading.Thread(target=work, args=(at * 50,)) for at in range(8)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    rows = {job.payload["n"]: job.id for job in db.all(queue.Job, "SELECT * FROM jobs")}
    assert rows == made and sorted(refused) == sorted(f"no {number}" for number in range(0, 400, 3))


# ── who waits, and who is woken ──


def sleepers(count):
    eventually(lambda: sum(map(len, queue.waiting._sleepers.values())) == count)


def waiting_clients(client, count, **fields):
    """That many claims that wait, one after the other; what each got, by its place."""
    got, threads = {}, []
    for place in range(count):
        threads.append(threading.Thread(target=lambda place=place: got.__setitem__(place, claimed(client, wait_seconds=6, **fields))))
        threads[-1].start()
        sleepers(place + 1)
    return got, threads


@pytest.mark.slow
def test_as_many_wake_as_there_are_jobs_and_the_oldest_first(client, monkeypatch):
    claims = []
    monkeypatch.setattr(queue.waiting, "claim", lambda *args, **more: claims.append(args) or queue.claim(*args, **more))
    got, threads = waiting_clients(client, 6)
    before = len(claims)
    jobs = [submitted(client).data["id"] for _ in range(3)]
    eventually(lambda: len(got) == 3)
    assert sorted(got) == [0, 1, 2] and sorted(one["id"] for one in got.values()) == sorted(jobs)
    queue.waiting.rouse_all()
    time.sleep(1.2)  # in which nobody else wakes
    assert len(claims) - before == 3, "the others slept on"
    jobs += [submitted(client).data["id"] for _ in range(3)]
    for thread in threads:
        thread.join()
    assert sorted(one["id"] for one in got.values()) == sorted(jobs) and not queue.waiting._sleepers


def test_only_who_takes_such_a_job_is_woken(client):
    got, threads = waiting_clients(client, 2, task_type="a")
    more, others = {}, threading.Thread(target=lambda: more.update(job=claimed(client, wait_seconds=6)))
    others.start()
    sleepers(3)
    b = submitted(client, task_type="b").data["id"]
    others.join(2)
    assert more["job"]["id"] == b and not got
    a = [submitted(client, task_type="a").data["id"] for _ in range(2)]
    for thread in threads:
        thread.join()
    assert sorted(one["id"] for one in got.values()) == sorted(a)


def test_who_is_woken_in_vain_wakes_the_next(client, data):
    """The first one's client is gone when the job comes: the second gets it at once, at attempt 1."""
    rung = threading.Event()
    with acting(system()), pytest.raises(queue.waiting.Parked) as first:
        queue.waiting.claim_or_wait("q", "w1", wait=6, ring=rung.set)
    sleepers(1)
    got, threads = {}, []
    threads.append(threading.Thread(target=lambda: got.update(job=claimed(client, queue_name="q", wait_seconds=6))))
    threads[0].start()
    sleepers(2)
    began = time.monotonic()
    submitted(client, queue_name="q")
    assert rung.is_set() and not got
    first.value.leave()
    threads[0].join()
    assert got["job"]["attempt"] == 1 and time.monotonic() - began < 1


def test_what_another_process_submitted_wakes_as_many_as_it_brought(client):
    got, threads = waiting_clients(client, 3)
    with acting(system()):
        for _ in range(2):
            db.write(lambda: db.run("""INSERT INTO jobs (tenant_id, queue, task_type, state, created_at)
                                       VALUES (:tenant, 'default', 't', 'waiting', :now)""", now=now()))
    queue.waiting.rouse_all()
    eventually(lambda: len(got) == 2)
    assert sorted(got) == [0, 1]
    submitted(client)
    for thread in threads:
        thread.join()


def test_claims_of_one_tenant_wait_up_to_a_number(client, as_):
    from orkosi import settings
    settings.values["tenant_waiting"] = 2
    near, far = as_("near", tenant=None), as_("far", tenant=None)
    got, threads = waiting_clients(near, 2)
    began = time.monotonic()
    assert claimed(near, wait_seconds=5) is None and time.monotonic() - began < 1
    far.post("/task-queue/submit", {"task_type": "t", "queue_name": "q", "delay_seconds": 0.2})
    others = {}
    found = [threading.Thread(target=lambda: others.update(far=claimed(far, queue_name="q", wait_seconds=5))),
             *(threading.Thread(target=lambda at=at: others.update({at: claimed(client, wait_seconds=5)})) for at in range(3))]
    for one in found:
        one.start()
    sleepers(6)
    eventually(lambda: executor.promote_due() or not db.value("SELECT count(*) FROM jobs WHERE state = 'delayed'"))
    for _ in range(3):
        submitted(client)
    for one in found:
        one.join()
    assert others.pop("far"), "another tenant has places of its own"
    assert all(others.values()), "and the host has no limit"
    for _ in range(2):
        submitted(near)
    for thread in threads:
        thread.join()


def test_a_batch_ends_at_four_megabytes(client):
    for _ in range(40):
        submitted(client, payload={"text": "x" * 250_000})
    jobs = claimed(client, batch_size=100)
    assert len(jobs) == 16 and sum(len(job["payload"]["text"]) for job in jobs) <= 4 << 20
    assert len(claimed(client, batch_size=17)) == 16 and len(claimed(client, batch_size=3)) == 3


# ── the server's own queue, and those of agents ──


def test_nobody_names_the_servers_own_queue(client, key_for, as_, anonymous, data):
    """Whoever could claim there would take the letters, and with them the links to new passwords."""
    as_("ann")
    anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    worker = key_for("queue:work", "queue:submit")
    secret, = db.all(dict, "SELECT * FROM jobs WHERE queue = 'orkosi'")
    for who in (client, worker):
        for path, body in (("submit", {"task_type": "mail.send"}), ("claim", {"worker_id": "w"}), ("claim", {"worker_id": "w", "batch_size": 5, "wait_seconds": 1})):
            refused = who.post(f"/task-queue/{path}", body | {"queue_name": "orkosi"})
            assert refused.status == 400 and refused.wrong == ["queue_name"]
        for verb, body in (("complete", {"lease_token": "x"}), ("fail", {"lease_token": "x", "error": "x"}), ("heartbeat", {"lease_token": "x"}),
                           ("release", {"lease_token": "x"}), ("retry", None), ("cancel", None)):
            assert who.post(f"/task-queue/job_{secret['id']}/{verb}", body).status in (403, 404), verb
        assert who.get(f"/task-queue/job_{secret['id']}").status == 404
        assert who.get("/task-queue?queue_name=orkosi").status == who.get("/task-queue/stats?queue_name=orkosi").status == 400
        assert who.get("/task-queue").data == [] and who.get("/task-queue").meta["total"] == 0 and who.get("/task-queue/stats").data == []
        for state in ("waiting", "delayed", "active", "completed", "failed", "cancelled", "dead"):
            assert who.get(f"/task-queue?status={state}").data == []
    assert client.post("/task-queue/retry", {"queue_name": "orkosi"}).status == 400
    assert db.one(dict, "SELECT state FROM jobs WHERE id = :id", id=secret["id"])["state"] == "waiting"
    with acting(system()):
        executor.run(queue.claim(executor.OWN, "test")[0])
    assert db.value("SELECT state FROM jobs WHERE id = :id", id=secret["id"]) == "completed", "the server itself works on"


def test_an_agents_key_sees_and_moves_the_jobs_of_its_queue_alone(client, application):
    from conftest import Client

    from plugins import keys
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    own, other = submitted(client, queue_name="agent:felix").data["id"], submitted(client, queue_name="agent:ada").data["id"]
    shop = submitted(client, queue_name="shop").data["id"]
    lease = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "shop"}).data["lease_token"]
    assert [one["id"] for one in felix.get("/task-queue").data] == [own] and felix.get("/task-queue").meta["total"] == 1
    assert [one["queue_name"] for one in felix.get("/task-queue/stats").data] == ["agent:felix"]
    assert felix.get("/task-queue?queue_name=shop").status == felix.get("/task-queue/stats?queue_name=shop").status == 403
    assert felix.get("/task-queue?status=active").data == []
    for id in (other, shop):
        assert felix.get(f"/task-queue/{id}").status == 404
        for verb, body in (("complete", {}), ("fail", {"error": "x"}), ("heartbeat", {}), ("release", {})):
            assert felix.post(f"/task-queue/{id}/{verb}", {"lease_token": lease} | body).status == 404
    job = felix.post("/task-queue/claim", {"worker_id": "felix", "queue_name": "agent:felix"}).data
    assert felix.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]}).status == 200


# ── shares ──


def weighed(tenant):
    """What a tenant has, counted row by row in plain Python."""
    columns = {"jobs": ("payload", "result"), "tasks": ("description", "resolution"), "files": ("content",), "activity": ("metadata",),
               "notifications": ("message",), "agent_templates": ("identity", "config"), "products": ("description",), "teams": ("description",),
               "schedules": ("payload",), "public_answers": ("body",)}
    rows = {name: [row for row in db.all(dict, f"SELECT * FROM {name}") if row["tenant_id"] == tenant] for name in columns}
    total = sum(200 + sum(len((row[column] or "").encode()) for column in columns[name]) for name, found in rows.items() for row in found)
    return len(rows["jobs"]), total


def test_what_a_tenant_has_is_known_to_the_byte(client, as_):
    far = as_("far", tenant=None)
    tenant = far.get("/auth/me").data["tenant"]
    for one in (client, far):
        job = submitted(one, payload={"text": "ünï" * 50}).data["id"]
        lease = claimed(one)["lease_token"]
        one.post(f"/task-queue/{job}/complete", {"lease_token": lease, "result": {"deep": ["x" * 300]}})
        task = one.post("/tasks", {"title": "a", "description": "d" * 100, "assignee": "felix"}).data["id"]
        one.patch(f"/tasks/{task}", {"description": "é" * 77, "resolution": "done so"})
        one.post("/files", {"name": "a.md", "path": "a.md", "content": "c" * 999})
        one.post("/files", {"name": "a.md", "path": "a.md", "content": "c" * 9})
        one.post("/notifications", {"title": "t", "message": "m" * 50})
        one.post("/v1/public/templates", {"name": "t", "slug": "t", "identity": "i" * 40, "config": {"a": 1}})
        one.post("/products", {"name": "Ü", "description": "ä" * 70}), one.patch("/products/u", {"description": "ö" * 60}), one.post("/products", {"name": "b"})
        team = one.post("/teams", {"name": "t", "description": "x" * 50}).data["id"]
        one.patch(f"/teams/{team}", {"description": "ü"})
        plan = {"name": "s", "queue_name": "q", "every_ms": 3_600_000}
        ids = [one.post("/schedules", plan | {"name": name, "payload": {"a": "ä" * 30}}).data["id"] for name in "st"]
        one.patch(f"/schedules/{ids[0]}", {"payload": {"a": "ö" * 70}}), one.delete(f"/schedules/{ids[1]}")
        assert one.post("/tasks", {"title": "once", "description": "ö" * 90}, headers={"Idempotency-Key": "k"}).status == 201
    db.write(lambda: db.run("UPDATE public_answers SET created_at = '2026-01-01T00:00:00.000Z'"))  # as if they were of another day
    assert far.post("/tasks", {"title": "twice"}, headers={"Idempotency-Key": "k"}).status == 201
    assert client.delete(f"/tasks/{client.get('/tasks').data[0]['id']}").status == 200
    for one in (1, tenant):
        has = db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = :one", one=one)
        assert has == weighed(one) and has[1] > 2000
    executor._prune("completed", now(10))
    assert db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = 1") == weighed(1)
    once.forget()
    assert db.all(tuple, "SELECT tenant_id FROM public_answers") == [(tenant,)]
    assert db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = 1") == weighed(1)


@pytest.mark.parametrize("limit, path, body", [
    ("tenant_jobs", "/task-queue/submit", {"task_type": "t"}), ("tenant_bytes", "/task-queue/submit", {"task_type": "t", "payload": {"x": "y" * 900}}),
    ("tenant_bytes", "/tasks", {"title": "big", "description": "y" * 900}), ("tenant_bytes", "/files", {"name": "a", "path": "a", "content": "y" * 900}),
    ("tenant_bytes", "/activity-log", {"actor_type": "user", "actor_id": "1", "action": "x", "metadata": {"x": "y" * 900}}),
    ("tenant_bytes", "/notifications", {"title": "t", "message": "y" * 900}),
    ("tenant_bytes", "/v1/public/templates", {"name": "t", "slug": "t", "identity": "y" * 900}),
    ("tenant_bytes", "/products", {"name": "p", "description": "y" * 900}), ("tenant_bytes", "/teams", {"name": "t", "description": "y" * 900}),
    ("tenant_bytes", "/schedules", {"name": "s", "queue_name": "q", "every_ms": 3_600_000, "payload": {"x": "y" * 900}})])
def test_a_tenant_that_used_its_share_is_told_which(client, as_, limit, path, body):
    from orkosi import settings
    far = as_("far", tenant=None)
    jobs, used = db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = :id", id=far.get("/auth/me").data["tenant"])
    settings.values |= {"tenant_jobs": 2, "tenant_bytes": used + 800}
    for _ in range(2):
        assert limit == "tenant_bytes" or submitted(far).status == 201
    refused = far.post(path, body)
    assert (refused.status, refused.code) == (507, "share_used") and limit in refused.error["message"] and refused.wrong == [limit]
    assert client.post(path, body).status in (200, 201), "others, and the host, have room"
    settings.values |= {"tenant_jobs": 100, "tenant_bytes": 1 << 30}
    assert far.post(path, body).status == 201


def test_what_grows_no_larger_goes_though_the_share_is_used(as_):
    from orkosi import settings
    far = as_("far", tenant=None)
    task = far.post("/tasks", {"title": "big", "description": "é" * 500}).data["id"]
    far.post("/files", {"name": "a", "path": "a", "content": "y" * 900})
    template = far.post("/v1/public/templates", {"name": "t", "slug": "t", "identity": "y" * 900}).data["id"]
    settings.values["tenant_bytes"] = 1
    doors = ((far.patch, f"/tasks/{task}", lambda text: {"description": text}, 1000), (far.post, "/files", lambda text: {"name": "a", "path": "a", "content": text}, 900),
             (far.patch, f"/v1/public/templates/{template}", lambda text: {"identity": text}, 900))
    for ask, path, body, length in doors:
        assert ask(path, body("y" * (length + 1))).status == 507, path
        assert ask(path, body("y" * length)).status in (200, 201) and ask(path, body("y" * 10)).status in (200, 201), path


def test_an_answer_that_is_kept_needs_room_as_well(as_):
    from orkosi import settings
    far = as_("far", tenant=None)
    body = {"title": "one", "description": "é" * 2000}
    assert far.post("/tasks", body).status == 201
    settings.values["tenant_bytes"] = 3000 + db.value("SELECT bytes FROM tenant_shares WHERE tenant_id <> 1")
    refused = far.post("/tasks", body, headers={"Idempotency-Key": "k"})
    assert (refused.status, refused.code) == (507, "share_used") and far.post("/tasks", body).status == 200
    settings.values["tenant_bytes"] += 3000
    assert [far.post("/tasks", body, headers={"Idempotency-Key": "k"}).status for _ in range(3)] == [200] * 3, "the same answer weighs once"
    assert far.post("/tasks", body, headers={"Idempotency-Key": "another"}).status == 507


def test_a_result_too_large_for_the_share_leaves_the_lease(as_):
    from orkosi import settings
    far = as_("far", tenant=None)
    submitted(far)
    job = claimed(far)
    used = db.value("SELECT bytes FROM tenant_shares WHERE tenant_id = :id", id=far.get("/auth/me").data["tenant"])
    settings.values["tenant_bytes"] = used + 500
    path = f"/task-queue/{job['id']}/complete"
    assert far.post(path, {"lease_token": job["lease_token"], "result": "x" * 900}).status == 507
    assert far.get(f"/task-queue/{job['id']}").data["status"] == "active"
    assert far.post(path, {"lease_token": job["lease_token"], "result": "small"}).status == 200


# ── a hundred at once ──


def test_several_are_completed_at_once_and_each_has_its_own_outcome(client, as_):
    ids = [submitted(client, payload={"n": number}).data["id"] for number in range(6)]
    far = as_("far", tenant=None)
    alien = far.post("/task-queue/submit", {"task_type": "t"}).data["id"]
    held = {job["id"]: job["lease_token"] for job in claimed(client, batch_size=5)}
    stale = claimed(client)
    assert stale["id"] == ids[5] and client.post(f"/task-queue/{ids[5]}/release", {"lease_token": stale["lease_token"]}).status == 200
    sent = [{"id": ids[0], "lease_token": held[ids[0]], "result": {"ok": True}}, {"id": ids[1], "lease_token": "another's"},
            {"id": ids[5], "lease_token": stale["lease_token"]}, {"id": ids[2], "lease_token": held[ids[2]]}, {"id": alien, "lease_token": "x"},
            {"id": ids[0].removeprefix("job_"), "lease_token": held[ids[0]], "result": "again"}, {"id": "job_999", "lease_token": "x"}]
    answer = client.post("/task-queue/complete", {"jobs": sent})
    assert answer.status == 200
    assert [(one["id"], one["completed"], one["error"] and one["error"]["code"]) for one in answer.data] == [
        (ids[0], True, None), (ids[1], False, "lease_lost"), (ids[5], False, "lease_lost"), (ids[2], True, None), (alien, False, "not_found"),
        (ids[0], True, None), ("job_999", False, "not_found")]
    rows = {f"job_{id}": (state, result, finished) for id, state, result, finished in db.all(
        tuple, "SELECT id, state, result, finished_at FROM jobs WHERE tenant_id = :tenant OR 1")}
    assert rows[ids[0]][:2] == ("completed", '{"ok":true}') and rows[ids[2]][:2] == ("completed", None) and rows[ids[0]][2] and rows[ids[2]][2]
    assert [rows[id][0] for id in (ids[1], ids[3], ids[5], alien)] == ["active", "active", "waiting", "waiting"]
    assert client.post("/task-queue/complete", {"jobs": sent}).data == answer.data, "again changes nothing"


def test_completing_several_refuses_what_is_no_list_of_completions(client):
    for jobs in ([], [{"id": "x", "lease_token": "y"}], [{"id": "job_1"}], [{"id": "job_1", "lease_token": "y"}] * 101, [{"id": "job_1", "lease_token": "y", "more": 1}]):
        answer = client.post("/task-queue/complete", {"jobs": jobs})
        assert answer.status == 400 and answer.json["error"]["details"][0]["field"].startswith("jobs"), answer.json


def test_completing_several_moves_the_tasks_behind_them(client):
    titles = ["One", "Two"]
    made = [client.post("/tasks", {"title": title, "assignee": "felix"}).data for title in titles]
    held = claimed(client, queue_name="agent:felix", batch_size=2)
    assert {client.get(f"/tasks/{one['id']}").data["status"] for one in made} == {"in_progress"}
    client.post("/task-queue/complete", {"jobs": [{"id": job["id"], "lease_token": job["lease_token"], "result": {"resolution": f"Did {job['payload']['task_id']}"}}
                                                  for job in held]})
    found = [client.get(f"/tasks/{one['id']}").data for one in made]
    assert [(task["status"], task["resolution"]) for task in found] == [("done", f"Did {task['id']}") for task in made]


@pytest.mark.parametrize("count", [3, 40])
def test_a_bulk_completes_what_it_names_and_nothing_else(data, count):
    with acting(system()):
        for number in range(count + 2):
            queue.submit("bulk", "t", {"n": number})
        jobs = queue.claim("bulk", "w", batch=count + 1)
        outcomes = queue.complete_many([(job.id, job.lease_token, {"n": at} if at % 3 == 0 else None) for at, job in enumerate(jobs[:count])])
        rows = db.all(dict, "SELECT id, state, result, finished_at, lease_expires_at FROM jobs WHERE queue = 'bulk' AND tenant_id = :tenant ORDER BY id")
    assert [job.id for job in outcomes] == [row["id"] for row in rows[:count]]
    assert [row["state"] for row in rows] == ["completed"] * count + ["active", "waiting"]
    assert [row["result"] for row in rows] == [f'{{"n":{at}}}' if at < count and at % 3 == 0 else None for at in range(count + 2)]
    assert all(bool(row["finished_at"]) != bool(row["lease_expires_at"]) for row in rows[:-1])


def test_a_submission_that_fails_among_others_leaves_nothing_of_its_own(data, monkeypatch):
    """It has no savepoint: what is refused must have written nothing, and the others of its commit hold."""
    with acting(system()):
        tenants.found("far")
    monkeypatch.setitem(orkosi.settings.values, "tenant_jobs", 20)
    outcomes = []

    def call(number):
        with acting(system(2)):
            try:
                outcomes.append(queue.submit("q", "t", {"n": number}).__class__)
            except orkosi.Problem as problem:
                outcomes.append(type(problem).__name__)
    crew = [threading.Thread(target=call, args=(number,)) for number in range(60)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    assert outcomes.count("ShareUsed") == 40 and len(outcomes) == 60
    with acting(system(2)):
        assert db.value("SELECT count(*) FROM jobs WHERE tenant_id = :tenant") == 20
        assert db.value("SELECT jobs FROM tenant_shares WHERE tenant_id = :tenant") == 20


def test_a_server_that_stops_waits_for_none_of_its_own_hands(data, monkeypatch):
    monkeypatch.setattr(executor, "next_due", lambda: 60.0)
    monkeypatch.setattr(queue.waiting, "GLANCE", 60.0)
    hands = [threading.Thread(target=executor.sweep, args=(orkosi.stopping,), daemon=True),
             *(threading.Thread(target=executor._hand, args=(orkosi.stopping, name, name), daemon=True) for name in queue.OWNS)]
    try:
        for hand in hands:
            hand.start()
        assert eventually(lambda: set(queue.waiting._sleepers) == {(1, name) for name in queue.OWNS})
        orkosi.stopping.set()
        orkosi.emit("stopping", data)
        for hand in hands:
            hand.join(20)
        assert not any(hand.is_alive() for hand in hands) and not queue.waiting._sleepers
    finally:
        orkosi.stopping.clear()
