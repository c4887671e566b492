"""Working: what a worker says of a job between its claim and its end, and what it hears in return.

A heartbeat may stay: it stands aside until its job is cancelled, its lease is somebody else's, its queue is paused or its key
is taken away, and then it is asked again at once. So a worker learns within moments what would else wait for its next beat.
Surprise: who listens does so in a write of its own, after the one that extended the lease: whatever changes the job
comes before it, and is seen, or after it, and rings.
"""
import threading
import time
from collections.abc import Callable
from typing import Any

from orkosi import Struct, current, db, now, seconds, writes
from plugins.server.parked import Parked

from . import Job, _back, _failed, _held, _lost, find, jsoned_any, plugin

MOST = 1000         # listeners at once, of all tenants; beyond it, a heartbeat is answered at once
PATIENCE = 86400.0  # seconds for which a job may be put off


class Signals(Struct):
    """What a heartbeat tells a worker."""
    cancel: bool
    pause: bool
    lease_expires_at: str | None


class Listener(Parked):
    """One heartbeat that stays, for a job of a tenant's queue."""

    def __init__(self, job: Job, wait: float, ring: Callable[[], None], nothing: Signals):
        super().__init__(wait, ring, nothing)
        self.job, self.place = job.id, (job.tenant_id, job.queue)

    def leave(self) -> None:
        with _lock:
            _listening.discard(self)


_listening: set[Listener] = set()
_lock = threading.Lock()


@writes(durable=False)
def release(id: int, token: str) -> Job:
    """Give a job back untouched: waiting again, at no cost of an attempt. NotFound, LeaseLost."""
    return _back(_held(id, token), "job.released", None, refund=1)


@writes
def put_off(id: int, token: str, reason: str, *, after: float | None = None, until: float | None = None) -> Job:
    """Give a job back that cannot be done just now: due again after so many seconds, at no cost of an attempt. NotFound, LeaseLost.

    Without `after`: 30 s, doubled each time in turn, 30 min at most. Where it would be due only past `until` (seconds since the epoch), or
    without that a day after it was first put off, it has failed instead; an `until` that was over by then counts for nothing.
    """
    job = _held(id, token)
    since = job.deferred_since or now()
    wait = min(30.0 * 2 ** min(job.deferrals, 10), 1800.0) if after is None else after
    last = until if until and until > seconds(since) else seconds(since) + PATIENCE
    if time.time() + wait > last:
        times = f"put off {job.deferrals} times since {since}" if job.deferrals else "to be put off"
        return _failed(job, f"It was {times}, and there is no time left to wait: {reason}", False, 0.0)
    return _back(job, "job.deferred", reason, max(wait, 0.001), refund=1, put_off=since)


@writes(durable=False)
def heartbeat(id: int, token: str, *, extend: float | None = None, progress: Any = None, tokens: int | None = None) -> Signals:
    """Extend a lease by `extend` seconds from now (default: its timeout); never shortens it. NotFound, LeaseLost."""
    job = find(id)
    if job.state == "cancelled" and job.lease_token == token:
        return Signals(True, False, None)
    if job.state != "active" or job.lease_token != token:
        raise _lost(job, token)
    until = max(now(job.timeout_seconds if extend is None else extend), job.lease_expires_at or "")
    db.run("""UPDATE jobs SET lease_expires_at = :until, heard_at = :now, progress = ifnull(:progress, progress),
                     tokens_used = ifnull(:tokens, tokens_used)
               WHERE id = :id AND tenant_id = :tenant""",
           id=id, until=until, now=now(), progress=None if progress is None else jsoned_any(progress), tokens=tokens)
    return Signals(False, paused(job.queue), until)


@writes(durable=False)
def listen(id: int, token: str, *, wait: float, ring: Callable[[], None], before: Parked | None = None) -> Signals:
    """What a heartbeat would tell now; where that is nothing, Parked for `wait` seconds. Extends no lease. NotFound, LeaseLost.

    `before` is the place this request has waited in: it goes on there.
    """
    if before is not None:
        before.leave()
    job = find(id)
    if job.lease_token != token or job.state not in ("active", "cancelled"):
        raise _lost(job, token)
    heard = Signals(job.state == "cancelled", paused(job.queue), job.lease_expires_at)
    if heard.cancel or heard.pause or wait <= 0:
        return heard
    place = before if isinstance(before, Listener) else Listener(job, wait, ring, heard)
    with _lock:
        if len(_listening) >= MOST:
            return heard
        _listening.add(place)
    raise place


def paused(queue: str) -> bool:
    """Whether an operator has paused a queue."""
    return db.value("SELECT paused_at FROM queues WHERE tenant_id = :tenant AND name = :queue", queue=queue) is not None


def tell(whom: Callable[[Listener], bool]) -> None:
    """Inside a write: after its commit, have these heartbeats asked again."""
    if _listening:  # read without the lock: who comes later sees what this write did
        db.after_commit(lambda: _ring(whom))


def tell_of(*ids: int) -> None:
    """Inside a write: whoever listens for these jobs is asked again."""
    if _listening:
        tell(lambda one: one.job in ids)


def _ring(whom: Callable[[Listener], bool]) -> None:
    with _lock:
        called = [one for one in _listening if whom(one)]
    for one in called:
        one.ring()


@plugin.on("key.revoked")
@plugin.on("key.deleted")
@plugin.on("key.rotated")
@plugin.on("key.updated")
def admit_again(event: str, key: Struct, **facts: Any) -> None:
    """Whoever listens with a key that ended hears it at once: asked again, it is let in no more."""
    tenant = current().tenant
    tell(lambda one: one.place[0] == tenant)
