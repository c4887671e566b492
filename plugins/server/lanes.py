"""Lanes: the few threads that do what the loop must not wait for, and the fair line before each.

`hash` derives keys from passwords, `disk` does whatever reads or writes files or reads much, `outside` waits for
other machines. A lane never waits for another, and none is entered without end: where it is full, the answer is 503.
"""
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from orkosi import Unavailable

log = logging.getLogger("orkosi")

THREADS = {"hash": 1, "disk": 4, "outside": 4}
PLACES = {"hash": 64, "disk": 512, "outside": 64}  # who waits for a thread; half of them at most for one tenant


def guarded(task: Callable[[], Any]) -> bool:
    """Do `task`; what goes wrong is logged, for the thread that does it must go on. Whether all went well."""
    try:
        task()
    except Exception:
        named = getattr(task, "func", task)
        log.exception("%s failed", getattr(named, "__qualname__", named))
        return False
    return True


class Line:
    """A line in which every tenant has its turn: whoever asks much waits behind themselves. One thread at a time may use it."""

    def __init__(self) -> None:
        self._of: dict[Hashable, deque[Any]] = {}
        self.length = 0

    def add(self, tenant: Hashable, item: Any) -> None:
        self._of.setdefault(tenant, deque()).append(item)
        self.length += 1

    def waiting(self, tenant: Hashable) -> int:
        return len(self._of.get(tenant, ()))

    def take(self, most: int) -> list[Any]:
        """The next ones: of each tenant the first, then of each the second, and so on."""
        taken: list[Any] = []
        while self._of and len(taken) < most:
            tenant, items = next(iter(self._of.items()))
            del self._of[tenant]
            taken.append(items.popleft())
            if items:
                self._of[tenant] = items  # to the end: the others come first
        self.length -= len(taken)
        return taken


class Lane:
    """Some threads and the line before them."""

    def __init__(self, name: str, threads: int, places: int):
        self.name, self.threads, self.places = name, threads, places
        self._line, self._turn, self._over = Line(), threading.Condition(), False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def add(self, tenant: Hashable, task: Callable[[], Any]) -> None:
        """Have a thread do `task` as soon as one is free. Unavailable where the line is full."""
        with self._turn:
            if self._line.length >= self.places or self._line.waiting(tenant) * 2 >= self.places:
                raise Unavailable("Too many requests of this kind wait; try again", headers={"Retry-After": "2"})
            self._line.add(tenant, task)
            self._turn.notify()

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return self._line.length

    def close(self) -> None:
        """Take no more; what is under way ends by itself."""
        with self._turn:
            self._over = True
            self._turn.notify_all()

    def _work(self) -> None:
        while True:
            with self._turn:
                while not self._line.length:
                    if self._over:
                        return
                    self._turn.wait()
                task, = self._line.take(1)
            guarded(task)
            del task


def lanes() -> dict[str, Lane]:
    """Every lane, at work."""
    return {name: Lane(name, threads, PLACES[name]) for name, threads in THREADS.items()}
