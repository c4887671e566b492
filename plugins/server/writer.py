"""The writer: the one thread that runs the quick writes of HTTP.

The loop has asked who they are from and read what they say; the writer runs them, up to 32 in a turn, each tenant
having its turn, in the transaction of everything that waits to be written. It encodes the answers and hands them
back; it touches no socket. Surprise: it waits for no flush. What needs one is told of by whoever flushed, while
the writer is at the next turn.
"""
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from orkosi import Unavailable, Write, db
from plugins.server.call import Call
from plugins.server.lanes import Lane, Line, guarded

MOST = 32  # writes in a turn


class Writer:
    """A line of calls, and the thread that takes them from it."""

    def __init__(self, handed: deque[Call], wake: Callable[[], None], lane: Lane):
        self._handed, self._wake, self._lane = handed, wake, lane
        self._line, self._came, self._over = Line(), threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def add(self, calls: Iterable[Call]) -> None:
        """Have these run; each is handed back once its commit holds."""
        with self._came:
            for call in calls:
                self._line.add(call.request.actor.tenant, call)
            self._came.notify()

    def close(self) -> None:
        """Run what waits, and take no more."""
        with self._came:
            self._over = True
            self._came.notify()
        self._thread.join(5)

    def _work(self) -> None:
        while calls := self._next():
            guarded(partial(self._turn, calls))

    def _next(self) -> list[Call]:
        with self._came:
            while not self._line.length and not self._over:
                self._came.wait()
            return self._line.take(MOST)

    def _turn(self, calls: list[Call]) -> None:
        bell = threading.Lock()
        bell.acquire()
        left = Counter(_durable(call) for call in calls)
        uncommitted: set[Write] = set()

        def told(call: Call, item: Write) -> None:
            if item.finished:
                guarded(partial(self._settle, item, call))  # whoever leads the turn, or has flushed, tells the others, too
                left[item.durable] -= 1
                if not left[item.durable]:  # the loop is woken once for them
                    guarded(self._wake)
            if item.committed:
                if item not in uncommitted:
                    return
                uncommitted.remove(item)
            if not item.committed or not uncommitted:  # the turn to write is ours; or it is over
                bell.release()
        items = [Write(_named(call), call.request.actor, _durable(call), partial(told, call)) for call in calls]
        uncommitted.update(items)
        db.write_all(items, bell)

    def _settle(self, item: Write, call: Call) -> None:
        """Do what follows from a commit, encode the answer, hand it over; in a lane, where that may take long."""
        def follow() -> None:
            for one in item.after:  # of one that is committed, also where it could not be flushed
                guarded(one)
            try:
                call.finish(item.result, item.error)
            finally:  # the loop ends the connection of one that has no answer, and waits for none
                self._handed.append(call)

        def elsewhere() -> None:
            follow()
            self._wake()
        if not item.slow or not item.after:
            return follow()
        try:
            self._lane.add(call.request.actor.tenant, elsewhere)
        except Unavailable:  # it must be done all the same
            threading.Thread(target=elsewhere, daemon=True).start()
        return None


def _named(call: Call) -> Callable[[], Any]:
    """What it runs, by the name by which a slow one is called in the log."""
    def run() -> Any:
        return call.run()
    run.__qualname__ = call.endpoint.operation if call.endpoint else ""
    return run


def _durable(call: Call) -> bool:
    assert call.endpoint
    return call.endpoint.durable
