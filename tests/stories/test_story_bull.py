"""Stories of the queue as BullMQ has it: what is submitted is compared field by field with the row, and with BullMQ's own words for it."""
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Client, put

from orkosi import db, now, seconds
from plugins import bull, keys, queue


def row(**where):
    column, value = next(iter(where.items()))
    return db.one(dict, f"SELECT * FROM jobs WHERE {column} = :value", value=value)


def ms(text):
    return None if text is None else round(seconds(text) * 1000)


def submit(client, **fields):
    return client.post("/bull-queue/submit", {"queue": "q", "name": "job", "data": {}} | fields)


def work(client, name="q", **how):
    job = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": name}).data
    end = "fail" if "error" in how else "complete"
    client.post(f"/task-queue/{job['id']}/{end}", {"lease_token": job["lease_token"]} | how)
    return job["id"].removeprefix("job_")


def told(kept, state, **more):
    """What the row of a job is in BullMQ's words."""
    return {"id": kept["idempotency_key"] or str(kept["id"]), "name": kept["task_type"], "data": json.loads(kept["payload"]),
            "opts": {"priority": kept["priority"], "attempts": kept["max_attempts"],
                     "backoff": {"type": kept["backoff_kind"], "delay": kept["backoff_ms"]} if kept["backoff_ms"] else None, "delay": 0},
            "state": state, "progress": json.loads(kept["progress"] or "0"), "attempts_made": kept["attempt"], "failed_reason": kept["error"],
            "return_value": None, "timestamp": ms(kept["created_at"]), "processed_on": ms(kept["claimed_at"]), "finished_on": None} | more


@pytest.mark.story("POST /api/bull-queue/submit")
def test_submit(client):
    answer = submit(client, name="send mail: now", data={"to": ["a", 1]}, priority=7, attempts=4, backoff={"type": "exponential", "delay": 500}, delay=60_000,
                    job_id="mail-7")
    kept = row(idempotency_key="mail-7")
    assert answer.status == 201 and answer.data == {
        "id": "mail-7", "name": "send mail: now", "queue": "q", "state": "delayed", "data": {"to": ["a", 1]},
        "opts": {"priority": 7, "attempts": 4, "backoff": {"type": "exponential", "delay": 500}, "delay": 60_000}, "timestamp": ms(kept["created_at"])}
    assert (kept["task_type"], kept["priority"], kept["max_attempts"], kept["backoff_kind"], kept["backoff_ms"], kept["state"]) == (
        "send mail: now", 7, 4, "exponential", 500, "delayed")
    assert ms(kept["run_at"]) - ms(kept["created_at"]) == pytest.approx(60_000, abs=5)
    again = submit(client, name="other", job_id="mail-7")
    assert again.status == 200 and again.data == answer.data
    assert again.meta["duplicate"] is True and "job_id" in again.meta["message"] and "nothing was submitted" in again.meta["message"]
    plain = submit(client, backoff=1500).data
    assert plain == {"id": str(row(task_type="job")["id"]), "name": "job", "queue": "q", "state": "waiting", "data": {},
                     "opts": {"priority": 0, "attempts": 1, "backoff": {"type": "fixed", "delay": 1500}, "delay": 0}, "timestamp": plain["timestamp"]}
    assert abs(plain["timestamp"] - time.time() * 1000) < 5000
    assert submit(client, priority=1).data["state"] == "prioritized"


@pytest.mark.parametrize("fields, field", [
    ({"queue": "orkosi"}, "queue"), ({"queue": "a:b"}, "queue"), ({"queue": ""}, "queue"), ({"name": ""}, "name"), ({"data": None}, "data"),
    ({"data": []}, "data"), ({"priority": -1}, "priority"), ({"priority": 2_097_152}, "priority"), ({"attempts": 0}, "attempts"), ({"delay": -1}, "delay"),
    ({"job_id": "12"}, "job_id"), ({"job_id": "a:b"}, "job_id"), ({"job_id": ""}, "job_id"), ({"job_id": "a/b"}, "job_id"), ({"job_id": ".."}, "job_id"),
    ({"job_id": "a\x07b"}, "job_id"), ({"name": "a\x07b"}, "name"), ({"name": " "}, "name"), ({"backoff": -1}, "backoff"),
    ({"backoff": {"type": "linear"}}, "backoff"), ({"backoff": {"delay": -5}}, "backoff"), ({"backoff": {"delay": 10**12}}, "backoff"),
    ({"data": {"x": "y" * (256 << 10)}}, "data"), ({"repeat": "* * * * *"}, "repeat"), ({"lifo": True}, "lifo")])
def test_what_is_no_job_is_named(client, fields, field):
    answer = submit(client, **fields)
    assert answer.status == 400 and answer.json["error"]["details"][0]["field"].startswith(field), answer
    assert db.value("SELECT count(*) FROM jobs") == 0
    missing = client.post("/bull-queue/submit", {"queue": "q", "name": "x"})
    assert missing.status == 400 and "data" in missing.json["error"]["message"]


@pytest.mark.story("POST /api/bull-queue/submit-scheduled")
def test_submit_scheduled(client):
    base = {"queue": "q", "name": "report", "data": {"n": 1}}
    cron = client.post("/bull-queue/submit-scheduled", base | {"repeat": "30 4 1 * *", "tz": "UTC", "priority": 3, "attempts": 2, "backoff": 100}).data
    one = db.one(dict, "SELECT * FROM schedules")
    job = row(id=one["job_id"])
    moment = datetime.now(UTC)
    due = moment.replace(day=1, hour=4, minute=30, second=0, microsecond=0)
    due = due if due > moment else (due + timedelta(days=32)).replace(day=1)
    assert cron["schedule"] == {"name": "report", "repeat": "30 4 1 * *", "every": None, "tz": "UTC", "next_run_at": job["run_at"]}
    assert job["run_at"] == due.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert cron["id"] == str(job["id"])
    assert {name: cron[name] for name in ("name", "queue", "state", "data", "timestamp")} == {
        "name": "report", "queue": "q", "state": "delayed", "data": {"n": 1}, "timestamp": ms(job["created_at"])}
    assert cron["opts"] == {"priority": 3, "attempts": 2, "backoff": {"type": "fixed", "delay": 100}, "delay": ms(job["run_at"]) - ms(job["created_at"])}
    every = client.post("/bull-queue/submit-scheduled", base | {"every": 5000}).data  # the same name: it takes its place
    assert db.value("SELECT count(*) FROM schedules") == 1 and db.value("SELECT count(*) FROM jobs") == 1
    assert every["state"] == "waiting" and every["schedule"]["every"] == 5000 and every["schedule"]["repeat"] is None
    assert abs(seconds(every["schedule"]["next_run_at"]) - time.time()) < 5
    once = client.post("/bull-queue/submit-scheduled", base | {"name": "once", "delay": 3_600_000})
    assert once.status == 201 and once.data["schedule"] is None and once.data["state"] == "delayed" and once.data["opts"]["delay"] == pytest.approx(3_600_000, abs=5)
    later = client.post("/bull-queue/submit-scheduled", base | {"name": "later", "every": 60_000, "delay": 3_600_000}).data
    assert seconds(later["schedule"]["next_run_at"]) == pytest.approx(time.time() + 3600, abs=5)


@pytest.mark.parametrize("fields, field", [
    ({}, "repeat"), ({"repeat": "* * * * *", "every": 5000}, "every"), ({"every": 999}, "every"), ({"repeat": "61 * * * *"}, "repeat"),
    ({"repeat": "* * * * *", "tz": "Nowhere"}, "tz"), ({"every": 5000, "tz": "UTC"}, "tz"),
    ({"every": 5000, "name": "a/b"}, "name"), ({"every": 5000, "name": ".."}, "name"), ({"repeat": "0 0 30 2 *"}, "repeat")])
def test_what_is_no_schedule_is_named(client, fields, field):
    answer = client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "n", "data": {}} | fields)
    assert answer.status == 400 and answer.json["error"]["details"][0]["field"] == field, answer
    assert db.value("SELECT count(*) FROM jobs") == db.value("SELECT count(*) FROM schedules") == 0


@pytest.mark.story("GET /api/bull-queue/stats")
def test_stats(client):
    for fields in ({}, {}, {"priority": 5}, {"delay": 60_000}, {"name": "done"}, {"name": "bad"}, {"name": "off"}):
        submit(client, **fields)
    db.write(lambda: db.run("UPDATE jobs SET priority = -1 WHERE task_type IN ('done', 'bad')"))
    work(client)
    work(client, error="no", retryable=False)
    client.post(f"/task-queue/job_{row(task_type='off')['id']}/cancel")
    client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"})
    client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "s", "data": {}, "repeat": "0 0 1 1 *"})
    db.write(lambda: db.run("UPDATE jobs SET created_at = :then WHERE state = 'waiting' AND priority = 0", then=queue.now(-90)))
    expected = {"queue": "q", "is_paused": False, "counts": {"waiting": 1, "active": 1, "completed": 1, "failed": 2, "delayed": 2, "paused": 0, "prioritized": 1},
                "schedules": 1, "oldest_waiting_seconds": 90, "at_least": []}
    found = client.get("/bull-queue/stats").data
    assert [one | {"oldest_waiting_seconds": expected["oldest_waiting_seconds"]} for one in found] == [expected]
    assert found[0]["oldest_waiting_seconds"] in (90, 91, 92)
    client.post("/bull-queue/q/pause")
    assert client.get("/bull-queue/stats?queue=q").data[0]["counts"] == expected["counts"] | {"waiting": 0, "paused": 1}
    assert client.get("/bull-queue/stats?queue=nothing").data == [
        {"queue": "nothing", "is_paused": False, "counts": dict.fromkeys(expected["counts"], 0), "schedules": 0, "oldest_waiting_seconds": None, "at_least": []}]
    assert client.get("/bull-queue/stats?queue=orkosi").status == 400


@pytest.mark.story("GET /api/bull-queue/{queue}/jobs")
def test_jobs(client):
    submit(client, name="a", data={"x": 1}, attempts=2, backoff=100, job_id="first")
    submit(client, name="b")
    claimed = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"}).data
    client.post(f"/task-queue/{claimed['id']}/heartbeat", {"lease_token": claimed["lease_token"], "progress": 40})
    kept = row(idempotency_key="first")
    active = client.get("/bull-queue/q/jobs?status=active").data
    assert active == [{"id": "first", "name": "a", "data": {"x": 1}, "opts": {"priority": 0, "attempts": 2, "backoff": {"type": "fixed", "delay": 100}, "delay": 0},
                       "state": "active", "progress": 40, "attempts_made": 0, "failed_reason": None, "return_value": None, "timestamp": ms(kept["created_at"]),
                       "processed_on": ms(kept["claimed_at"]), "finished_on": None}]
    client.post(f"/task-queue/{claimed['id']}/complete", {"lease_token": claimed["lease_token"], "result": {"ok": True}})
    submit(client, name="later", priority=9, delay=45_000)
    assert client.get("/bull-queue/q/jobs?status=delayed").data == [
        told(row(task_type="later"), "delayed", opts={"priority": 9, "attempts": 1, "backoff": None, "delay": 45_000})]
    work(client, error="broken", retryable=False)
    done, failed = (client.get(f"/bull-queue/q/jobs?status={status}").data[0] for status in ("completed", "failed"))
    assert (done["attempts_made"], done["return_value"], done["finished_on"]) == (1, {"ok": True}, ms(row(idempotency_key="first")["finished_at"]))
    assert (failed["name"], failed["attempts_made"], failed["failed_reason"], failed["state"]) == ("b", 1, "broken", "failed")


@pytest.mark.story("GET /api/bull-queue/{queue}/jobs")
def test_ranges_are_inclusive_and_from_either_end(client):
    for number in range(12):
        submit(client, name=f"n{number}", priority=number % 2)
    names = [f"n{number}" for number in range(12)]
    plain, first = names[0::2], names[1::2]
    shown = lambda query: [one["name"] for one in client.get(f"/bull-queue/q/jobs?{query}").data]  # noqa: E731
    assert shown("") == names[::-1] and shown("status=waiting") == plain and shown("status=prioritized") == first
    for start, end in ((0, -1), (0, 0), (1, 3), (2, -2), (-3, -1), (-3, -2), (-100, 1), (4, 2), (50, 60), (0, -100)):
        low, high = (max(0, 6 + one) if one < 0 else one for one in (start, end))
        high = 6 + end if end < 0 else end
        assert shown(f"status=waiting&start={start}&end={end}") == plain[low:high + 1] * (high >= low), (start, end)
    assert client.get("/bull-queue/q/jobs?start=0&end=3").meta == {"start": 0, "end": 3, "cut": False}
    db.write(lambda: [queue.submit("many", "x") for _ in range(205)] and None)
    answer = client.get("/bull-queue/many/jobs?status=waiting")
    assert (len(answer.data), answer.meta) == (200, {"start": 0, "end": 199, "cut": True})
    assert len(client.get("/bull-queue/many/jobs?status=waiting&start=200").data) == 5
    client.post("/bull-queue/many/pause")
    assert client.get("/bull-queue/many/jobs?status=waiting").data == [] and len(client.get("/bull-queue/many/jobs?status=paused").data) == 200


def test_all_that_ended_badly_is_one_list_newest_first(client):
    """Failed, dead and cancelled ones, whichever end came when; sorted by nobody but three indexes."""
    for number in range(9):
        submit(client, name=f"n{number}")
        if number % 3 == 2:
            client.post(f"/task-queue/job_{row(task_type=f'n{number}')['id']}/cancel")
        else:
            work(client, error="no", retryable=number % 3 == 0)
        db.write(lambda number=number: db.run("UPDATE jobs SET finished_at = :at WHERE task_type = :name", name=f"n{number}", at=queue.now(number)))
    assert {state for state, in db.all(tuple, "SELECT state FROM jobs")} == {"failed", "dead", "cancelled"}
    shown = lambda query: [one["name"] for one in client.get(f"/bull-queue/q/jobs?status=failed&{query}").data]  # noqa: E731
    newest = [f"n{number}" for number in range(8, -1, -1)]
    assert shown("") == newest and shown("start=2&end=4") == newest[2:5] and shown("start=-2") == newest[-2:] and shown("start=1&end=-3") == newest[1:-2]
    plan = [line[3] for line in db.all(tuple, "EXPLAIN QUERY PLAN " + bull._ENDS[0].join(("SELECT id FROM jobs WHERE ", " ORDER BY finished_at DESC, id DESC")),
                                       queue="q")]
    assert plan == ["SEARCH jobs USING COVERING INDEX idx_jobs_finished_by_queue_state (tenant_id=? AND queue=? AND state=? AND finished_at>?)"]


def test_an_answer_of_heavy_jobs_has_an_end(client):
    for _ in range(40):
        db.write(lambda: queue.submit("heavy", "x", {"x": "y" * 250_000}))
    answer = client.get("/bull-queue/heavy/jobs")
    assert answer.meta["cut"] and 30 <= len(answer.data) <= 34
    assert len(client.get(f"/bull-queue/heavy/jobs?start={answer.meta['end'] + 1}").data) == 40 - len(answer.data)


@pytest.mark.story("POST /api/bull-queue/{queue}/pause", "POST /api/bull-queue/{queue}/resume")
def test_pause_and_resume(client):
    submit(client)
    assert client.post("/bull-queue/q/pause").data == {"queue": "q", "is_paused": True}
    assert client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"}).data is None
    assert client.post("/bull-queue/q/resume").data == {"queue": "q", "is_paused": False}
    assert client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"}).data["task_type"] == "job"


@pytest.mark.story("POST /api/bull-queue/{queue}/jobs/{id}/retry", "POST /api/bull-queue/{queue}/jobs/{id}/promote",
                   "DELETE /api/bull-queue/{queue}/jobs/{id}")
def test_retry_promote_and_remove(client):
    submit(client, name="first", data={"x": [1]}, priority=4, attempts=2, backoff={"type": "exponential", "delay": 60_000}, job_id="one")
    work(client, error="not yet")
    kept = row(idempotency_key="one")
    assert (kept["state"], kept["attempt"]) == ("delayed", 1)
    at_once = client.post("/bull-queue/q/jobs/one/promote").data
    assert at_once == told(kept, "prioritized") and at_once["attempts_made"] == 1 and row(idempotency_key="one")["run_at"] is None
    assert client.post("/bull-queue/q/jobs/one/promote").status == 409
    held = client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"}).data
    client.post(f"/task-queue/{held['id']}/heartbeat", {"lease_token": held["lease_token"], "progress": {"half": True}})
    client.post(f"/task-queue/{held['id']}/fail", {"lease_token": held["lease_token"], "error": "no"})
    kept = row(idempotency_key="one")
    again = client.post("/bull-queue/q/jobs/one/retry").data
    assert again == told(kept, "prioritized", attempts_made=0) and again["failed_reason"] == "no" and again["progress"] == {"half": True}
    assert row(idempotency_key="one")["attempt"] == 0
    assert client.post("/bull-queue/q/jobs/one/retry").status == 409
    late = submit(client, delay=60_000).data["id"]
    assert client.post(f"/bull-queue/q/jobs/{late}/promote").data == told(row(id=int(late)), "waiting")
    assert client.delete("/bull-queue/q/jobs/one").data == {"deleted": True, "id": "one"} and row(idempotency_key="one") is None
    assert submit(client, job_id="one").status == 201
    assert client.delete(f"/bull-queue/other/jobs/{late}").status == 404
    client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "q"})
    assert client.delete(f"/bull-queue/q/jobs/{late}").status == 409 and row(id=int(late))["state"] == "active"


@pytest.mark.story("GET /api/bull-queue/schedules", "DELETE /api/bull-queue/schedules/{name}")
def test_schedules(client):
    for name, place in (("a", "q"), ("a", "r"), ("b", "q")):
        client.post("/bull-queue/submit-scheduled", {"queue": place, "name": name, "data": {"of": place}, "every": 60_000})
    work(client, "r")
    found = client.get("/bull-queue/schedules").data
    rows = {(one["queue"], one["name"]): one for one in db.all(dict, "SELECT * FROM schedules")}
    assert [(one["queue"], one["name"]) for one in found] == sorted(rows)
    last = next(one for one in found if one["queue"] == "r")
    kept = rows["r", "a"]
    assert last == {"name": "a", "queue": "r", "repeat": None, "every": 60_000, "tz": kept["tz"], "data": {"of": "r"}, "next_run_at": kept["slot"],
                    "last_run_at": kept["last_run_at"], "runs": 1, "missed": 0}
    assert seconds(kept["slot"]) - seconds(kept["starts_at"]) == pytest.approx(60, abs=0.002)
    assert [one["name"] for one in client.get("/bull-queue/schedules?queue=q").data] == ["a", "b"]
    client.post("/bull-queue/submit-scheduled", {"queue": "s", "name": "c", "data": {}, "repeat": "0 8 * * *", "tz": "Europe/Berlin"})
    db.write(lambda: db.run("UPDATE schedules SET missed = 3 WHERE name = 'c'"))
    page = client.get("/bull-queue/schedules?limit=1&offset=3")
    assert page.meta["total"] == 4 and page.meta["offset"] == 3 and page.meta["limit"] == 1 and not page.meta["has_more"]
    assert [page.data[0][name] for name in ("repeat", "every", "tz", "missed", "runs", "last_run_at")] == ["0 8 * * *", None, "Europe/Berlin", 3, 0, None]
    first = client.get("/bull-queue/schedules?limit=1")
    assert first.meta["has_more"] and client.get(f"/bull-queue/schedules?limit=1&after={first.meta['next_after']}").data[0] == found[1]
    client.delete("/bull-queue/schedules/c")
    assert client.delete("/bull-queue/schedules/a").status == 409
    assert client.delete("/bull-queue/schedules/a?queue=r").data == {"deleted": True, "id": "a"}
    assert client.delete("/bull-queue/schedules/a").status == 200 and client.delete("/bull-queue/schedules/a").status == 404
    assert [one["name"] for one in client.get("/bull-queue/schedules").data] == ["b"]


def test_an_agents_key_sees_no_schedule(application, client):
    """It lists jobs of its own queue alone; what others have planned, with all they say in it, is none of its matters."""
    client.post("/agents", {"name": "felix"})
    client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "secret plan", "data": {"x": "theirs"}, "every": 60_000})
    _, secret = keys.issue(1, "felix's", ["queue:work", "queue:submit"], agent="felix")
    felix = Client(application, secret)
    for answer in (felix.get("/bull-queue/schedules"), felix.get("/bull-queue/schedules?queue=q"), felix.delete("/bull-queue/schedules/secret plan"),
                   felix.get("/bull-queue/q/jobs"), felix.get("/bull-queue/stats?queue=q")):
        assert answer.status == 403 and "theirs" not in str(answer)
    assert felix.get("/bull-queue/stats").data == []


@pytest.mark.story("POST /api/bull-queue/{queue}/clean")
def test_clean(client):
    """Each status by itself, the oldest first, by its end or its beginning; what a schedule has pending stays, and other queues do."""
    ends = {"completed": "completed", "failed": "failed", "dead": "failed", "cancelled": "failed"}
    for id, state in enumerate(("completed", "completed", "failed", "dead", "cancelled", "waiting", "waiting", "delayed", "active"), 1):
        age = now(-1000 * id)
        put("jobs", id=id, tenant_id=1, queue="q", task_type="t", state=state, priority=int(id == 7), created_at=age, finished_at=age if state in ends else None,
            idempotency_key="mine" if id == 2 else None, run_at=now(500) if state == "delayed" else None, lease_token="t" if state == "active" else None,
            lease_expires_at=now(500) if state == "active" else None, claimed_at=age if state == "active" else None)
    put("jobs", id=20, tenant_id=1, queue="r", task_type="t", state="completed", created_at=now(-9000), finished_at=now(-9000))
    client.post("/bull-queue/submit-scheduled", {"queue": "q", "name": "s", "data": {}, "every": 60_000, "delay": 60_000})
    clean = lambda **body: client.post("/bull-queue/q/clean", body).data["removed"]  # noqa: E731
    left = lambda: {row[0] for row in db.all(tuple, "SELECT id FROM jobs")}  # noqa: E731
    everything = left()
    assert clean(grace=2_500_000) == [] and clean(status="completed", grace=1_500_000) == ["mine"] and left() == everything - {2}
    assert clean() == ["1"] and clean(status="failed", limit=2) == ["5", "4"] and clean(status="failed") == ["3"]
    assert clean(status="prioritized") == ["7"] and clean(status="waiting") == ["6"] and clean(status="delayed") == ["8"]
    assert left() == everything - set(range(1, 9)) and db.value("SELECT count(*) FROM jobs WHERE schedule = 's'") == 1
    for body, field in (({"status": "active"}, "status"), ({"grace": -1}, "grace"), ({"limit": 0}, "limit"), ({"more": 1}, "more")):
        assert field in client.post("/bull-queue/q/clean", body).error["message"]


@pytest.mark.story("POST /api/bull-queue/{queue}/retry")
def test_retry_all_that_failed(client):
    for id, (state, place) in enumerate((("failed", "q"), ("dead", "q"), ("cancelled", "q"), ("failed", "q"), ("completed", "q"), ("failed", "r")), 1):
        put("jobs", id=id, tenant_id=1, queue=place, task_type="t", state=state, attempt=3, max_attempts=3, error="e", created_at=now(-9000), finished_at=now(-1000 * id))
    retry = lambda **body: client.post("/bull-queue/q/retry", body)  # noqa: E731
    states = lambda: dict(db.all(tuple, "SELECT id, state FROM jobs"))  # noqa: E731
    assert retry(timestamp=ms(now(-3500))).json == {"data": {"retried": 1}} and states() == {1: "failed", 2: "dead", 3: "cancelled", 4: "waiting", 5: "completed", 6: "failed"}
    assert retry(count=1).data == {"retried": 1} and states()[3] == "waiting" and retry().data == {"retried": 2} and retry().data == {"retried": 0}
    assert states() == {1: "waiting", 2: "waiting", 3: "waiting", 4: "waiting", 5: "completed", 6: "failed"} and db.value("SELECT max(attempt) FROM jobs WHERE queue = 'q' AND id < 5") == 0
    assert client.post("/bull-queue/q/retry", {"count": 0}).status == 400
