"""Schedules: a slot is met once and on time, whatever the clock, the machine and the workers do."""
import random
import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

import orkosi
from orkosi import Invalid, acting, db, now, seconds, settings, system
from plugins import delivery, queue, schedules
from plugins.queue import executor
from plugins.schedules import slots

BERLIN = ZoneInfo("Europe/Berlin")


class Clock:
    """A clock that goes as the test says; and the sweeper, which looks at it."""

    def __init__(self, monkeypatch, start):
        self.at, self.awake = start, 0.0
        monkeypatch.setattr(time, "time", lambda: self.at)
        self.met = []  # (queue, name, slot, when it was begun)

    def look(self):
        for ask in executor._before_due:
            ask()
        executor.promote_due()

    def work(self, *queues):
        """Claim and complete all there is; each is a slot that is met."""
        with acting(system()):
            for name in queues:
                while jobs := queue.claim(name, "w", batch=50):
                    for job in jobs:
                        self.met.append((name, job.task_type, int(job.idempotency_key.rpartition(":")[2]) / 1000, self.at))
                        queue.complete(job.id, job.lease_token)

    def run_to(self, end, *queues):
        """Go from one due moment to the next, and a little beyond each."""
        self.work(*queues)
        while True:
            first = db.value("SELECT min(run_at) FROM jobs WHERE state = 'delayed'")
            if first is None or seconds(first) >= end:
                break
            self.at = max(self.at, seconds(first) + 0.005)
            self.look()
            self.work(*queues)
        self.at = end


@pytest.fixture
def clock(data, monkeypatch):
    return Clock(monkeypatch, datetime(2026, 3, 25, 11, 30, 7, tzinfo=BERLIN).timestamp())


def keep(name, **fields):
    with acting(system()):
        return schedules.keep("q", name, {"n": name}, **fields)


def find(name):
    with acting(system()):
        return schedules.find("q", name)


def met(clock, name):
    return [slot for _, found, slot, _ in clock.met if found == name]


def test_a_week_over_summer_time_and_a_night_of_sleep(clock):
    """From Wednesday noon to the next; the clock leaps on Sunday at 2, and the Mac sleeps from Monday 23:10 to Tuesday 7:05."""
    began, end = clock.at, datetime(2026, 4, 1, 11, 30, tzinfo=BERLIN).timestamp()
    lines = {"hourly": "0 * * * *", "quarterly": "*/15 * * * *", "nightly": "30 2 * * *", "mornings": "0 8 * * 1-5"}
    for name, line in lines.items():
        keep(name, cron=line, tz="Europe/Berlin")
    keep("often", every=420_000, tz="UTC")
    sleep, wake = datetime(2026, 3, 30, 23, 10, tzinfo=BERLIN).timestamp(), datetime(2026, 3, 31, 7, 5, 30, tzinfo=BERLIN).timestamp()
    clock.run_to(sleep, "q")
    clock.at = wake
    clock.look()
    clock.work("q")
    clock.run_to(end, "q")

    minutes = [began - 7 + 60 * number for number in range(1, int((end - began) // 60) + 1)]
    local = {moment: datetime.fromtimestamp(moment, BERLIN) for moment in minutes}
    days = [date(2026, 3, 25) + timedelta(number) for number in range(8)]
    nights = [datetime(one.year, one.month, one.day, 2, 30, tzinfo=BERLIN) for one in days]
    expected = {
        "hourly": [moment for moment in minutes if local[moment].minute == 0],
        "quarterly": [moment for moment in minutes if local[moment].minute % 15 == 0],
        # On the 29th there is no 2:30: it comes as soon as the clock has leapt, at 3:00, which is 1:00 in UTC.
        "nightly": [datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp() if one.day == 29 else one.timestamp() for one in nights],
        "mornings": [datetime(one.year, one.month, one.day, 8, tzinfo=BERLIN).timestamp() for one in days if one.weekday() < 5],
        "often": [began + 420 * number for number in range(2000)],
    }
    for name, all_slots in expected.items():
        within = [slot for slot in all_slots if began <= slot < end]
        asleep = [slot for slot in within if sleep <= slot < wake - schedules.GRACE]
        assert met(clock, name) == pytest.approx([slot for slot in within if slot not in asleep], abs=0.002), name
        assert find(name).missed == len(asleep), name
        assert find(name).runs == len(within) - len(asleep), name
    late = [at - slot for _, _, slot, at in clock.met]
    assert max(late) <= schedules.GRACE and sum(one > 1 for one in late) <= 5


def test_what_catches_up_is_run_once_for_all_that_were_missed(clock):
    keep("reports", cron="0 * * * *", tz="UTC", catch_up="once")
    first = seconds(find("reports").slot)
    clock.at = first + 5 * 3600 + 100
    clock.look()
    clock.work("q")
    assert met(clock, "reports") == [first]
    one = find("reports")
    assert (one.runs, one.missed) == (1, 5) and one.slot == schedules.iso(first + 6 * 3600)


def test_one_that_cannot_go_on_holds_up_neither_the_others_nor_the_sweeper(clock):
    """Its zone is gone from this machine, say: it is run late, and all else is as it should be."""
    for name in ("broken", "sound"):
        keep(name, cron="0 * * * *", tz="Europe/Berlin")
    slot = seconds(find("sound").slot)
    db.write(lambda: db.run("UPDATE schedules SET tz = 'Gone/Away' WHERE name = 'broken'"))
    clock.at = slot + 5 * 3600 + 100
    clock.look()
    clock.work("q")
    assert met(clock, "broken") == [slot] and met(clock, "sound") == []
    assert find("sound").slot == schedules.iso(slot + 6 * 3600) and find("sound").missed == 6
    assert find("broken").next_run_at is None


@pytest.mark.parametrize("jump", [3600, -3600, 86400, -86400])
def test_a_clock_that_jumps_doubles_no_slot_and_silences_nothing(clock, jump):
    keep("often", cron="*/10 * * * *", tz="UTC")
    clock.run_to(clock.at + 3600, "q")
    before = len(clock.met)
    clock.at += jump
    schedules.set_right(jump)
    clock.look()
    clock.work("q")
    clock.run_to(clock.at + 2 * 3600, "q")
    found = met(clock, "often")
    assert len(found) == len(set(found))
    if jump < 0:  # what it met already, by the clock of before, is not met again
        overlap = min(7200, -jump) if jump == -3600 else 0
        assert len(found) - before == (12 if jump == -86400 else 12 - overlap // 600)
    else:
        assert len(found) - before in (12, 13) and find("often").missed in (jump // 600 - 1, jump // 600)


def test_a_clock_that_was_a_day_ahead_for_a_moment_leaves_no_silent_day(clock):
    keep("often", cron="*/10 * * * *", tz="UTC")
    clock.run_to(clock.at + 3600, "q")
    clock.at += 86400
    clock.look()
    clock.work("q")
    clock.run_to(clock.at + 1200, "q")
    clock.at -= 86400
    schedules.set_right(-86400)
    before = len(clock.met)
    clock.run_to(clock.at + 3600, "q")
    assert len(clock.met) - before == 6


def test_a_clock_set_back_while_no_server_ran_is_seen_at_the_start(clock):
    keep("often", cron="*/10 * * * *", tz="UTC")
    clock.run_to(clock.at + 7200, "q")
    clock.at -= 86400
    with acting(system()):
        db.write(lambda: schedules.began("opened", None))
    before = len(clock.met)
    clock.run_to(clock.at + 3600, "q")
    assert len(clock.met) - before == 6


def test_at_most_one_job_is_pending_and_what_passes_meanwhile_is_counted(clock):
    keep("slow", every=60_000, tz="UTC")
    for _ in range(10):
        clock.at += 60
        clock.look()
    pending = db.all(tuple, "SELECT state, run_at FROM jobs WHERE schedule = 'slow'")
    assert len(pending) == 1
    clock.work("q")
    one = find("slow")
    assert (one.runs, one.missed) == (1, 10) and seconds(one.slot) > clock.at


def test_overlap_says_whether_the_next_waits_for_the_end_of_this_one(clock):
    keep("alone", every=60_000, tz="UTC")
    keep("together", every=60_000, tz="UTC", overlap="queue")
    with acting(system()):
        running = queue.claim("q", "w", batch=10)
        assert sorted(job.task_type for job in running) == ["alone", "together"]
        clock.at += 61
        clock.look()
        assert [job.task_type for job in queue.claim("q", "w", batch=10)] == ["together"]
        clock.at += 200
        clock.look()
        for job in running:
            queue.complete(job.id, job.lease_token)
    assert find("alone").runs == 1 and find("alone").missed == 4 and seconds(find("alone").slot) > clock.at
    assert find("together").runs == 2


@pytest.mark.parametrize("end", ["fail", "cancel", "dead", "removed"])
def test_a_schedule_never_dies_silently(clock, end):
    one = keep("often", every=60_000, tz="UTC")
    with acting(system()):
        if end == "cancel":
            queue.cancel(one.job_id)
        elif end == "removed":
            db.write(lambda: db.run("DELETE FROM jobs WHERE id = :id", id=one.job_id))
            schedules.mend()
        else:
            job, = queue.claim("q", "w")
            queue.fail(job.id, job.lease_token, "no", retryable=end == "dead")
    again = find("often")
    assert again.job_id != one.job_id and seconds(again.slot) == pytest.approx(seconds(one.slot) + 60)
    clock.at += 61
    clock.look()
    clock.work("q")
    assert met(clock, "often") == pytest.approx([seconds(again.slot)])


def test_a_retry_is_no_further_slot(clock):
    keep("often", every=60_000, tz="UTC", max_attempts=3)
    with acting(system()):
        for _ in range(3):
            job, = queue.claim("q", "w")
            queue.fail(job.id, job.lease_token, "no")
        assert queue.claim("q", "w") == []
    assert find("often").runs == 1 and find("often").missed == 0


def test_what_is_due_and_not_begun_goes_with_its_schedule_and_follows_its_changes(clock):
    keep("report", cron="0 * * * *", tz="UTC")
    slot = seconds(find("report").slot)
    clock.at = slot + 5
    clock.look()
    waiting = lambda: db.all(tuple, "SELECT payload, state FROM jobs WHERE schedule = 'report' AND state <> 'completed'")  # noqa: E731
    assert waiting() == [('{"n":"report"}', "waiting")]
    with acting(system()):
        schedules.change(find("report").id, payload={"n": 2})
        assert waiting() == [('{"n":2}', "waiting")] and seconds(find("report").slot) == slot, "the slot is met as it is by now"
        schedules.change(find("report").id, enabled=False)
        assert waiting() == [] and find("report").job_id is None
        schedules.change(find("report").id, enabled=True)
        assert waiting() == [('{"n":2}', "delayed")] and seconds(find("report").slot) == slot + 3600
        clock.at = slot + 3605
        clock.look()
        taken, = queue.claim("q", "w")
        schedules.change(find("report").id, payload={"n": 3})
        assert waiting() == [('{"n":2}', "active")], "what runs runs on"
        queue.release(taken.id, taken.lease_token)
        schedules.remove("q", "report")
    assert waiting() == []


def test_one_that_is_put_again_and_again_has_one_pending_job_and_loses_no_slot(clock):
    pending = lambda: db.all(tuple, "SELECT payload, state, idempotency_key FROM jobs WHERE schedule = 'tick' AND state IN ('waiting', 'delayed')")  # noqa: E731
    for number in range(5):
        with acting(system()):
            schedules.keep("q", "tick", {"n": number}, every=3_600_000)
        clock.at += 0.5
        clock.look()
    assert [row[:2] for row in pending()] == [('{"n":4}', "waiting")]
    with acting(system()):
        schedules.keep("q", "tick", {"n": 5}, cron="0 8 * * *", tz="UTC")
    slot = seconds(find("tick").slot)
    clock.at = slot + 5
    clock.look()
    with acting(system()):
        schedules.keep("q", "tick", {"n": 6}, cron="0 8 * * *", tz="UTC")
    (payload, state, key), = pending()
    assert (payload, state) == ('{"n":6}', "waiting") and key.endswith(f":{slot * 1000:.0f}")


def test_what_is_begun_and_given_back_is_one_run(clock):
    keep("report", cron="0 * * * *", tz="UTC")
    clock.at = seconds(find("report").slot) + 5
    clock.look()
    with acting(system()):
        for _ in range(3):
            job, = queue.claim("q", "w")
            queue.reprioritize(job.id, 7)
            queue.release(job.id, job.lease_token)
    assert find("report").runs == 1 and db.value("SELECT priority FROM jobs WHERE schedule = 'report'") == 7


def test_one_that_has_no_room_says_so(clock, as_, monkeypatch):
    far = as_("far", tenant=None)
    made = far.post("/schedules", {"name": "report", "queue_name": "q", "every_ms": 60_000, "payload": {"x": "y" * 900}})
    assert made.status in (200, 201), made.body
    clock.at += 1
    clock.look()
    job = far.post("/task-queue/claim", {"queue_name": "q", "worker_id": "w"}).data
    monkeypatch.setitem(orkosi.settings.values, "tenant_bytes", 1)
    assert far.post(f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]}).status == 200
    assert "tenant_bytes" in far.get(f"/schedules/{made.data['id']}").data["last_error"]


def test_one_of_the_same_name_takes_its_place_and_meets_no_slot_again(clock):
    first = keep("report", cron="*/10 * * * *", tz="UTC")
    clock.run_to(clock.at + 1500, "q")
    again = keep("report", cron="*/5 * * * *", tz="UTC", max_attempts=2)
    assert (again.id, again.cron, again.max_attempts, again.runs) == (first.id, "*/5 * * * *", 2, 2)
    assert [row for row, in db.all(tuple, "SELECT count(*) FROM jobs WHERE schedule = 'report' AND state = 'delayed'")] == [1]
    clock.run_to(clock.at + 1500, "q")
    assert len(met(clock, "report")) == len(set(met(clock, "report")))
    with acting(system()):
        schedules.remove("q", "report")
    assert db.value("SELECT count(*) FROM jobs WHERE state = 'delayed'") == 0


@pytest.mark.parametrize("fields, field", [
    ({"cron": "61 * * * *"}, "repeat"), ({"cron": "* * * *"}, "repeat"), ({"cron": "0 0 30 2 *"}, "repeat"), ({"cron": ""}, "repeat"),
    ({"cron": "0 8 * * *", "every": 1000}, "repeat"), ({}, "repeat"), ({"cron": "0 8 * * *", "tz": "Mars/Phobos"}, "tz"),
    ({"cron": "0 8 * * *", "tz": "../../etc/passwd"}, "tz"), ({"cron": "0 8 * * *", "tz": "a" * 5000}, "tz"), ({"every": 1000, "tz": "\0"}, "tz"),
])
def test_what_makes_no_schedule_is_named_and_nothing_is_kept(data, fields, field):
    with pytest.raises(Invalid) as refused:
        keep("bad", **fields)
    assert refused.value.details[0]["field"] == field
    assert db.value("SELECT count(*) FROM schedules") == db.value("SELECT count(*) FROM jobs") == 0


def test_the_sweeper_asks_an_index_for_what_is_late(data):
    plan = [row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + schedules.LATE, late="")]
    assert plan == ["SEARCH jobs USING INDEX idx_jobs_delayed_by_run_at (run_at<?)", "SEARCH schedules USING INDEX idx_schedules_by_job_id (job_id=?)"]


def test_slots_by_arithmetic_are_those_that_come_one_after_the_other():
    chance = random.Random(7)
    for _ in range(200):
        every, start = chance.choice([1000, 1500, 60_000, 3_600_000]), chance.uniform(0, 1e9)
        one = slots.Slots(None, every, "UTC", start)
        first, last = sorted(start + chance.uniform(-5, 300) * every / 1000 for _ in range(2))
        listed = [slot for slot in (start + number * every / 1000 for number in range(400)) if first < slot <= last]
        assert one.between(first, last) == len(listed)
        assert one.next(first) == pytest.approx(next(start + number * every / 1000 for number in range(400) if start + number * every / 1000 > first))


def test_this_machine_has_a_time_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert slots.here() == "Europe/Berlin"
    monkeypatch.setenv("TZ", "nonsense")
    assert slots.here() == "UTC"
    assert now()


def test_a_persons_schedule_that_is_called_like_one_of_the_servers_own_stays(client, monkeypatch):
    mine = ["delivery.digest", "discovery:1"]
    for name in mine:
        assert client.post("/schedules", {"name": name, "every_ms": 3600000, "task": {"title": "mine"}}).status == 201
    listed = lambda: [one["name"] for one in client.get("/schedules").data]  # noqa: E731
    owned = lambda: db.all(tuple, "SELECT task_type, name FROM schedules WHERE task_type <> 'schedules.file' ORDER BY name")  # noqa: E731
    assert client.post("/discovery-engines", {"name": "E", "layer": "tasks"}).status == 201
    delivery.keep_digest("opened", None)
    own = [name for kind, name in owned() if kind == "discovery.due"]
    assert own == ["discovery:1+"] and set(mine) <= set(listed())
    monkeypatch.setattr(settings, "digest_at", "08:00")
    for _ in range(2):
        delivery.keep_digest("opened", None)
    assert ("delivery.digest", "delivery.digest+") in owned() and set(mine) <= set(listed())
    monkeypatch.setattr(settings, "digest_at", "")
    delivery.keep_digest("opened", None)
    assert client.delete("/discovery-engines/e").status == 200
    assert sorted(listed()) == mine and db.value("SELECT count(*) FROM schedules") == 2
