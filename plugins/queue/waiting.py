"""Waiting: claims that stay until there is a job for them.

A claim that finds nothing stands in a line, in the very transaction that found nothing; what makes a job ready wakes,
after its commit, the one that waits longest and takes such a job. All of it goes through the one writer, so none is
missed. Whoever was woken and goes without a job wakes the next. Surprise: a claim is only good where it arrives. What
was claimed for a client that is gone goes back, at no cost of an attempt.
"""
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from orkosi import HOST_TENANT, NotFound, acting, current, db, settings, stopping, system, writes
from plugins.server.parked import Parked

from . import NEXT, OWNS, Job, LeaseLost, claim, plugin, release

plugin.setting("tenant_waiting", int, 200, "Claims of one tenant that may wait for a job at once; beyond it, they are answered at once; "
                                           "the host has no limit")

MOST = 1000   # of 1,200 connections: the rest must be free for everybody else
GLANCE = 0.5  # seconds between two looks of a waiting thread whether the server stops

TYPES = NEXT.replace("*", "task_type", 1)

Place = tuple[int | None, str]
_sleepers: dict[Place, deque["Sleeper"]] = {}
_waiting: Counter[int | None] = Counter()  # tenant → how many of its claims wait, or are on the way to their job; not the server's own
_awake: Counter[Place] = Counter()         # woken, and on the way to their job
_lock = threading.Lock()


class Sleeper(Parked):
    """One waiting claim. Who is woken leaves the line, so that the next job wakes the next."""

    def __init__(self, place: Place, task_type: str | None, wait: float, ring: Callable[[], None]):
        super().__init__(wait, ring)
        self.place, self.task_type, self.woken_for, self.stands = place, task_type, "", True

    def leave(self, *, served: bool = False) -> None:
        """Wait no more. Who was woken, and goes without, wakes the next."""
        with _lock:
            if not self.stands:
                return
            self.stands = False
            if self.place[1] not in OWNS:
                _count(_waiting, self.place[0], -1)
            if self.woken_for:
                _count(_awake, self.place, -1)
            else:
                _take_out(self)
        if self.woken_for and not served:
            wake(*self.place, self.woken_for)


@writes(durable=False)
def claim_or_wait(queue: str, worker: str, *, wait: float, ring: Callable[[], None], task_type: str | None = None, batch: int = 1,
                  before: Parked | None = None) -> list[Job]:
    """Claim; where there is nothing, stand in line for `wait` seconds. Empty where too many wait already.

    Raises Parked, whose `ring` is called when there is something: then call this again, with it as `before`.
    """
    taken = claim(queue, worker, task_type=task_type, batch=batch)
    if isinstance(before, Sleeper):
        if not taken and _line_up_again(before):
            raise before
        before.leave(served=bool(taken))
    elif not taken and wait > 0 and (sleeper := _enter((current().tenant, queue), task_type, wait, ring)):
        raise sleeper
    return taken


def wait_and_claim(queue: str, worker: str, *, wait: float, task_type: str | None = None, batch: int = 1) -> list[Job]:
    """Claim, and if there is nothing, let this thread wait up to `wait` seconds for something."""
    bell, before = threading.Event(), None
    while True:
        try:
            return claim_or_wait(queue, worker, wait=wait, ring=bell.set, task_type=task_type, batch=batch, before=before)
        except Parked as place:
            before = place
        while not bell.wait(GLANCE) or stopping.is_set():
            if time.monotonic() >= before.until or stopping.is_set():
                before.leave()
                return []
        bell.clear()


def _enter(place: Place, task_type: str | None, wait: float, ring: Callable[[], None]) -> Sleeper | None:
    tenant, queue = place
    with _lock:
        if queue not in OWNS:
            if _waiting.total() >= MOST or (tenant != HOST_TENANT and _waiting[tenant] >= settings.tenant_waiting):
                return None
            _waiting[tenant] += 1
        sleeper = Sleeper(place, task_type, wait, ring)
        _sleepers.setdefault(place, deque()).append(sleeper)
        return sleeper


def _line_up_again(sleeper: Sleeper) -> bool:
    """Somebody else was faster: back to the head of the line. False where its time is over."""
    if time.monotonic() >= sleeper.until:
        return False
    with _lock:
        if sleeper.stands and sleeper.woken_for:
            sleeper.woken_for = ""
            _count(_awake, sleeper.place, -1)
            _sleepers.setdefault(sleeper.place, deque()).appendleft(sleeper)
        return sleeper.stands


def _take_out(sleeper: Sleeper) -> None:
    line = _sleepers[sleeper.place]
    line.remove(sleeper)
    if not line:
        del _sleepers[sleeper.place]


def _count(counter: Counter, key: object, more: int) -> None:
    counter[key] += more
    if not counter[key]:
        del counter[key]


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
        _take_out(sleeper)
        _awake[tenant, queue] += 1
        sleeper.woken_for = task_type
    sleeper.ring()


def let_go() -> None:
    """The server stops: its own hands, which wait in threads, look up."""
    with _lock:
        hands = [sleeper for place, line in _sleepers.items() if place[1] in OWNS for sleeper in line]
    for sleeper in hands:
        sleeper.ring()


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
