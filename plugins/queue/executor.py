"""The server's own hands: the sweeper, the pruning, and the threads that run `@plugin.job` handlers.

Surprise: the server's own jobs lie in the host tenant's queue `orkosi`, whoever they are for; the
payload carries the tenant, and the handler runs in that tenant's name. Jobs that wait for other machines lie in a queue beside it, and have hands of
their own: where those hang, letters and backups do not.
"""
import logging
import threading
import time
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from orkosi import HOST_TENANT, Problem, across_tenants, acting, current, db, now, plugins, seconds, settings, system, writes

from . import (
    OUTSIDE,
    OWN,
    Job,
    _back,
    _failed,
    _sooner,
    claim,
    complete,
    fail,
    heartbeat,
    plugin,
    submit,
    wait_and_claim,
    waiting,
)

log = logging.getLogger("orkosi")
HANDS = {OWN: 3, OUTSIDE: 2}  # a backup and a discovery may take long, and letters do not wait for them
JUMP = 5.0  # seconds that the clock may go ahead, or back, between two looks before that is called a sleep, or a correction
_running: dict[int, Job] = {}


# ── sweeping ──


@plugin.service
def sweep(stop: threading.Event) -> None:
    """Make due jobs waiting and take back those whose lease ran out, within a second of the moment."""
    clocks = Clocks()
    while not stop.is_set():
        if jump := clocks.jumped():
            if jump > 0:
                lengthen(jump, clocks.before)
            for tell in _clock_ears:
                tell(jump)
        for ask in _before_due:
            ask()
        promote_due()
        rescue()
        _extend_own()
        waiting.rouse_all()
        _sooner.wait(next_due())
        _sooner.clear()


@plugin.on("stopping")
def hurry(event: str, folder: object) -> None:
    """The server stops: neither the sweeper nor a hand that waits for a job need do so any longer."""
    _sooner.set()
    waiting.let_go()


_before_due: list[Callable[[], None]] = []
_clock_ears: list[Callable[[float], None]] = []


def before_due(do: Callable[[], None]) -> Callable[[], None]:
    """Register what is done before due jobs are let go, each time: it may still take some back."""
    _before_due.append(do)
    return do


def on_clock(do: Callable[[float], None]) -> Callable[[float], None]:
    """Register who hears by how many seconds the clock went ahead, or back, by itself."""
    _clock_ears.append(do)
    return do


class Clocks:
    """The clock on the wall, beside the one that only counts while the machine is awake."""

    def __init__(self) -> None:
        self.wall, self.awake, self.before = time.time(), time.monotonic(), 0.0

    def jumped(self) -> float:
        """How far the wall's clock went by itself since the last look, in seconds: the machine slept, or it was set right; 0.0 for little."""
        before, self.wall, awake, self.awake = self.wall, time.time(), self.awake, time.monotonic()
        self.before, jump = before, (self.wall - before) - (self.awake - awake)
        return jump if abs(jump) > JUMP else 0.0


@writes(durable=False)
@across_tenants
def lengthen(jump: float, before: float) -> int:
    """Give the leases that held at a moment so many seconds more; how many did. Nobody could work meanwhile, so nobody was late."""
    held = db.all(tuple, "SELECT id, lease_expires_at FROM jobs WHERE state = 'active' AND lease_expires_at > :moment",
                  moment=now(before - time.time()))
    db.run_many("UPDATE jobs SET lease_expires_at = :until WHERE id = :id",
                [{"id": id, "until": now(seconds(until) + jump - time.time())} for id, until in held])
    log.info("the clock went ahead by %.0f s, as after a sleep: %d leases last so much longer", jump, len(held))
    return len(held)


@on_clock
def set_right(jump: float) -> None:
    """After the clock was set back, nothing waits for the moments of the wrong one."""
    if jump < 0:
        for job in list(_running.values()):
            job.lease_expires_at = None  # so that it is extended at once
        bring_back(-jump)


@plugin.on("opened")
def began(event: str, folder: object) -> None:
    """The same for a clock that was set back while no server ran."""
    bring_back(None)


@writes(durable=False)
@across_tenants
def bring_back(jump: float | None) -> int:
    """Bring leases and delays that a wrong clock set so many seconds nearer; how many. None: nobody knows by how much the clock was ahead.

    A delay was counted from a claim or from the job's creation; where that is yet to come, it says by how much. With a known `jump` that is so
    also of a retry whose claim was before, and of a lease that lasts beyond the wrong clock's moment: one that does not was given by the right
    one since. Schedules, whose moments are of the calendar, see to their own.
    """
    wall, moment, many = time.time(), now(), 0
    wrong = "9" if jump is None else now(jump - 2)
    for found, move in ((_LEASED, _MOVE_LEASE), (_DELAYED, _MOVE_DELAY)):
        rows = [{"id": id, "now": moment, "due": max(moment, now(seconds(due) - wall - (seconds(since) - wall if jump is None else jump)))}
                for id, due, since in db.all(tuple, found, moment=moment, wrong=wrong, known=0 if jump is None else 1)]
        db.run_many(move, rows)
        many += len(rows)
    if many:
        log.warning("the clock was set back: %d leases and delays are brought nearer", many)
    return many


_LEASED = """SELECT id, lease_expires_at, claimed_at FROM jobs
              WHERE state = 'active' AND lease_expires_at > '' AND (lease_expires_at > :wrong OR claimed_at > :moment)"""
_DELAYED = """SELECT id, run_at, ifnull(claimed_at, created_at) FROM jobs
               WHERE state = 'delayed' AND held_for IS NULL AND run_at > :moment AND schedule IS NULL
                 AND (claimed_at > :moment OR created_at > :moment OR (:known = 1 AND (attempt > 0 OR deferrals > 0)))"""
# What says that the clock was wrong goes with it: else the next start would find it again.
_MOVE_LEASE = "UPDATE jobs SET lease_expires_at = :due, claimed_at = CASE WHEN claimed_at > :now THEN :now ELSE claimed_at END WHERE id = :id"
_MOVE_DELAY = """UPDATE jobs SET run_at = :due, claimed_at = CASE WHEN claimed_at > :now THEN :now ELSE claimed_at END,
                        created_at = CASE WHEN created_at > :now THEN :now ELSE created_at END,
                        deferred_since = CASE WHEN deferred_since > :now THEN :now ELSE deferred_since END WHERE id = :id"""


@across_tenants
def promote_due() -> None:
    """Let delayed jobs whose time has come be claimed."""
    while db.value("SELECT 1 FROM jobs WHERE state = 'delayed' AND held_for IS NULL AND run_at <= :now LIMIT 1", now=now()):
        _promote()


@writes(durable=False)
@across_tenants
def _promote() -> None:
    from . import _ready
    for job in db.all(Job, """
            UPDATE jobs SET state = 'waiting', run_at = NULL
             WHERE id IN (SELECT id FROM jobs WHERE state = 'delayed' AND held_for IS NULL AND run_at <= :now ORDER BY run_at LIMIT 200)
            RETURNING *""", now=now()):
        _ready(job)


def rescue() -> None:
    """Take back jobs whose lease ran out: the attempt counts, and the job goes to the head of its queue."""
    for tenant, until in first_leases():
        if until <= now():
            with acting(system(tenant)):
                for id, in db.all(tuple, """SELECT id FROM jobs WHERE tenant_id = :tenant AND state = 'active'
                                             AND lease_expires_at <= :now ORDER BY lease_expires_at LIMIT 1000""", now=now()):
                    _rescue(id)


@writes
def _rescue(id: int) -> None:
    job = db.one(Job, """SELECT * FROM jobs WHERE id = :id AND tenant_id = :tenant AND state = 'active'
                          AND lease_expires_at <= :now""", id=id, now=now())
    if job is None:
        return  # completed or extended in the meantime
    error = f"The lease of {job.worker_id} ran out at {job.lease_expires_at} (attempt {job.attempt} of {job.max_attempts})"
    if job.attempt < job.max_attempts:
        _back(job, "job.retrying", error)
    else:
        _failed(job, error, True, 0)


# ── pruning ──


@plugin.every("1m")
@across_tenants
def prune() -> None:
    """Delete finished jobs whose time is over, a few hundred at a time, so that nobody waits for it."""
    kept = {"completed": settings.keep_completed_days} | dict.fromkeys(("failed", "cancelled", "dead"), settings.keep_failed_days)
    for tenant, in db.all(tuple, "SELECT id FROM tenants"):
        with acting(system(tenant)):
            for state, days in kept.items():
                while _prune(state, now(-days * 86400)) == 500:
                    time.sleep(0.02)


@writes(durable=False)
def _prune(state: str, before: str) -> int:
    return db.run("""DELETE FROM jobs WHERE id IN (
                       SELECT id FROM jobs WHERE tenant_id = :tenant AND state = :state AND finished_at IS NOT NULL
                          AND finished_at < :before ORDER BY finished_at LIMIT 500)""", state=state, before=before)


# ── running the server's own jobs ──


def later(kind: str, payload: Any, *, key: str | None = None, attempts: int = 5, timeout: int = 300, delay: float = 0.0,
          outside: bool = False) -> Job:
    """Have the `@plugin.job(kind)` handler run soon, with retries; inside a write, only if that write holds.

    `outside`: it waits for other machines.
    """
    tenant = current().tenant
    with acting(system(HOST_TENANT)):
        job, _ = submit(OUTSIDE if outside else OWN, kind, {"tenant": tenant, "payload": payload}, key=key, max_attempts=attempts, timeout=timeout,
                        run_at=now(delay) if delay else None)
    return job


@plugin.service
def work(stop: threading.Event) -> None:
    """Run the server's own jobs on a few threads."""
    with acting(system(HOST_TENANT)):
        end_leases()
    hands = [threading.Thread(target=_hand, args=(stop, f"orkosi-{number}", queue), daemon=True) for queue, many in HANDS.items()
             for number in range(many)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()


@writes(durable=False)
def end_leases() -> None:
    """What a server that was killed had in hand is nobody's now: it is taken back at once, not when its lease runs out."""
    db.run("""UPDATE jobs SET lease_expires_at = :now WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''
                                                       AND (queue = :own OR queue = :outside)""", now=now(), own=OWN, outside=OUTSIDE)


def _hand(stop: threading.Event, name: str, queue: str) -> None:
    with acting(system()):
        while not stop.is_set():
            try:
                for job in _take(name, queue):
                    run(job)
            except Problem as problem:
                log.error("job loop: %s", problem.message)
                stop.wait(1)


def _take(name: str, queue: str = OWN) -> list[Job]:
    return claim(queue, name) or wait_and_claim(queue, name, wait=5)


def run(job: Job) -> None:
    """Run one job's handler and settle the job; an error of the handler is a failed attempt, not a crash."""
    handler = next((one.jobs[job.task_type] for one in plugins.values() if job.task_type in one.jobs), None)
    assert job.lease_token
    if handler is None:
        fail(job.id, job.lease_token, f"This version knows no job {job.task_type!r}", retryable=False)
        return
    _running[job.id] = job
    try:
        kind = next(iter(typing.get_type_hints(handler).values()), Any)
        with acting(system(job.payload["tenant"])):
            result = handler(msgspec.convert(job.payload["payload"], kind))
        complete(job.id, job.lease_token, result)
    except Problem as problem:
        fail(job.id, job.lease_token, problem.message, retryable=problem.status in (429, 500, 503, 507))
    except Exception as error:
        log.exception("job_%s %s failed", job.id, job.task_type)
        fail(job.id, job.lease_token, f"{type(error).__name__}: {error}")
    finally:
        _running.pop(job.id, None)


def _extend_own() -> None:
    """Keep the leases of what this process is running."""
    for job in list(_running.values()):
        if job.lease_token and now(job.timeout_seconds / 2) > (job.lease_expires_at or ""):
            with acting(system(job.tenant_id)):
                try:
                    job.lease_expires_at = heartbeat(job.id, job.lease_token).lease_expires_at
                except Problem as problem:
                    log.warning("job_%s: %s", job.id, problem.message)


# ── what comes next ──


@across_tenants
def first_leases() -> list[tuple[int, str]]:
    """(tenant, when its first lease runs out), for every tenant that has one: an index step each."""
    return db.all(tuple, """
        WITH RECURSIVE busy (tenant) AS (
          SELECT min(tenant_id) FROM jobs WHERE state = 'active'
          UNION ALL SELECT (SELECT min(tenant_id) FROM jobs WHERE state = 'active' AND tenant_id > busy.tenant)
            FROM busy WHERE busy.tenant IS NOT NULL)
        SELECT tenant, (SELECT min(lease_expires_at) FROM jobs WHERE state = 'active' AND tenant_id = tenant)
          FROM busy WHERE tenant IS NOT NULL""")


@across_tenants
def next_due() -> float:
    """Seconds until something is due, at most 1."""
    first = db.value("SELECT run_at FROM jobs WHERE state = 'delayed' AND held_for IS NULL ORDER BY run_at LIMIT 1")
    lease = min((until for _, until in first_leases()), default=None)
    soonest = min((seconds(moment) for moment in (first, lease) if moment), default=float("inf"))
    return max(0.01, min(1.0, soonest - time.time()))
