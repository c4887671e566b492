"""Parked requests: answers that come later, and hold no thread until then.

An endpoint's function that finds nothing yet raises a `Parked`. The request then stands aside with its connection;
when what it waits for may be there, somebody rings, and it is asked once more, from the beginning: who asks, and
may they still. At its end, or when the server stops, it gets what it had coming for nothing found.
"""
import heapq
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.server.call import Call


class Parked(Exception):
    """One request that waits: until when (monotonic seconds), who rings, and what it gets at its end: an answer, or a Problem."""

    def __init__(self, wait: float, ring: Callable[[], None], nothing: Any = None):
        super().__init__()
        self.until, self.ring, self.nothing = time.monotonic() + wait, ring, nothing

    def leave(self) -> None:
        """Leave the line it stands in, with what it waited for or without; again changes nothing."""


class Room:
    """The calls that stand aside, by the end of their time. Only the loop uses it."""

    def __init__(self) -> None:
        self.calls: dict[Call, None] = {}
        self._ends: list[tuple[float, int, Call]] = []
        self._count = itertools.count()

    def enter(self, call: "Call") -> None:
        heapq.heappush(self._ends, (call.waits.until, next(self._count), call))
        self.calls[call] = None

    def leave(self, call: "Call") -> bool:
        """Whether it stood there."""
        if len(self._ends) > 64 and len(self._ends) > 4 * len(self.calls):
            self._ends = [one for one in self._ends if one[2] in self.calls]
            heapq.heapify(self._ends)
        return self.calls.pop(call, call) is None

    def next_end(self) -> float:
        """When the first one's time is over; infinity where none stands there."""
        while self._ends and self._ends[0][2] not in self.calls:
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else float("inf")

    def over(self) -> list["Call"]:
        """Those whose time is over."""
        moment, found = time.monotonic(), []
        while self.next_end() <= moment:
            found.append(heapq.heappop(self._ends)[2])
            self.calls.pop(found[-1])
        return found

    def some(self, most: int) -> list["Call"]:
        """The next ones in turn, to be looked after."""
        found = list(itertools.islice(self.calls, most))
        for call in found:
            self.calls[call] = self.calls.pop(call)
        return found
