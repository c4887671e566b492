"""Idle connections: kept where they cost nothing until they speak.

waitress asks every connection at every turn of its loop whether it wants to read or write, so that a thousand silent
ones would make every request dearer. Those that have been silent for a fifth of a second, and those whose request
waits, stand here instead: one entry in waitress's map, whatever their number.
"""
import selectors
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.server.http import Channel

SILENT, LOOK = 0.2, 0.1  # seconds without a word after which a connection goes there; and between two looks for such


class Idle:
    """The silent connections, as one of waitress's dispatchers."""

    accepting = False

    def __init__(self, map: dict[int, Any]):
        self._map, self._looked = map, 0.0
        self._selector = selectors.DefaultSelector()
        self._fd = self._selector.fileno()  # type: ignore[attr-defined]  # epoll and kqueue are files themselves
        map[self._fd] = self

    # ── coming and going ──

    def take(self, channel: "Channel") -> None:
        """Have a connection stand here."""
        if not channel.idling and channel.connected:
            del self._map[channel._fileno]
            self._selector.register(channel.socket, selectors.EVENT_READ, channel)
            channel.idling = True

    def give(self, channel: "Channel") -> None:
        """Have it stand among the others again."""
        if channel.idling:
            self.forget(channel)
            self._map[channel._fileno] = channel

    def forget(self, channel: "Channel") -> None:
        """It is about to be closed, or spoke before its turn."""
        if channel.idling:
            channel.idling = False
            if not channel.deaf:
                self._selector.unregister(channel.socket)
            channel.deaf = False

    def look(self) -> None:
        """Take in who has been silent for long."""
        moment = time.monotonic()
        if moment - self._looked >= LOOK:
            self._looked = moment
            for channel in [one for one in self._map.values() if getattr(one, "touched", moment) < moment - SILENT]:
                if channel.silent():
                    self.take(channel)

    # ── as waitress sees it ──

    def readable(self) -> bool:
        return bool(self._selector.get_map())

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        for key, _ in self._selector.select(0):
            channel = key.data
            if not channel.requests:
                self.give(channel)
                channel.handle_read_event()
            elif channel.hung_up():
                channel.handle_close()
            else:  # it speaks while its request waits: that is for later, and its end is looked for once a second
                self._selector.unregister(channel.socket)
                channel.deaf = True

    def handle_close(self) -> None:
        """Never: nothing is on the other side."""

    handle_write_event = handle_expt_event = handle_error = handle_close

    def close(self) -> None:
        self._map.pop(self._fd, None)
        self._selector.close()
