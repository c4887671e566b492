"""Waiting: requests that stay until there is a job for them.

A waiting request registers, then tries to claim, then sleeps; what makes a job ready wakes, after its commit,
the one that waits longest and takes such a job. Both go through the one writer, so none is missed. Whoever
was woken and goes without a job wakes the next. Surprise: a claim is only good where it arrives. Who waits
looks twice a second whether its client is still there, and what was claimed for one that is not goes back,
at no cost of an attempt.
"""
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from orkosi import NotFound, acting, current, db, settings, stopping, system

from . import NEXT, Job, LeaseLost, claim, plugin, release

plugin.setting("tenant_waiting", int, 32, "Claims of one tenant that may wait for a job at once; beyond it, they are answered at once")

MOST = 48     # of 64 server threads: the rest must be free for everybody else
GLANCE = 0.5  # seconds between two looks whether a client is still there

TYPES = NEXT.replace("*", "task_type", 1)

Place = tuple[int | None, str]
_sleepers: dict[Place, deque["Sleeper"]] = {}
_awake: Counter[Place] = Counter()  # woken, and on the way to their job
_lock = threading.Lock()


class Sleeper:
    """One waiting request. Who is woken leaves the line, so that the next job wakes the next."""
    __slots__ = ("bell", "task_type", "woken_for")

    def __init__(self, task_type: str | None):
        self.bell, self.task_type, self.woken_for = threading.Event(), task_type, ""


def wait_and_claim(queue: str, worker: str, *, wait: float, task_type: str | None = None, batch: int = 1,
                   allowed: Callable[[], bool] = lambda: True, gone: Callable[[], bool] = lambda: False) -> list[Job]:
    """Claim, and if there is nothing, wait up to `wait` seconds for something. Empty where too many wait already.

    `allowed` is asked before every further claim: who lost his key meanwhile must not get the job. `gone`
    says whether the client has hung up.
    """
    if gone():
        return []
    taken = claim(queue, worker, task_type=task_type, batch=batch)
    place, sleeper = (current().tenant, queue), Sleeper(task_type)
    if taken or wait <= 0 or not _enter(place, sleeper):
        return _delivered(taken, gone)
    end = time.monotonic() + wait
    try:
        while not (taken := claim(queue, worker, task_type=task_type, batch=batch)):
            if sleeper.bell.is_set():
                _line_up_again(place, sleeper)  # somebody else was faster; and then once more look before sleeping
                continue
            while not sleeper.bell.wait(max(0.0, min(end - time.monotonic(), GLANCE))):
                if time.monotonic() >= end or stopping.is_set() or gone() or not allowed():
                    return []
            if gone() or not allowed():
                return []
        return _delivered(taken, gone)
    finally:
        if _leave(place, sleeper) and not taken:
            wake(*place, sleeper.woken_for)


def _enter(place: Place, sleeper: Sleeper) -> bool:
    with _lock:
        of_tenant = sum(len(line) for (tenant, _), line in _sleepers.items() if tenant == place[0])
        if of_tenant >= settings.tenant_waiting or sum(map(len, _sleepers.values())) >= MOST:
            return False
        _sleepers.setdefault(place, deque()).append(sleeper)
        return True


def _line_up_again(place: Place, sleeper: Sleeper) -> None:
    """Back to the head of the line."""
    with _lock:
        sleeper.bell.clear()
        _on_the_way(place, -1)
        _sleepers.setdefault(place, deque()).appendleft(sleeper)


def _leave(place: Place, sleeper: Sleeper) -> bool:
    """Wait no more; whether it had been woken."""
    with _lock:
        if sleeper.bell.is_set():
            _on_the_way(place, -1)
            return True
        _sleepers[place].remove(sleeper)
        if not _sleepers[place]:
            del _sleepers[place]
        return False


def _on_the_way(place: Place, more: int) -> None:
    _awake[place] += more
    if not _awake[place]:
        del _awake[place]


def _delivered(jobs: list[Job], gone: Callable[[], bool]) -> list[Job]:
    if jobs and gone():
        give_back(jobs)
        return []
    return jobs


def give_back(jobs: list[Job]) -> None:
    """Release what was claimed for a client that is gone; what is somebody else's by now, stays so."""
    for job in jobs:
        with acting(system(job.tenant_id)), contextlib.suppress(LeaseLost, NotFound):
            release(job.id, job.lease_token or "")


# ── waking ──


def anybody(place: Place) -> bool:
    """Whether somebody waits there. Read without the lock: who comes later tries to claim first."""
    return place in _sleepers


def wake(tenant: int | None, queue: str, task_type: str) -> None:
    """Wake the one who has waited longest for such a job."""
    with _lock:
        line = _sleepers.get((tenant, queue), ())
        sleeper = next((one for one in line if one.task_type in (None, task_type)), None)
        if sleeper is None:
            return
        line.remove(sleeper)  # type: ignore[union-attr]
        if not line:
            del _sleepers[tenant, queue]
        _on_the_way((tenant, queue), 1)
        sleeper.woken_for = task_type
        sleeper.bell.set()


def rouse(place: Place) -> None:
    """Wake as many as there are jobs ready, and no more: after a queue is resumed, or another process has submitted."""
    with _lock:
        asleep, awake = len(_sleepers.get(place, ())), _awake[place]
    with acting(system(place[0])):
        ready = [row[0] for row in db.all(tuple, TYPES, queue=place[1], batch=asleep + awake)] if asleep else []
    for task_type in ready[awake:]:
        wake(*place, task_type)


def rouse_all() -> None:
    """Look after every queue that somebody waits for."""
    for place in list(_sleepers):
        rouse(place)
