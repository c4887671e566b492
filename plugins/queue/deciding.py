"""What an operator decides about jobs and queues: cancel, retry, hold, hurry, pause.

Owns the table `queues`; writes `jobs` as the face does. Surprise: a cancelled job ends at once, though a worker may have it:
it hears so at its next heartbeat.
"""
from collections import OrderedDict
from collections.abc import Collection

import msgspec

from orkosi import Conflict, current, db, emit, now, writes

from . import UNFINISHED, Job, State, _back, _failed, _ready, _visible, find, plugin, waiting, working
from .seeing import of_ids


@writes
def cancel(id: int) -> Job:
    """End an unfinished job at once; a worker that has it hears so at its next heartbeat. NotFound, Conflict."""
    job = find(id)
    if job.state not in UNFINISHED:
        raise Conflict(f"job_{id} is already {job.state}")
    job = db.one(Job, """
        UPDATE jobs SET state = 'cancelled', finished_at = :now, lease_expires_at = NULL, run_at = NULL, held_for = NULL
         WHERE id = :id AND tenant_id = :tenant RETURNING *""", id=id, now=now())
    working.tell_of(id)
    emit("job.cancelled", job)
    return job


_were: OrderedDict[int, tuple[State, int]] = OrderedDict()  # the jobs that were retried last → what they were, after how many attempts
REMEMBERED = 10_000


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Another data folder has its own jobs."""
    _were.clear()


@writes
def retry(id: int) -> Job:
    """Run a dead, failed or cancelled job again, with all its attempts; cancelled it stays where nobody needs it any more. NotFound, Conflict."""
    job = find(id)
    if job.state not in ("dead", "failed", "cancelled"):
        raise Conflict(f"job_{id} is {job.state}; only dead, failed and cancelled jobs are retried")
    _were[id] = job.state, job.attempt
    if len(_were) > REMEMBERED:
        _were.popitem(last=False)
    job = db.one(Job, """
        UPDATE jobs SET state = 'waiting', attempt = 0, finished_at = NULL, lease_token = NULL, run_at = NULL, deferrals = 0, deferred_since = NULL
         WHERE id = :id AND tenant_id = :tenant RETURNING *""", id=id)
    _ready(job)
    emit("job.revived", job)
    return find(id)  # whoever heard of it may have had it cancelled


@writes
def withdraw(id: int, *, due: bool = False) -> bool:
    """Take a job away that is delayed, or also one that is `due`, and was never tried, as if it had not been submitted; whether it was one."""
    states = "('delayed', 'waiting')" if due else "('delayed')"
    return bool(db.run(f"DELETE FROM jobs WHERE tenant_id = :tenant AND id = :id AND state IN {states} AND attempt = 0", id=id))


@writes
def promote(id: int) -> Job:
    """Let a delayed job be claimed at once. NotFound, Conflict where it is not delayed, or is held."""
    job = find(id)
    if job.state != "delayed" or job.held_for:
        raise Conflict(f"job_{id} is {'held: ' + job.held_for if job.held_for else job.state}; only delayed jobs are promoted")
    job = db.one(Job, "UPDATE jobs SET state = 'waiting', run_at = NULL WHERE id = :id AND tenant_id = :tenant RETURNING *", id=id)
    _ready(job)
    return job


@writes
def remove(id: int) -> Job:
    """Take a job away that nobody works on. NotFound, Conflict."""
    job = find(id)
    if job.state == "active":
        raise Conflict(f"job_{id} is active; cancel it first")
    db.run("DELETE FROM jobs WHERE tenant_id = :tenant AND id = :id", id=id)
    emit("job.removed", job)
    return job


def retry_dead(queue: str) -> int:
    """Run every dead job of a queue again; how many. In steps, so that others get their turn."""
    done = 0
    while ids := [row[0] for row in db.all(tuple, """
            SELECT id FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'dead' AND finished_at IS NOT NULL
             ORDER BY finished_at LIMIT 200""", queue=queue)]:
        if not (moved := _retry_some(ids)):  # somebody else retries the same ones
            break
        done += moved
    return done


@writes
def _retry_each(ids: list[int]) -> None:
    for id in ids:
        retry(id)


STEP = 200  # jobs that one write changes, so that others get their turn


def retry_some(ids: list[int]) -> int:
    """Run those of these jobs again that are dead, failed or cancelled; how many. The others, and those that there are not, stay as they are."""
    return sum(_retry_some(ids[at:at + STEP]) for at in range(0, len(ids), STEP))


@writes
def _retry_some(ids: list[int]) -> int:
    found = [job.id for job in of_ids(ids) if job.state in ("dead", "failed", "cancelled") and _visible(job.queue)]
    _retry_each(found)
    return len(found)


def bury(ids: list[int]) -> int:
    """Take a retry back: those of these jobs that failed before, wait, and were not tried since, are again what they were; how many.

    That is remembered while the server runs; afterwards, they are dead.
    """
    return sum(_bury(ids[at:at + STEP]) for at in range(0, len(ids), STEP))


@writes
def _bury(ids: list[int]) -> int:
    found = [job for job in of_ids(ids) if job.state == "waiting" and job.attempt == 0 and job.error
             and not job.deferrals and _visible(job.queue)]  # one that was put off has not failed
    for job in found:
        state, attempt = _were.get(job.id, ("dead", job.max_attempts))
        db.run("UPDATE jobs SET attempt = :attempt WHERE id = :id AND tenant_id = :tenant", id=job.id, attempt=attempt)
        if state == "cancelled":
            cancel(job.id)
        else:
            _failed(msgspec.structs.replace(find(job.id), attempt=job.max_attempts), job.error or "", state == "dead", 0)
    return len(found)


@writes
def hold(id: int, held_for: str) -> None:
    """Keep a waiting or delayed job back until `unhold`; `held_for` is the sentence that says why."""
    db.run("""UPDATE jobs SET state = 'delayed', held_for = :why WHERE id = :id AND tenant_id = :tenant
               AND state IN ('waiting', 'delayed')""", id=id, why=held_for)


@writes
def unhold(id: int) -> None:
    """Let a held job go: waiting at once, or when it is due."""
    job = db.one(Job, """
        UPDATE jobs SET held_for = NULL, state = CASE WHEN run_at > :now THEN 'delayed' ELSE 'waiting' END,
               run_at = CASE WHEN run_at > :now THEN run_at END
         WHERE id = :id AND tenant_id = :tenant AND state = 'delayed' AND held_for IS NOT NULL RETURNING *""", id=id, now=now())
    if job:
        _ready(job)


@writes
def reprioritize(id: int, priority: int) -> None:
    """Let a job run sooner or later, or one that is at work its next attempt; lower runs first."""
    db.run("""UPDATE jobs SET priority = :priority WHERE id = :id AND tenant_id = :tenant
               AND state IN ('waiting', 'delayed', 'active')""", id=id, priority=priority)


@writes
def pause(queue: str) -> None:
    """Let nobody claim from a queue; what is running runs on."""
    db.run("""INSERT INTO queues (tenant_id, name, paused_at) VALUES (:tenant, :queue, :now)
              ON CONFLICT DO UPDATE SET paused_at = ifnull(paused_at, excluded.paused_at)""", queue=queue, now=now())
    place = current().tenant, queue
    working.tell(lambda one: one.place == place)


@writes
def resume(queue: str) -> None:
    """Let workers claim again."""
    db.run("UPDATE queues SET paused_at = NULL WHERE tenant_id = :tenant AND name = :queue", queue=queue)
    tenant = current().tenant
    db.after_commit(lambda: waiting.rouse((tenant, queue)))


@writes
def release_active(queue: str, *, but: Collection[int] = ()) -> int:
    """Take back every running job of a queue, at no cost of an attempt; how many. Not those of `but`."""
    running = db.all(Job, """SELECT * FROM jobs WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''
                                                  AND queue = :queue""", queue=queue)
    held = [job for job in running if job.id not in but]
    for job in held:
        _back(job, "job.released", None, refund=1)
    return len(held)


@writes
def release_of(worker: str, *, but: set[int]) -> int:
    """Take back the running jobs of workers whose name begins so, at no cost of an attempt; how many. Not those of `but`."""
    held = _of_worker(worker, but)
    for job in held:
        _back(job, "job.released", None, refund=1)
    return len(held)


@writes
def lose_of(worker: str, error: str, *, but: set[int], before: str | None = None) -> int:
    """As if their leases had run out: a worker is known to be dead. The attempt counts. `before`: only what was claimed by that moment."""
    held = [job for job in _of_worker(worker, but) if before is None or (job.claimed_at or "") <= before]
    for job in held:
        _failed(job, f"{error} (attempt {job.attempt} of {job.max_attempts})", True, 0)
    return len(held)


def _of_worker(worker: str, but: set[int]) -> list[Job]:
    held = db.all(Job, """SELECT * FROM jobs WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''
                           AND substr(worker_id, 1, length(:worker)) = :worker""", worker=worker)
    return [job for job in held if job.id not in but]
