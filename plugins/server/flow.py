"""Flow: how many bytes of large answers are under way at once, over all connections.

A list of 200 jobs may weigh 50 MB, and many of them at once all the memory there is. So whoever is about to
read much says how much: 16 MB are under way at a time, or one answer that is larger. Where there is no room, the
request waits for it, and holds no thread; it is asked again once somebody has read theirs. What is small never waits.
"""
import threading
from collections import deque
from collections.abc import Callable

from orkosi import Unavailable, here
from plugins.server.parked import Parked

SMALL = 256 << 10    # bytes of an answer that the loop makes by itself
LARGE = 1 << 20      # bytes from which on an answer is large
SHARE = 16 << 20     # bytes of large answers under way at once
WAITING, PATIENCE = 64, 20.0  # who may wait for room, and for how many seconds


class NoRoom(Unavailable):
    """The bytes under way leave no room for so many more."""

    def __init__(self, size: int):
        super().__init__("Too many large answers are under way; ask for fewer items, or again in a moment", headers={"Retry-After": "2"})
        self.size = size


class Flow:
    """The bytes under way, and those who wait for room."""

    def __init__(self) -> None:
        self.under_way = 0
        self._line: deque[Parked] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        return len(self._line)

    def enter(self, size: int) -> None:
        """Take the room that `size` bytes need. NoRoom where there is none."""
        if size > SMALL and hasattr(here, "patience"):  # in the loop, which makes no large answers: it is asked again in a lane
            raise NoRoom(size)
        if size < LARGE:
            return
        with self._lock:
            if self.under_way and self.under_way + size > SHARE:
                raise NoRoom(size)
            self.under_way += size
        here.heavy = getattr(here, "heavy", 0) + size

    def line_up(self, problem: NoRoom, ring: Callable[[], None], before: Parked | None) -> Parked | None:
        """Wait for room; at the head of the line, who has waited `before`. None where too many wait."""
        with self._lock:
            if before is None and len(self._line) >= WAITING:
                return None
            place = before or Place(PATIENCE, ring, problem)
            (self._line.append if before is None else self._line.appendleft)(place)
        if not self.under_way:  # the last one left between the two looks
            self.leave(0)
        return place

    def step_out(self, place: Parked) -> None:
        with self._lock:
            if place in self._line:
                self._line.remove(place)

    def leave(self, size: int) -> None:
        """These bytes are read, or nobody wants them any more: as many are asked again as there is room for."""
        rung = []
        with self._lock:
            self.under_way -= size
            soon = self.under_way
            while self._line and (not soon or soon + self._line[0].nothing.size <= SHARE):
                soon += self._line[0].nothing.size
                rung.append(self._line.popleft())
        for place in rung:
            place.ring()


class Place(Parked):
    """A place in that line."""

    def leave(self) -> None:
        flow.step_out(self)


def taken() -> int:
    """How many bytes this thread has entered since the last call; the caller must see to it that they leave again."""
    heavy: int = getattr(here, "heavy", 0)
    here.heavy = 0
    return heavy


flow = Flow()
