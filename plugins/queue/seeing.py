"""Seeing: what is in a queue, and why a job is not running."""
import time
from collections.abc import Callable
from typing import get_args

from orkosi import COUNTED, Struct, db

from . import UNFINISHED, Job, State, Why, _polled, _visible, paused

STARTED = time.monotonic()

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


# Literals again, so that each count walks one partial index and nothing else.
_OF_STATE = {state: f"tenant_id = :tenant AND queue = :queue AND state = '{state}'"
             + ("" if state in UNFINISHED else " AND finished_at IS NOT NULL") for state in get_args(State)}


def stats(queue: str) -> QueueStats:
    """Counts by state. Finished ones are counted to 10,000, so that a long history costs nothing."""
    counts, at_least = {}, []
    for state in get_args(State):
        counts[state] = db.value(f"SELECT count(*) FROM (SELECT 1 FROM jobs WHERE {_OF_STATE[state]} LIMIT :most)",
                                 queue=queue, most=-1 if state in UNFINISHED else COUNTED)
        if counts[state] == COUNTED and state not in UNFINISHED:
            at_least.append(state)
    oldest = db.value(f"SELECT created_at FROM jobs WHERE {_OF_STATE['waiting']} ORDER BY priority, id LIMIT 1", queue=queue)
    return QueueStats(queue, paused(queue), counts, oldest, at_least)


_explainers: list[Callable[[Job], list[Why]]] = []


def explains(ask: Callable[[Job], list[Why]]) -> Callable[[Job], list[Why]]:
    """Register a function that knows further reasons why a job is not running."""
    _explainers.append(ask)
    return ask


_shutters: list[Callable[[str], bool]] = []


def shuts(ask: Callable[[str], bool]) -> Callable[[str], bool]:
    """Register a function that says, quickly, whether nobody may claim from a queue of this name now; `explains` says why."""
    _shutters.append(ask)
    return ask


def shut(queue: str) -> bool:
    """Whether another plugin lets nobody claim from a queue."""
    return any(ask(queue) for ask in _shutters)


def why(job: Job) -> list[Why]:
    """Why an unfinished or dead job is not running; empty while it is, or once it is done."""
    found: list[Why] = []
    if job.state == "dead":
        return [Why("attempts_exhausted", f"All {job.max_attempts} attempts failed; the last: {job.error}")]
    if job.state == "failed":
        return [Why("not_retryable", f"The worker said not to try again: {job.error}")]
    if job.state not in ("waiting", "delayed"):
        return found
    if paused(job.queue):
        found.append(Why("queue_paused", f"The queue {job.queue} is paused"))
    if job.held_for:
        found.append(Why("held", job.held_for))
    if job.run_at:
        found.append(Why("delayed", f"Delayed until {job.run_at}" + (f"; the last attempt failed: {job.error}" if job.error else "")))
    found += explained(job)
    if job.state == "waiting" and not found:
        found += _nobody_claims(job)
    return found


def explained(job: Job) -> list[Why]:
    """What other plugins know of why a job is not running."""
    return [one for ask in _explainers for one in ask(job)]


def _nobody_claims(job: Job) -> list[Why]:
    seen = _polled.get((job.tenant_id, job.queue))
    idle = (time.monotonic() - (seen or STARTED)) / 60
    if idle >= 1:
        since = f"for {idle:.0f} minutes" if seen else f"since the server started {idle:.0f} minutes ago"
        return [Why("no_worker", f"No worker has claimed from {job.queue} {since}")]
    return [Why("next", "It waits for its turn")] if seen else [Why("no_worker", f"No worker has claimed from {job.queue} yet")]
