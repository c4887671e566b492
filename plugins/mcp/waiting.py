"""Waiting: tools that have nothing to answer yet.

A call that waits stands aside as any parked request does. Where its client asks for progress, and takes a stream, it gets one: how long it has
waited, every few seconds, and its result at the end. It ends where the client cancels, or hangs up. Surprise: who may cancel is who called: the
numbers of calls are the clients' own, and two of them may use the same.
"""
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from orkosi import Document, Problem, acting, current
from plugins.activity import stream
from plugins.server.feeds import Feed, Waiter, document
from plugins.server.lanes import guarded
from plugins.server.parked import Parked

from .rpc import Message

PACE = 2.0  # seconds between two words of progress
Place = tuple[str, str, int | str]

_lock = threading.Lock()
_standing: weakref.WeakValueDictionary[Place, "Parked | Following"] = weakref.WeakValueDictionary()
_cancelled: weakref.WeakSet[Parked] = weakref.WeakSet()


def _place(id: int | str) -> Place:
    return current().ref, current().credential, id


def stand(message: Message, parked: "Parked | Following") -> None:
    """Note that a call stands aside, or follows what happens."""
    with _lock:
        _standing[_place(message.id or 0)] = parked


def cancel(id: Any) -> None:
    """A client wants nothing more of a call of its own."""
    if not isinstance(id, int | str):
        return
    with _lock:
        parked = _standing.get(_place(id))
        if isinstance(parked, Following):
            parked.until = 0.0  # its next word is its last
        if not isinstance(parked, Parked):
            return
        _cancelled.add(parked)
    parked.ring()


def was_cancelled(parked: Parked | None) -> bool:
    """Whether a call that stood aside is wanted no more."""
    return parked is not None and parked in _cancelled


class Following(Feed):
    """One call that waits for something that happens, as a stream of its progress and its result."""

    def __init__(self, message: Message, again: Callable[[], Any], finished: Callable[[Any], bytes], waiter: Waiter):
        self.me = current()
        tenant = self.me.tenant or 0
        super().__init__(stream.source, tenant, object(), lambda _: True, stream.source.head(tenant), quiet=PACE)
        self.message, self.again, self.finished = message, again, finished
        self.began, self.until, self.nothing = time.monotonic(), waiter.until, waiter.nothing

    def packed(self, rows: list[Any]) -> bytes:
        """Something happened: perhaps what is waited for."""
        if self.over or not any(row.type.startswith("task.") for row in rows):
            return b""
        told: list[Any] = []
        if not guarded(partial(self._ask, told)):  # one that fails ends alone: all feeds have one pump
            told = [Problem("Internal error")]
        return self._last(told[0]) if told else b""

    def _ask(self, told: list[Any]) -> None:
        """Add what is answered by now, if anything is."""
        try:
            with acting(self.me):
                told.append(self.again())
        except Parked as parked:
            parked.leave()
            self.nothing = parked.nothing
        except Problem as problem:
            told.append(problem)

    def heartbeat(self) -> bytes:
        """How long it has waited; at the end of its time, what there is."""
        if time.monotonic() >= self.until:
            return self._last(self.nothing)
        waited = time.monotonic() - self.began
        return _event(msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
            "progressToken": self.message.meta["progressToken"], "progress": round(waited, 3), "total": round(self.until - self.began, 3),
            "message": f"Waiting for {waited:.0f} s"}}))

    def _last(self, made: Any) -> bytes:
        self.over = True
        return _event(self.finished(made))


def followed(message: Message, parked: Parked, accepts: str, again: Callable[[], Any], finished: Callable[[Any], bytes]) -> Document | None:
    """A stream for a call that waits, where its client asks for progress, and it can be told."""
    token = message.meta.get("progressToken")
    if "text/event-stream" not in accepts or not isinstance(parked, Waiter) or isinstance(token, bool) or not isinstance(token, int | str):
        return None
    feed = Following(message, again, finished, parked)
    parked.leave()
    stand(message, feed)
    return document(feed)


def _event(raw: bytes) -> bytes:
    return b"event: message\ndata: %s\n\n" % raw

