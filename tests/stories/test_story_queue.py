"""Stories of the queue: jobs stored as they are, and each step that somebody takes with one."""
import json
import threading
import time

import pytest
from conftest import Client, Like, db, listed, put

from orkosi import acting, now, seconds, system
from plugins import keys, queue

OLD, OLDER, AHEAD = "2026-11-03T10:00:00.000Z", "2026-11-02T10:00:00.000Z", "2099-01-01T00:00:00.000Z"
STATES = {"waiting": {}, "delayed": {"run_at": AHEAD}, "active": {"lease_expires_at": AHEAD}, "completed": {"finished_at": OLD}, "failed": {"finished_at": OLD},
          "cancelled": {"finished_at": OLD}, "dead": {"finished_at": OLD}}


def stored(id, home=1, *, token="tok", **fields):
    """A job as it is stored, and as operators see it."""
    shown = {"task_type": "index", "queue_name": "default", "status": "waiting", "payload": {"x": [1]}, "priority": 5, "attempt": 1, "max_attempts": 3,
             "timeout_seconds": 300, "idempotency_key": f"key {id}", "run_at": None, "lease_expires_at": None, "worker_id": "w", "progress": {"done": 2},
             "result": None, "error": "exit 1", "tokens_used": 7, "deferrals": 0, "created_at": OLDER, "claimed_at": OLD, "finished_at": None}
    shown |= STATES[fields.get("status", "waiting")] | fields
    row = {name: json.dumps(value) if name in ("progress", "result") and value is not None else value
           for name, value in shown.items() if name not in ("queue_name", "status")}
    put("jobs", id=id, tenant_id=home, queue=shown["queue_name"], state=shown["status"], lease_token=token, **row)
    return {"id": f"job_{id}"} | shown | {"why": None}


def claims(job, lately, worker="w2"):
    """What a worker is given of a job, and the job as it is from then on."""
    leased = {name: job[name] for name in ("id", "task_type", "queue_name", "payload", "priority", "max_attempts", "timeout_seconds")}
    ends = {"attempt": job["attempt"] + 1, "lease_expires_at": lately(job["timeout_seconds"])}
    return leased | ends | {"lease_token": Like("[0-9a-f]{32}")}, job | ends | {"status": "active", "worker_id": worker, "claimed_at": lately, "progress": None}


def reasoned(job):
    """A job as a list shows it: with why it is not running."""
    code, sentence = {"waiting": ("no_worker", Like("No worker has claimed from .*")), "dead": ("attempts_exhausted", Like("All 3 attempts failed; .*")),
                      "delayed": ("delayed", Like("Delayed until .*")), "failed": ("not_retryable", Like("It was not to be tried again: exit 1")),
                      "cancelled": ("cancelled", "It was cancelled; retry it to run it after all")}.get(job["status"], (None, None))
    return job | {"why": [{"code": code, "sentence": sentence}] if code else []}


def look(client, *ids):
    """These jobs as they are now; without why they wait, which is told of one at a time."""
    return [client.get(f"/task-queue/{id}").data | {"why": None} for id in ids]


# ── seeing ──


@pytest.mark.story("GET /api/task-queue", "GET /api/task-queue/{id}")
def test_jobs_are_listed_newest_first_and_each_state_in_its_order(client, application):
    queue._polled.clear()
    one, two = stored(1, priority=9), stored(2, priority=-1, task_type="other", result=None, error=None)
    three, four = stored(3, status="completed", result={"ok": True}, finished_at=OLDER), stored(4, status="completed", payload={}, result="text")
    five = stored(5, status="active", queue_name="agent:felix", lease_expires_at="2098-01-01T00:00:00.000Z", progress="half")
    six, seven = stored(6, status="active"), stored(7, status="delayed", worker_id=None, claimed_at=None, progress=None, idempotency_key=None)
    eight, nine, ten = stored(8, status="failed"), stored(9, status="cancelled"), stored(10, status="dead")
    stored(11, home=2), stored(12, queue_name="orkosi")
    every = [ten, nine, eight, seven, six, five, four, three, two, one]
    shown = lambda found: [reasoned(job) for job in found]  # noqa: E731
    assert listed(client, "/task-queue", shown(every))
    for query, found in [("status=waiting", [two, one]), ("status=delayed", [seven]), ("status=active", [five, six]), ("status=completed", [four, three]),
                         ("status=failed", [eight]), ("status=cancelled", [nine]), ("status=dead", [ten]), ("queue_name=agent:felix", [five]),
                         ("task_type=other", [two]), ("task_type=index&status=waiting&queue_name=default", [one]), ("queue_name=none", []),
                         ("status=active&queue_name=default", [six])]:
        assert listed(client, f"/task-queue?{query}", shown(found))
    assert look(client, *(job["id"] for job in every)) == every
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert listed(felix, "/task-queue", shown([five]))


@pytest.mark.story("GET /api/task-queue/{id}")
def test_one_job_says_why_it_is_not_running(client):
    stored(1, status="dead"), stored(2, status="failed"), stored(3, status="delayed"), stored(4, status="delayed", queue_name="held", run_at=None)
    stored(5, status="active"), stored(6, queue_name="fresh")
    db.write(lambda: db.run("UPDATE jobs SET held_for = 'Waits for task 3' WHERE id = 4 AND :tenant"))
    queue.pause("held")
    told = {1: [("attempts_exhausted", "All 3 attempts failed; the last: exit 1")], 2: [("not_retryable", "It was not to be tried again: exit 1")],
            3: [("delayed", f"Delayed until {AHEAD}; the last attempt failed: exit 1")],
            4: [("queue_paused", "The queue held is paused"), ("held", "Waits for task 3")], 5: []}
    for id, reasons in told.items():
        assert client.get(f"/task-queue/job_{id}").data["why"] == [{"code": code, "sentence": sentence} for code, sentence in reasons]
    queue._polled.pop((1, "fresh"), None)
    assert client.get("/task-queue/6").data["why"] == [{"code": "no_worker", "sentence": Like("No worker has claimed from fresh .*")}]
    client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "fresh", "task_type": "other"})
    assert client.get("/task-queue/6").data["why"] == [{"code": "next", "sentence": "It waits for its turn"}]


@pytest.mark.story("GET /api/task-queue/stats")
def test_the_jobs_of_each_queue_are_counted_by_state(client):
    for id, (name, state) in enumerate([("b", "waiting"), ("b", "waiting"), ("b", "dead"), ("a", "active"), ("a", "completed"), ("a", "delayed"),
                                        ("a", "failed"), ("a", "cancelled")], 1):
        stored(id, queue_name=name, status=state, created_at=f"2026-11-02T10:00:0{id}.000Z", priority=-id)
    stored(20, home=2, queue_name="c"), queue.pause("d")
    none = dict.fromkeys(STATES, 0)
    a = {"queue_name": "a", "paused": False, "counts": none | dict.fromkeys(["active", "completed", "delayed", "failed", "cancelled"], 1),
         "oldest_waiting_at": None, "at_least": []}
    b = {"queue_name": "b", "paused": False, "counts": none | {"waiting": 2, "dead": 1}, "oldest_waiting_at": "2026-11-02T10:00:01.000Z", "at_least": []}
    d = {"queue_name": "d", "paused": True, "counts": none, "oldest_waiting_at": None, "at_least": []}
    assert client.get("/task-queue/stats").json == {"data": [a, b, d]}
    assert client.get("/task-queue/stats?queue_name=b").json == {"data": [b]}


@pytest.mark.story("GET /api/task-queue/stats")
def test_what_is_over_is_counted_to_ten_thousand(client):
    db.write(lambda: db.run("""INSERT INTO jobs (tenant_id, queue, task_type, state, created_at, finished_at)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001) SELECT :tenant, 'q', 't', 'completed', 'x', 'x' FROM n"""))
    found, = client.get("/task-queue/stats").data
    assert (found["counts"]["completed"], found["at_least"]) == (10_000, ["completed"])


# ── submitting and claiming ──


@pytest.mark.story("POST /api/task-queue/submit")
def test_a_job_is_what_was_sent(client, as_, lately):
    queue._polled.clear()
    told = {"attempt": 0, "lease_expires_at": None, "worker_id": None, "progress": None, "result": None, "error": None, "tokens_used": 0, "deferrals": 0, "created_at": lately,
            "claimed_at": None, "finished_at": None, "why": None}
    full = {"task_type": "index", "payload": {"deep": [1, {"a": None}]}, "queue_name": "q", "priority": -5, "max_attempts": 7, "timeout_seconds": 60,
            "idempotency_key": "once"}
    made = client.post("/task-queue/submit", full | {"delay_seconds": 90})
    assert (made.status, made.json) == (201, {"data": full | told | {"id": "job_1", "status": "delayed", "run_at": lately(90)}})
    again = client.post("/task-queue/submit", full | {"payload": {}})
    assert (again.status, again.json) == (200, {"data": made.data, "meta": {"duplicate": True, "message": Like(".*answered.*")}})
    bare = client.post("/task-queue/submit", {"task_type": "t"}).data
    assert bare == told | {"id": bare["id"], "task_type": "t", "payload": {}, "queue_name": "default", "status": "waiting", "priority": 0, "max_attempts": 3,
                           "timeout_seconds": 300, "idempotency_key": None, "run_at": None}
    assert client.get("/task-queue").data == [reasoned(bare), reasoned(made.data)]
    elsewhere = as_("ann", tenant=None).get("/auth/me").data["tenant"]
    put_there = client.post("/task-queue/submit", {"task_type": "t", "tenant_id": elsewhere}).data["id"]
    assert db.value("SELECT tenant_id FROM jobs WHERE id = :id AND :tenant", id=int(put_there[4:])) == elsewhere


@pytest.mark.story("POST /api/task-queue/claim")
def test_a_claim_gives_the_next_job_and_leases_it(client, lately):
    low, high = stored(1, priority=9), stored(2, priority=-1, timeout_seconds=60)
    other, third = stored(3, queue_name="other"), stored(4, task_type="special", priority=20)
    given, leased = claims(high, lately)
    answer = client.post("/task-queue/claim", {"worker_id": "w2"})
    assert answer.json == {"data": given} and look(client, "job_2") == [leased]
    special, leased = claims(third, lately, "w3")
    assert client.post("/task-queue/claim", {"worker_id": "w3", "task_type": "special"}).json == {"data": special} and look(client, "job_4") == [leased]
    assert client.post("/task-queue/claim", {"worker_id": "w2", "batch_size": 5}).json == {"data": [claims(low, lately)[0]]}
    assert client.post("/task-queue/claim", {"worker_id": "w2", "queue_name": "other"}).json == {"data": claims(other, lately)[0]}
    assert client.post("/task-queue/claim", {"worker_id": "w2"}).json == client.post("/task-queue/claim", {"worker_id": "w2", "batch_size": 5}).json == {"data": None}
    assert client.post("/task-queue/2/complete", {"lease_token": answer.data["lease_token"]}).status == 200, "the token is good"


@pytest.mark.story("POST /api/task-queue/claim")
def test_a_claim_waits_for_a_job_and_takes_from_another_tenant_if_told_to(client, as_, lately):
    threading.Timer(0.1, lambda: client.post("/task-queue/submit", {"task_type": "late"})).start()
    began = time.monotonic()
    found = client.post("/task-queue/claim", {"worker_id": "w", "wait_seconds": 10}).data
    assert found["task_type"] == "late" and 0.05 < time.monotonic() - began < 9
    elsewhere = as_("ann", tenant=None).get("/auth/me").data["tenant"]
    theirs = stored(50, home=elsewhere)
    leased = client.post("/task-queue/claim", {"worker_id": "w2", "tenant_id": elsewhere})
    assert leased.json == {"data": claims(theirs, lately)[0]}
    there = {"lease_token": leased.data["lease_token"], "tenant_id": elsewhere}
    assert client.post("/task-queue/job_50/heartbeat", there | {"extend_seconds": 900}).data["lease_expires_at"] == lately(900)
    assert client.post("/task-queue/job_50/complete", there | {"tenant_id": None}).status == 404
    assert client.post("/task-queue/job_50/release", there).data["status"] == "waiting"
    for id, verb, status in ((50, "fail", "delayed"), (51, "complete", "completed")):
        stored(51, home=elsewhere) if id == 51 else None
        token = client.post("/task-queue/claim", {"worker_id": "w2", "tenant_id": elsewhere}).data["lease_token"]
        said = client.post(f"/task-queue/job_{id}/{verb}", {"lease_token": token, "tenant_id": elsewhere} | ({"error": "no"} if verb == "fail" else {})).data
        assert said.get("job", said)["status"] == status
    stored(52, home=elsewhere)
    token = client.post("/task-queue/claim", {"worker_id": "w2", "tenant_id": elsewhere}).data["lease_token"]
    many = {"jobs": [{"id": "job_52", "lease_token": token}], "tenant_id": elsewhere}
    assert as_("bo", tenant=None).post("/task-queue/complete", many).status in (403, 404)
    assert client.post("/task-queue/complete", many).data == [{"id": "job_52", "completed": True, "error": None}]


# ── with a lease ──


@pytest.mark.story("POST /api/task-queue/{id}/complete")
def test_a_completed_job_has_its_result_and_the_next_comes_along(client, lately):
    job, following = stored(1, status="active"), stored(2)
    done = job | {"status": "completed", "result": {"found": [3]}, "error": None, "finished_at": lately, "lease_expires_at": None}
    given, leased = claims(following, lately)
    answer = client.post("/task-queue/job_1/complete", {"lease_token": "tok", "result": {"found": [3]}, "claim_next": True, "worker_id": "w2"})
    assert answer.json == {"data": {"job": done, "next": given}} and look(client, "job_1", "job_2") == [done, leased]
    again = client.post("/task-queue/1/complete", {"lease_token": "tok", "result": "other"})
    assert again.data == {"job": done, "next": None}
    assert client.post("/task-queue/2/complete", {"lease_token": answer.data["next"]["lease_token"]}).data["job"]["status"] == "completed"


@pytest.mark.story("POST /api/task-queue/complete")
def test_many_are_completed_and_each_has_an_outcome_of_its_own(client, lately):
    one, two, three = stored(1, status="active"), stored(2, status="active"), stored(3, status="active", token="else")
    answer = client.post("/task-queue/complete", {"jobs": [{"id": "job_1", "lease_token": "tok", "result": [1]}, {"id": "3", "lease_token": "tok"},
                                                           {"id": "2", "lease_token": "tok"}, {"id": "job_99", "lease_token": "tok"}]})
    assert answer.json == {"data": [
        {"id": "job_1", "completed": True, "error": None},
        {"id": "job_3", "completed": False, "error": {"code": "lease_lost", "message": Like(".*job_3.*")}},
        {"id": "job_2", "completed": True, "error": None},
        {"id": "job_99", "completed": False, "error": {"code": "not_found", "message": "There is no job job_99"}}]}
    done = {"status": "completed", "error": None, "finished_at": lately, "lease_expires_at": None}
    assert look(client, "job_1", "job_2", "job_3") == [one | done | {"result": [1]}, two | done, three]


@pytest.mark.story("POST /api/task-queue/{id}/fail")
@pytest.mark.parametrize("job, sent, becomes", [
    ({}, {}, {"status": "delayed", "ahead": 5}), ({"attempt": 2}, {}, {"status": "delayed", "ahead": 10}), ({}, {"retry_in_seconds": 90}, {"status": "delayed", "ahead": 90}),
    ({}, {"retry_in_seconds": 0}, {"status": "waiting"}), ({}, {"retryable": False}, {"status": "failed"}), ({"attempt": 3}, {}, {"status": "dead"})])
def test_a_failed_attempt_is_tried_again_or_never(client, lately, job, sent, becomes):
    before = stored(1, status="active", **job)
    over = becomes["status"] in ("failed", "dead")
    after = before | {"status": becomes["status"], "error": "no such host", "lease_expires_at": None, "finished_at": lately if over else None,
                      "run_at": lately(becomes["ahead"]) if "ahead" in becomes else None}
    assert client.post("/task-queue/job_1/fail", {"lease_token": "tok", "error": "no such host"} | sent).json == {"data": after}
    assert look(client, "job_1") == [after]


@pytest.mark.story("POST /api/task-queue/{id}/heartbeat")
def test_a_heartbeat_extends_the_lease_keeps_progress_and_hears_whether_to_stop(client, lately):
    job = stored(1, status="active", lease_expires_at=now(1))
    beat = lambda **more: client.post("/task-queue/1/heartbeat", {"lease_token": "tok"} | more).json  # noqa: E731
    assert beat() == {"data": {"cancel": False, "pause": False, "lease_expires_at": lately(300)}}
    assert look(client, "job_1") == [job | {"lease_expires_at": lately(300)}], "what is not told stays"
    queue.pause("default")
    assert beat(extend_seconds=900, progress={"done": 9}, tokens_used=50) == {"data": {"cancel": False, "pause": True, "lease_expires_at": lately(900)}}
    extended = job | {"lease_expires_at": lately(900), "progress": {"done": 9}, "tokens_used": 50}
    assert look(client, "job_1") == [extended]
    assert beat(extend_seconds=1)["data"]["lease_expires_at"] == lately(900) and look(client, "job_1") == [extended], "a lease is never shortened"
    queue.resume("default"), queue.cancel(1)
    assert beat() == {"data": {"cancel": True, "pause": False, "lease_expires_at": None}}


@pytest.mark.story("POST /api/task-queue/{id}/release")
@pytest.mark.parametrize("attempt", [1, 3])
def test_a_released_job_waits_again_at_no_cost(client, lately, attempt):
    before = stored(1, status="active", attempt=attempt)
    after = before | {"status": "waiting", "attempt": attempt - 1, "lease_expires_at": None}
    assert client.post("/task-queue/job_1/release", {"lease_token": "tok"}).json == {"data": after} and look(client, "job_1") == [after]
    assert client.post("/task-queue/claim", {"worker_id": "w2"}).data == claims(after, lately)[0]


# ── deciding ──


@pytest.mark.story("POST /api/task-queue/{id}/retry")
@pytest.mark.parametrize("status", ["dead", "failed", "cancelled"])
def test_a_retried_job_has_all_its_attempts_again(client, lately, status):
    before = stored(1, status=status)
    after = before | {"status": "waiting", "attempt": 0, "finished_at": None}
    assert client.post("/task-queue/job_1/retry").json == {"data": after} and look(client, "job_1") == [after]
    assert client.post("/task-queue/claim", {"worker_id": "w2"}).data == claims(after, lately)[0]


@pytest.mark.story("POST /api/task-queue/{id}/cancel")
@pytest.mark.parametrize("status", ["waiting", "delayed", "active"])
def test_a_cancelled_job_is_over(client, lately, status):
    before = stored(1, status=status)
    after = before | {"status": "cancelled", "finished_at": lately, "lease_expires_at": None, "run_at": None}
    assert client.post("/task-queue/1/cancel").json == {"data": after} and look(client, "job_1") == [after]


@pytest.mark.story("POST /api/task-queue/retry")
def test_all_that_is_dead_in_a_queue_runs_again(client):
    one, two = stored(1, status="dead"), stored(2, status="dead")
    kept = [stored(3, status="failed"), stored(4, status="dead", queue_name="other"), stored(5)]
    assert client.post("/task-queue/retry", {"queue_name": "default"}).json == {"data": {"retried": 2}}
    again = {"status": "waiting", "attempt": 0, "finished_at": None}
    assert look(client, "job_1", "job_2", "job_3", "job_4", "job_5") == [one | again, two | again, *kept]


@pytest.mark.story("POST /api/task-queue/retry", "POST /api/task-queue/bury")
def test_some_jobs_run_again_and_are_buried_again(client, lately):
    for number, status in enumerate(("dead", "failed", "cancelled", "completed", "waiting"), 1):
        stored(number, status=status)
    before = look(client, *[f"job_{number}" for number in range(1, 6)])
    assert client.post("/task-queue/retry", {"ids": ["job_1", "2", "job_3", "job_4", "job_5", "job_99"]}).json == {"data": {"retried": 3}}
    again = {"status": "waiting", "attempt": 0, "finished_at": None}
    assert look(client, "job_1", "job_2", "job_3", "job_4", "job_5") == [one | again for one in before[:3]] + before[3:]
    assert client.post("/task-queue/claim", {"worker_id": "w"}).data["id"] == "job_1"
    assert client.post("/task-queue/bury", {"ids": ["job_1", "job_2", "job_3", "job_4", "job_5", "job_99"]}).json == {"data": {"buried": 2}}
    assert look(client, "job_2", "job_3", "job_4", "job_5") == [one | {"finished_at": lately} for one in before[1:3]] + before[3:]
    stored(6, attempt=0, deferrals=1, error="not now")  # put off, and due again: it never failed
    assert client.post("/task-queue/bury", {"ids": ["job_6"]}).json == {"data": {"buried": 0}}
    for order in ({}, {"ids": []}, {"queue_name": "default", "ids": ["job_1"]}, {"ids": ["x"]}, {"ids": ["job_1"] * 1001}):
        refused = client.post("/task-queue/retry", order)
        assert refused.status == 400, order
    assert client.post("/task-queue/bury", {"ids": ["nonsense"]}).status == 400


def test_whoever_was_put_off_for_too_long_and_is_retried_may_be_put_off_again(client):
    client.post("/task-queue/submit", {"task_type": "t"})
    token = client.post("/task-queue/claim", {"worker_id": "w"}).data["lease_token"]
    client.post("/task-queue/job_1/release", {"lease_token": token, "reason": "no", "retry_in_seconds": 0})
    with acting(system()):
        db.write(lambda: db.run("UPDATE jobs SET deferred_since = :old, state = 'waiting', run_at = NULL WHERE tenant_id = :tenant", old=OLD))
    token = client.post("/task-queue/claim", {"worker_id": "w"}).data["lease_token"]
    assert client.post("/task-queue/job_1/release", {"lease_token": token, "reason": "no"}).data["status"] == "failed"
    assert client.post("/task-queue/job_1/retry").data["deferrals"] == 0
    token = client.post("/task-queue/claim", {"worker_id": "w"}).data["lease_token"]
    again = client.post("/task-queue/job_1/release", {"lease_token": token, "reason": "no"}).data
    assert again["status"] == "delayed" and again["deferrals"] == 1 and 25 < seconds(again["run_at"]) - time.time() < 31


def test_a_worker_that_was_just_heard_is_not_called_silent(client):
    client.post("/task-queue/submit", {"task_type": "t", "timeout_seconds": 9})
    token = client.post("/task-queue/claim", {"worker_id": "w"}).data["lease_token"]
    with acting(system()):
        db.write(lambda: db.run("UPDATE jobs SET claimed_at = :then, lease_expires_at = :soon WHERE tenant_id = :tenant", then=now(-8), soon=now(1)))
    assert [one["code"] for one in client.get("/task-queue/job_1").data["why"]] == ["worker_silent"]
    client.post("/task-queue/job_1/heartbeat", {"lease_token": token, "extend_seconds": 2})
    assert client.get("/task-queue/job_1").data["why"] == []
