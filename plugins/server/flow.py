"""Flow: how many bytes of large answers are under way at once, over all connections.

A list of 200 jobs may weigh 50 MB, and many of them at once all the memory there is. So whoever is about to
read much says how much, and waits for his turn: 16 MB are under way at a time, or one answer that is larger.
What is small never waits. Surprise: a turn ends when the client has read the answer, or is gone (http.py).
"""
import threading
import time

from orkosi import Unavailable, here

SMALL = 256 << 10    # bytes of an answer that the loop makes by itself
LARGE = 1 << 20      # bytes from which on an answer is large
SHARE = 16 << 20     # bytes of large answers under way at once
WAITING, PATIENCE = 8, 20.0  # who waits holds a thread: not many, and not for long


class Flow:
    """The bytes under way, and those who wait for their turn."""

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting = 0
        self._turn = threading.Condition()

    def enter(self, size: int) -> None:
        """Wait until `size` bytes may be under way. Unavailable where too many wait, or for too long."""
        if size > SMALL and hasattr(here, "patience"):  # in the loop, which waits for nobody: it is asked again in a thread
            raise _busy()
        if size < LARGE:
            return
        end = time.monotonic() + PATIENCE
        with self._turn:
            if not self._room(size):
                if self.waiting >= WAITING:
                    raise _busy()
                self.waiting += 1
                try:
                    while not self._room(size):
                        if not self._turn.wait(end - time.monotonic()) and time.monotonic() >= end:
                            raise _busy()
                finally:
                    self.waiting -= 1
            self.under_way += size
        here.heavy = getattr(here, "heavy", 0) + size

    def _room(self, size: int) -> bool:
        return not self.under_way or self.under_way + size <= SHARE

    def leave(self, size: int) -> None:
        """These bytes are read, or nobody wants them any more."""
        with self._turn:
            self.under_way -= size
            self._turn.notify_all()


def taken() -> int:
    """What this thread entered with since it was last asked: whoever asks sees to it that it is left."""
    heavy: int = getattr(here, "heavy", 0)
    here.heavy = 0
    return heavy


def _busy() -> Unavailable:
    return Unavailable("Too many large answers are under way; ask for fewer items, or again in a moment", headers={"Retry-After": "2"})


flow = Flow()
