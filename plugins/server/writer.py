"""The writer: the one thread that runs the quick writes of HTTP.

The loop has asked who they are from and read what they say; the writer runs them, up to 64 in a turn, each tenant
having its turn, in the transaction of everything that waits to be written. It encodes the answers and hands them
back; it touches no socket. Surprise: where a flush takes long, it waits a moment after one, until the clients
who were just answered are back, so that they are in the next; unless something came that waits for no flush.
"""
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from orkosi import Unavailable, Write, db
from plugins.server.call import Call
from plugins.server.lanes import Lane, Line, guarded

MOST, QUICK = 64, 32  # writes in a turn; and where a flush takes no time, so that each turn is short
SLOW, SHARE, LONGEST = 0.004, 1, 0.016  # seconds of a flush that is slow; the part of one that is waited after it, and seconds at most


class Writer:
    """A line of calls, and the thread that takes them from it."""

    def __init__(self, handed: deque[Call], wake: Callable[[], None], lane: Lane):
        self._handed, self._wake, self._lane = handed, wake, lane
        self._line, self._came, self._over = Line(), threading.Condition(), False
        self._flush = 0.0    # seconds that the last one took
        self._stood = -1     # how many stood in line when the first of the last turn was answered: who is answered may be back at once
        self._hurry = False  # something came that waits for no flush
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def add(self, calls: Iterable[Call]) -> None:
        """Have these run; each is handed back once its commit holds."""
        with self._came:
            for call in calls:
                self._line.add(call.request.actor.tenant, call)
                self._hurry |= not _durable(call)
            self._came.notify()

    def close(self) -> None:
        """Run what waits, and take no more."""
        with self._came:
            self._over = True
            self._came.notify()
        self._thread.join(5)

    def _work(self) -> None:
        pause, enough = 0.0, 0
        while calls := self._next(pause, enough):
            self._flush, self._stood = 0.0, -1
            guarded(partial(self._turn, calls))
            pause, enough = min(self._flush / SHARE, LONGEST) if self._flush > SLOW else 0.0, self._stood + len(calls)

    def _next(self, pause: float, enough: int) -> list[Call]:
        with self._came:
            end = time.monotonic() + pause
            while self._line.length < enough and not self._hurry and not self._over and (left := end - time.monotonic()) > 0:
                self._came.wait(left)
            while not self._line.length:
                if self._over:
                    return []
                self._came.wait()
            self._hurry = False
            return self._line.take(MOST if pause else QUICK)

    def _turn(self, calls: list[Call]) -> None:
        bell = threading.Lock()
        bell.acquire()
        left = Counter(_durable(call) for call in calls)
        ran = 0.0

        def timed(call: Call) -> Callable[[], Any]:
            def run() -> Any:
                nonlocal ran
                try:
                    return call.run()
                finally:
                    ran = time.perf_counter()
            run.__qualname__ = call.endpoint.operation if call.endpoint else ""  # what a slow one is called in the log
            return run

        def told(call: Call, item: Write) -> None:
            if not item.finished:  # the turn to write is ours
                bell.release()
                return
            if self._stood < 0:
                self._stood = self._line.length
            self._flush = self._flush or (time.perf_counter() - ran if item.durable else 0.0)
            guarded(partial(self._settle, item, call))  # whoever leads the turn tells the others, too
            left[item.durable] -= 1
            if not left[item.durable]:  # all that one commit held: the loop is woken once for them
                self._wake()
            if not left.total():
                bell.release()
        db.write_all([Write(timed(call), call.request.actor, _durable(call), partial(told, call)) for call in calls], bell)

    def _settle(self, item: Write, call: Call) -> None:
        """Do what follows from a commit, encode the answer, hand it over; in a lane, where that may take long."""
        def follow() -> None:
            for one in item.after if item.error is None else ():
                guarded(one)
            try:
                call.finish(item.result, item.error)
            finally:  # the loop ends the connection of one that has no answer, and waits for none
                self._handed.append(call)

        def elsewhere() -> None:
            follow()
            self._wake()
        if not item.slow or item.error is not None:
            return follow()
        try:
            self._lane.add(call.request.actor.tenant, elsewhere)
        except Unavailable:  # it must be done all the same
            threading.Thread(target=elsewhere, daemon=True).start()
        return None


def _durable(call: Call) -> bool:
    assert call.endpoint
    return call.endpoint.durable
