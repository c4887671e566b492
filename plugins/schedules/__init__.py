"""Schedules: jobs that come again and again, kept by the server's clock.

DESIGN

Of each schedule at most one job is pending: that of its next slot, delayed until then. So the slot is met by the queue itself, and
whoever looks at the queue sees what comes. The next one is planned when this one has begun (`overlap: queue`) or has ended (`skip`);
slots that pass meanwhile are counted as missed, and not made up for.

What a crash leaves. The job of a slot carries the slot as its idempotency key: planned twice, it is one job, and a slot that was met once
is not met again, whatever the clock does. A schedule whose job is gone is planned anew within a minute; none ever stays without a next.

Late. A job whose slot is over by more than a minute - the machine slept, the server was down, the clock leapt - is not run late
(`catch_up: skip`): its schedule goes on to the next slot. With `once`, it is run, for all that were missed. A clock that is set back
has schedules planned anew: otherwise one that the clock's error had carried into tomorrow would be silent until then.
"""
import logging
import time
from typing import Any, Literal

from orkosi import (
    HOST_TENANT,
    Conflict,
    NotFound,
    Plugin,
    Problem,
    Struct,
    across_tenants,
    acting,
    db,
    emit,
    jsoned,
    now,
    seconds,
    settings,
    system,
    writes,
)
from plugins import queue
from plugins.lists import Listing
from plugins.queue import iso
from plugins.tenants import shares

from .slots import Slots, checked, here

plugin = Plugin("Schedules", layer="domain", needs=("queue", "lists", "tasks", "tenants"))

plugin.setting("schedules_most", int, 20_000, "How many schedules one tenant may have")

log = logging.getLogger("orkosi")
GRACE = 60.0  # seconds by which a slot may be met late
TRIES = 1000  # slots that are looked at for one that was not met yet
CatchUp = Literal["skip", "once"]
Overlap = Literal["skip", "queue"]


class Schedule(Struct):
    """A row of `schedules`. `slot` is that of its newest job, `job_id`; `missed` counts slots that passed without a job.

    Where its queue is the server's own, its jobs are run by the `@plugin.job` handler that `task_type` names, in its tenant's name."""
    id: int
    tenant_id: int
    queue: str
    name: str
    cron: str | None
    every_ms: int | None
    tz: str
    payload: Any
    priority: int
    max_attempts: int
    backoff_kind: str
    backoff_ms: int
    catch_up: CatchUp
    overlap: Overlap
    enabled: bool
    starts_at: str
    slot: str | None
    job_id: int | None
    task_type: str | None
    task_id: int | None
    filed_slot: str | None
    last_error: str | None
    runs: int
    missed: int
    last_run_at: str | None
    created_at: str
    updated_at: str

    @property
    def slots(self) -> Slots:
        """When it is due."""
        return Slots(self.cron, self.every_ms, self.tz, seconds(self.starts_at))

    @property
    def next_run_at(self) -> str | None:
        """Its next slot; None where it is switched off. While a slot is met, or waits to be, it is the one after that."""
        if not self.enabled:
            return None
        if self.slot and self.slot > now():
            return self.slot
        try:
            coming = self.slots.next(time.time())
        except Problem:  # its zone is gone from this machine; a list has the others all the same
            return None
        return iso(coming) if coming else None


class Due(Struct):
    """What a handler is told of the slot that has come: the schedule's number, and when it was due."""
    schedule: int
    slot: str


SCHEDULES = Listing(of=Schedule, source="schedules", order="queue, name", base="tenant_id = :tenant AND queue <> 'orkosi'",
                    filters={"queue_name": "queue = :queue_name"})


# ── what an operator does ──


@writes
def keep(queue_name: str, name: str, payload: Any, *, cron: str | None = None, every: int | None = None, tz: str | None = None, delay: float = 0.0,
         priority: int = 0, max_attempts: int = 1, backoff: tuple[str, int] = ("fixed", 0), catch_up: CatchUp = "skip",
         overlap: Overlap = "skip", task_type: str | None = None, enabled: bool = True) -> Schedule:
    """Make a schedule, or put another in the place of the one of that name in that queue; it, with its first job planned. Invalid.

    `every` in ms: at once, or after `delay` seconds, and then so often. A slot that the old one met is not met again.
    """
    began = time.time() + delay
    checked(cron, every, tz or here(), began)  # before anything is taken back
    before = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND queue = :queue AND name = :name", queue=queue_name, name=name)
    if before:
        if _withdraw(before, due=True) and cron and cron == before.cron and before.slot and seconds(before.slot) < began:
            began = seconds(before.slot)  # it was due, and nobody has begun it: it is met as it is now
    elif db.value("SELECT count(*) FROM schedules WHERE tenant_id = :tenant") >= settings.schedules_most:
        raise Conflict(f"There are {settings.schedules_most} schedules already, which is the most (schedules_most); end some")
    shares.require(rows=int(before is None), bytes=_size(payload) - (_size(before.payload) if before else 0))
    db.run("""
        INSERT INTO schedules (tenant_id, queue, name, cron, every_ms, tz, payload, priority, max_attempts, backoff_kind, backoff_ms, catch_up,
                               overlap, starts_at, task_type, enabled, created_at, updated_at)
        VALUES (:tenant, :queue, :name, :cron, :every, :tz, :payload, :priority, :attempts, :kind, :ms, :catch_up, :overlap, :starts, :task_type,
                :enabled, :now, :now)
        ON CONFLICT (tenant_id, queue, name) DO UPDATE SET cron = :cron, every_ms = :every, tz = :tz, payload = :payload, priority = :priority,
               max_attempts = :attempts, backoff_kind = :kind, backoff_ms = :ms, catch_up = :catch_up, overlap = :overlap, starts_at = :starts,
               task_type = :task_type, enabled = :enabled, updated_at = :now""",
           queue=queue_name, name=name, cron=cron, every=every, tz=tz or here(), payload=jsoned(payload), priority=priority, attempts=max_attempts,
           kind=backoff[0], ms=backoff[1], catch_up=catch_up, overlap=overlap, starts=iso(began), task_type=task_type, enabled=enabled, now=now())
    made = find(queue_name, name)
    _plan(made, began - 0.001)
    emit("schedule.updated" if before else "schedule.created", made)
    return find(queue_name, name)


def _size(payload: Any) -> int:
    return len(jsoned(payload).encode())


@writes
def make(queue_name: str, name: str, payload: Any, **how: Any) -> Schedule:
    """As `keep`, where there is none of that name yet. Conflict."""
    if db.value("SELECT 1 FROM schedules WHERE tenant_id = :tenant AND queue = :queue AND name = :name", queue=queue_name, name=name):
        raise Conflict(f"There is a schedule {name!r} of that kind already; change it, or choose another name")
    return keep(queue_name, name, payload, **how)


def own(task_type: str, payload: Any) -> Schedule | None:
    """The server's own schedule of a handler and a payload. Not by its name: that a person may have given to a schedule of tasks."""
    return db.one(Schedule, """SELECT * FROM schedules WHERE tenant_id = :tenant AND queue = 'orkosi' AND task_type = :task_type
                                AND payload = :payload""", task_type=task_type, payload=jsoned(payload))


@writes
def keep_own(name: str, task_type: str, payload: Any, **how: Any) -> Schedule:
    """As `keep`, of the server's own; where a person's schedule has the name, it gets one like it. Invalid, Conflict."""
    there = own(task_type, payload)
    while there is None and db.value("SELECT 1 FROM schedules WHERE tenant_id = :tenant AND queue = 'orkosi' AND name = :name", name=name):
        name += "+"
    return keep(queue.OWN, there.name if there else name, payload, task_type=task_type, **how)


def find(queue_name: str, name: str) -> Schedule:
    """One schedule. NotFound."""
    found = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND queue = :queue AND name = :name", queue=queue_name, name=name)
    if found is None:
        raise NotFound(f"There is no schedule {name!r} in queue {queue_name}")
    return found


def numbered(id: int) -> Schedule:
    """One schedule by its number. NotFound."""
    found = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND id = :id", id=id)
    if found is None:
        raise NotFound(f"There is no schedule {id}")
    return found


@writes
def change(id: int, **values: Any) -> Schedule:
    """Change columns of a schedule; its pending job is planned anew, and what runs runs on. NotFound, Invalid, Conflict.

    Another cron line or `every_ms` begins now. A slot that was met is not met again."""
    before = numbered(id)
    if values.keys() & {"cron", "every_ms"} and (values.get("cron"), values.get("every_ms")) != (before.cron, before.every_ms):
        values["starts_at"] = now()
    if "payload" in values:
        shares.require(bytes=_size(values["payload"]) - _size(before.payload))
        values["payload"] = jsoned(values["payload"])
    db.patch(dict, "schedules", id, **values)
    made = numbered(id)
    checked(made.cron, made.every_ms, made.tz, seconds(made.starts_at), field="cron")
    if (pending := _withdraw(before, due=True)) or not _lives(before):
        if made.enabled:
            due = pending and before.slot and "starts_at" not in values and seconds(before.slot) <= time.time()  # and nobody has taken it yet
            _plan(made, seconds(before.slot or "") - 0.001 if due else max(time.time(), seconds(made.last_run_at or made.starts_at)))
        else:
            db.run("UPDATE schedules SET slot = NULL, job_id = NULL WHERE tenant_id = :tenant AND id = :id", id=id)
    emit("schedule.updated", made)
    return numbered(id)


@writes
def remove(queue_name: str, name: str) -> Schedule:
    """End a schedule, and take its pending job along; what runs runs on. NotFound."""
    gone = find(queue_name, name)
    _withdraw(gone, due=True)
    db.run("DELETE FROM schedules WHERE tenant_id = :tenant AND id = :id", id=gone.id)
    emit("schedule.deleted", gone)
    return gone


# ── planning ──


def _home(one: Schedule) -> int:
    """The tenant in whose queue its jobs lie: the server's own jobs are all the host's."""
    return HOST_TENANT if one.queue == queue.OWN else one.tenant_id


def _withdraw(one: Schedule, *, due: bool = False) -> bool:
    """Take its pending job back, or also one that is due and that nobody has begun; whether there was one."""
    with acting(system(_home(one))):
        return one.job_id is not None and queue.withdraw(one.job_id, due=due)


def _submit(one: Schedule, slot: float) -> tuple[queue.Job, bool]:
    own = one.queue == queue.OWN
    payload = {"tenant": one.tenant_id, "payload": {"schedule": one.id, "slot": iso(slot)}} if own else one.payload
    key = f"repeat:{one.tenant_id}:{one.name}" if own else f"repeat:{one.name}"
    with acting(system(_home(one))):
        return queue.submit(one.queue, one.task_type or one.name, payload, priority=one.priority, max_attempts=one.max_attempts,
                            backoff=(one.backoff_kind, one.backoff_ms), key=f"{key}:{slot * 1000:.0f}", run_at=iso(slot), schedule=one.name)


def _plan(one: Schedule, after: float, before: float | None = None) -> None:
    """Have a job for the first slot after a moment that was not met yet; slots since `before` that it leaves out are missed. Inside a write."""
    if not one.enabled:
        return
    for slot, _ in zip(one.slots.after(after), range(TRIES), strict=False):
        job, known = _submit(one, slot)
        if not known:
            missed = one.slots.between(before, slot - 0.001) if before is not None else 0
            db.run("UPDATE schedules SET slot = :slot, job_id = :job, missed = missed + :missed WHERE tenant_id = :tenant AND id = :id",
                   slot=iso(slot), job=job.id, missed=missed, id=one.id)
            return
    log.error("schedule %s of queue %s has no slot that was not met yet", one.name, one.queue)


def _plan_next(one: Schedule) -> None:
    """The slot after now. Where there is no room for its job, it is planned with the minute: whoever works is not to suffer for it."""
    try:
        _plan(one, max(time.time(), seconds(one.slot) if one.slot else 0.0), seconds(one.slot) if one.slot else None)
    except Problem as problem:
        log.warning("schedule %s of queue %s is not planned: %s", one.name, one.queue, problem.message)
        db.run("UPDATE schedules SET last_error = :why WHERE tenant_id = :tenant AND id = :id", id=one.id, why=problem.message[:500])


def _of(job: queue.Job) -> Schedule | None:
    """The schedule whose newest job this is, in whatever tenant: job numbers are everybody's."""
    return db.one(Schedule, "SELECT * FROM schedules WHERE job_id = :id AND (tenant_id = :tenant OR :own = 1)",
                  id=job.id, own=int(job.queue == queue.OWN)) if job.schedule else None


@plugin.on("job.claimed")
def begun(event: str, job: queue.Job) -> None:
    """A slot is met."""
    if job.schedule and job.attempt == 1 and (one := _of(job)):
        if one.slot and one.last_run_at and one.last_run_at >= one.slot:
            return  # it was begun before, and given back
        with acting(system(one.tenant_id)):
            db.run("UPDATE schedules SET runs = runs + 1, last_run_at = :now WHERE tenant_id = :tenant AND id = :id", id=one.id, now=now())
            if one.overlap == "queue" and one.queue != queue.OWN:  # there, what overlaps is what the job makes
                _plan_next(one)


@plugin.on("job.completed")
@plugin.on("job.failed")
@plugin.on("job.cancelled")
@plugin.on("job.removed")
def ended(event: str, job: queue.Job) -> None:
    """The job of a slot is over: there is a next one."""
    if job.schedule and (one := _of(job)):
        with acting(system(one.tenant_id)):
            error = job.error if event == "job.failed" else None
            if one.last_error != error:
                db.run("UPDATE schedules SET last_error = :error WHERE tenant_id = :tenant AND id = :id", error=error, id=one.id)
            _plan_next(one)


# ── what the clock does ──


@queue.before_due
@across_tenants
def pass_over_late() -> None:
    """Before late jobs are let go: those of schedules that do not catch up go on to the next slot. One that cannot is logged, and runs late."""
    for tenant, id in db.all(tuple, LATE, late=now(-GRACE)):
        with acting(system(tenant)):
            try:
                _pass_over(id)
            except Problem as problem:  # of one tenant: the sweeper is everybody's
                log.warning("schedule %d does not go on: %s", id, problem.message)


# Asked by the sweeper each second: one step in the index of delayed jobs, as long as none is late.
LATE = """SELECT schedules.tenant_id, schedules.id FROM jobs JOIN schedules ON schedules.job_id = jobs.id
           WHERE jobs.state = 'delayed' AND jobs.held_for IS NULL AND jobs.run_at <= :late AND jobs.attempt = 0 AND catch_up = 'skip'"""


@writes
def _pass_over(id: int) -> None:
    one = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND id = :id", id=id)
    if one is None or one.slot is None or seconds(one.slot) > time.time() - GRACE:
        return
    first = seconds(one.slot)
    if not _withdraw(one):
        return
    fresh = one.slots.latest(time.time() - GRACE, time.time())
    db.run("UPDATE schedules SET missed = missed + 1 WHERE tenant_id = :tenant AND id = :id", id=id)
    _plan(one, (fresh or time.time()) - 0.001, first)


@queue.on_clock
@across_tenants
def set_right(jump: float) -> None:
    """After the clock was set back: what was planned by the wrong one is planned anew."""
    if jump < 0:
        for tenant, id in db.all(tuple, "SELECT tenant_id, id FROM schedules WHERE enabled = 1 AND slot > :now", now=now()):
            with acting(system(tenant)):
                _plan_anew(id)


@plugin.on("opened")
@across_tenants
def began(event: str, folder: object) -> None:
    """The same for a clock that was set back while no server ran."""
    for tenant, id in db.all(tuple, "SELECT tenant_id, id FROM schedules WHERE enabled = 1 AND last_run_at > :now", now=now(GRACE)):
        with acting(system(tenant)):
            _plan_anew(id)


@plugin.every("1m")
@across_tenants
def mend() -> None:
    """Plan what has no job that is pending or runs, however that came."""
    for tenant, id in db.all(tuple, """
            SELECT schedules.tenant_id, schedules.id FROM schedules LEFT JOIN jobs ON jobs.id = schedules.job_id
             WHERE enabled = 1 AND (jobs.id IS NULL OR jobs.finished_at IS NOT NULL)"""):
        with acting(system(tenant)):
            _mend(id)


@writes
def _plan_anew(id: int) -> None:
    one = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND id = :id", id=id)
    if one and (_withdraw(one) or not _lives(one)):
        if one.runs and seconds(one.starts_at) > time.time():  # it began by the clock that was wrong
            db.run("UPDATE schedules SET starts_at = :start WHERE tenant_id = :tenant AND id = :id", start=iso(one.slots.earlier(time.time())), id=id)
            one = find(one.queue, one.name)
        _plan(one, time.time())


@writes
def _mend(id: int) -> None:
    one = db.one(Schedule, "SELECT * FROM schedules WHERE tenant_id = :tenant AND id = :id", id=id)
    if one and not _lives(one):
        _plan_next(one)


def _lives(one: Schedule) -> bool:
    """Whether the job of its slot is pending, or runs."""
    with acting(system(_home(one))):
        return db.value("SELECT 1 FROM jobs WHERE tenant_id = :tenant AND id = :id AND finished_at IS NULL", id=one.job_id) is not None


from . import filing as filing  # noqa: E402  # last: it uses the verbs above
