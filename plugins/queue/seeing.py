"""Seeing: what is in a queue, and why a job is not running."""
import time
from collections.abc import Callable
from typing import get_args

import msgspec

from orkosi import COUNTED, Struct, db, jsoned, seconds

from . import JOBS, UNFINISHED, Job, State, Why, _polled, _visible, paused

STARTED = time.monotonic()
# Most queues have jobs of one type, and many queues those of the same: whoever asks for both means the queue.
OF_QUEUE = msgspec.structs.replace(JOBS, filters=JOBS.filters | {"task_type": "+task_type = :task_type"})

class QueueStats(Struct):
    """How many jobs of a queue are in each state; `at_least` names the states whose count stopped at 10,000."""
    queue_name: str
    paused: bool
    counts: dict[str, int]
    oldest_waiting_at: str | None
    at_least: list[str]


def names() -> list[str]:
    """Every queue of this tenant that whoever asks may see, by name: one index step for each, whatever their length."""
    return [row[0] for row in db.all(tuple, """
        WITH RECURSIVE found (name) AS (
          SELECT min(queue) FROM jobs WHERE tenant_id = :tenant
          UNION ALL SELECT (SELECT min(queue) FROM jobs WHERE tenant_id = :tenant AND queue > found.name) FROM found WHERE found.name IS NOT NULL)
        SELECT name FROM found WHERE name IS NOT NULL UNION SELECT name FROM queues WHERE tenant_id = :tenant AND paused_at IS NOT NULL
        ORDER BY name""") if _visible(row[0])]


# Literals again, so that each count walks one partial index and nothing else. Of the active ones SQLite takes it only where something is said
# of its next column: what is always true of them, here and wherever somebody asks what is under lease.
_TRUE = {"waiting": "", "delayed": "", "active": " AND lease_expires_at > ''"}
_OF_STATE = {state: f"tenant_id = :tenant AND queue = :queue AND state = '{state}'" + _TRUE.get(state, " AND finished_at IS NOT NULL")
             for state in get_args(State)}


# The first of each priority, of the thousand most urgent: a step or two of an index for each, whoever makes a queue of how many.
_OLDEST = f"""
    WITH RECURSIVE found (priority, number) AS (
      SELECT min(priority), 1 FROM jobs WHERE {_OF_STATE["waiting"]}
      UNION ALL SELECT (SELECT min(priority) FROM jobs WHERE {_OF_STATE["waiting"]} AND priority > found.priority), number + 1 FROM found
                 WHERE found.priority IS NOT NULL AND number < 1000)
    SELECT min((SELECT created_at FROM jobs WHERE {_OF_STATE["waiting"]} AND priority = found.priority ORDER BY id LIMIT 1))
      FROM found WHERE found.priority IS NOT NULL"""


def stats(queue: str) -> QueueStats:
    """Counts by state. Finished ones are counted to 10,000, so that a long history costs nothing."""
    counts, at_least = {}, []
    for state in get_args(State):
        counts[state] = db.value(f"SELECT count(*) FROM (SELECT 1 FROM jobs WHERE {_OF_STATE[state]} LIMIT :most)",
                                 queue=queue, most=-1 if state in UNFINISHED else COUNTED)
        if counts[state] == COUNTED and state not in UNFINISHED:
            at_least.append(state)
    return QueueStats(queue, paused(queue), counts, db.value(_OLDEST, queue=queue), at_least)


Asked = list[Job]
_explainers: list[Callable[[Asked], list[list[Why]]]] = []


def explains(ask: Callable[[Asked], list[list[Why]]]) -> Callable[[Asked], list[list[Why]]]:
    """Register a function that knows further reasons why each of some jobs is not running: a list for each, in their order.

    It goes by their queues: what it says of one that waits, it says of all that wait there."""
    _explainers.append(ask)
    return ask


_shutters: list[Callable[[str], bool]] = []


def shuts(ask: Callable[[str], bool]) -> Callable[[str], bool]:
    """Register a function that says, quickly, whether nobody may claim from a queue of this name now; `explains` says why."""
    _shutters.append(ask)
    return ask


def shut(queue: str) -> bool:
    """Whether another plugin lets nobody claim from a queue."""
    for ask in _shutters:  # a loop, and no any(): a claim comes by here
        if ask(queue):
            return True
    return False


def whys_of(ids: list[int]) -> dict[int, list[Why]]:
    """Why each of these jobs of this tenant is not running, by number; those there are not are not in it.

    Most jobs of a list wait, and nothing else is to be said of them: one is asked about for each queue, and speaks for all of these.
    """
    odd, alike = [], dict[str, list[int]]()
    for id, name, special in db.all(tuple, """
            SELECT id, queue, state <> 'waiting' OR held_for IS NOT NULL OR run_at IS NOT NULL FROM jobs
             WHERE tenant_id = :tenant AND id IN (SELECT value FROM json_each(:ids))""", ids=jsoned(ids)) if ids else ():
        if special:
            odd.append(id)
        else:
            alike.setdefault(name, []).append(id)
    jobs = of_ids(odd + [some[0] for some in alike.values()])
    found = {job.id: said for job, said in zip(jobs, whys(jobs), strict=True)}
    return found | {id: found[some[0]] for some in alike.values() for id in some}


def of_ids(ids: list[int]) -> list[Job]:
    """Jobs of this tenant by number, without their payloads and results: what `whys` needs of them."""
    return db.all(Job, """
        SELECT id, tenant_id, queue, task_type, 'null' AS payload, priority, state, attempt, max_attempts, backoff_kind, backoff_ms,
               timeout_seconds, run_at, lease_expires_at, worker_id, error, held_for, deferrals, deferred_since, created_at, claimed_at, heard_at
          FROM jobs WHERE tenant_id = :tenant AND id IN (SELECT value FROM json_each(:ids))""", ids=jsoned(ids)) if ids else []


def why(job: Job) -> list[Why]:
    """Why a job is not running; empty while it is, or once it is completed."""
    return whys([job])[0]


def whys(jobs: list[Job]) -> list[list[Why]]:
    """Why each of these jobs of this tenant is not running, at as many questions as they have queues."""
    pending = [job for job in jobs if job.state in ("waiting", "delayed")]
    stopped = {queue for queue in {job.queue for job in pending} if paused(queue)}
    known = {job.id: said for job, said in zip(pending, explained(pending), strict=True)}
    return [_standing(job, job.queue in stopped, known[job.id]) if job.id in known else _at_rest(job) for job in jobs]


def explained(jobs: list[Job]) -> list[list[Why]]:
    """What other plugins know of why each of some jobs is not running."""
    answers = [ask(jobs) for ask in _explainers] if jobs else []
    return [[one for answer in answers for one in answer[at]] for at in range(len(jobs))]


def _at_rest(job: Job) -> list[Why]:
    if job.state == "dead":
        return [Why("attempts_exhausted", f"All {job.max_attempts} attempts failed; the last: {job.error}")]
    if job.state == "failed":
        return [Why("not_retryable", f"It was not to be tried again: {job.error}")]
    if job.state == "cancelled":
        return [Why("cancelled", "It was cancelled; retry it to run it after all")]
    if job.state == "active" and job.claimed_at and job.lease_expires_at:  # a lease may be extended by more, or by less, than its timeout
        silent = min(time.time() - seconds(max(job.claimed_at, job.heard_at or "")),
                     job.timeout_seconds - (seconds(job.lease_expires_at) - time.time()))
        if silent > job.timeout_seconds * 2 / 3:  # two beats: a worker beats three times in a lease
            return [Why("worker_silent", f"Its worker {job.worker_id} has not been heard of for {silent:.0f} s; "
                                         f"if it stays silent, the job is free again at {job.lease_expires_at}")]
    return []


def _standing(job: Job, stopped: bool, known: list[Why]) -> list[Why]:
    found = [Why("queue_paused", f"The queue {job.queue} is paused")] if stopped else []
    if job.held_for:
        found.append(Why("held", job.held_for))
    if job.run_at and job.deferrals:
        found.append(Why("put_off", f"Put off until {job.run_at}, at no cost of an attempt: {job.error} "
                                    f"(put off {job.deferrals} times since {job.deferred_since})"))
    elif job.run_at:
        found.append(Why("delayed", f"Delayed until {job.run_at}" + (f"; the last attempt failed: {job.error}" if job.error else "")))
    found += known
    return found or (_nobody_claims(job) if job.state == "waiting" else [])


def _nobody_claims(job: Job) -> list[Why]:
    seen = _polled.get((job.tenant_id, job.queue))
    idle = (time.monotonic() - (seen or STARTED)) / 60
    if idle >= 1:
        since = f"for {idle:.0f} minutes" if seen else f"since the server started {idle:.0f} minutes ago"
        return [Why("no_worker", f"No worker has claimed from {job.queue} {since}")]
    return [Why("next", "It waits for its turn")] if seen else [Why("no_worker", f"No worker has claimed from {job.queue} yet")]
