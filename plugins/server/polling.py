"""Polling: one look at the sockets of the loop, and what follows of it. It stands in for waitress's own.

Surprise: a client that has said all it will say, and waits for its answer, looks to a Mac's poll as one that has gone (POLLHUP, and POLLPRI
where that is asked for). So nobody is hung up on as long as there is something to read: whoever has gone reads as an end.
"""
import errno
import select
from functools import partial
from typing import Any

from plugins.server.lanes import guarded

DISCONNECTED = {errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED, errno.EPIPE, errno.EBADF}
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def look(timeout: float, map: dict[int, Any]) -> None:
    """Wait for something at one of the sockets at most `timeout` seconds, and have it dealt with."""
    pollster = select.poll()
    for fd, one in list(map.items()):
        flags = (select.POLLIN if one.readable() else 0) | (select.POLLOUT if one.writable() and not one.accepting else 0)
        if flags:
            pollster.register(fd, flags)
    try:
        found = pollster.poll(int(timeout * 1000))
    except OSError as error:
        if error.errno != errno.EINTR:
            raise
        return
    for fd, flags in found:
        if (one := map.get(fd)) is not None:
            _deal(one, flags)


def _deal(one: Any, flags: int) -> None:
    """Have a socket's owner do what there is to do. A fault of ours is logged and closes that connection, never the loop."""
    if not guarded(partial(_tell, one, flags)):
        guarded(one.handle_close)


def _tell(one: Any, flags: int) -> None:
    try:
        if flags & select.POLLIN:
            one.handle_read_event()
        if flags & select.POLLOUT:
            one.handle_write_event()
        if flags & GONE and not flags & select.POLLIN:
            one.handle_close()
    except OSError as error:
        if error.errno not in DISCONNECTED:
            raise
        one.handle_close()
