"""waitress, taught deadlines, and to wait for nobody.

Every byte a client drips moves waitress's own timeout, so that a few sockets could hold every place for
ever. Here a request has 10 s for its headers and 30 s in all; an answer must be read at 64 KB a second, and
goes on at least once in 30 s. Idle connections make room where places run out. Errors that waitress answers
by itself are JSON, too.

Where a request runs. The loop reads it, asks who it is from, and writes its answer; nobody else touches a socket.
Between the two, a quick read is answered by the loop itself, a quick write by the writer, all else by a lane.
What waits stands aside. Surprise: the loop and the writer take only what is alone on its connection, with no output
before it, and small: nothing else can make them wait. The next request begins once the answer before it is read.
"""
import json
import logging
import re
import select
import socket
import time
import uuid
from functools import lru_cache
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import build_http_date

from plugins.server import tunnel
from plugins.server.call import STATUS_LINES, Call
from plugins.server.feeds import Feed, feeds
from plugins.server.flow import flow
from plugins.server.parser import Parser
from plugins.server.streams import Part

log = logging.getLogger("orkosi")

HEADERS, WHOLE, IDLE = 10.0, 30.0, 75.0  # seconds
SLOWEST = 64 << 10   # bytes a second that an answer is read with at least, once its first 30 s are over
IN_THE_WAY = 5.0     # seconds without progress for a large answer that others wait behind
TOGETHER = 64 << 10  # bytes of a body that are sent with its head
SEND = 128 << 10     # bytes that the system keeps of an answer: of what it keeps, nobody hears whether it arrived

CODES = {400: "invalid", 413: "too_large", 431: "invalid", 500: "internal_error", 501: "invalid"}
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


SECRET = re.compile(r"((?:authorization|cookie|key|token)[\w-]*\s*:|\bork_).*", re.I | re.S)


class JsonError(ErrorTask):
    """The answer to what never became a request: a bad line, a body too large."""

    def execute(self) -> None:
        error = self.request.error
        said = SECRET.sub(r"\1…", f"{error.reason}: {error.body}")  # it quotes the line that it cannot read, which may be one with a key
        self.channel.server.count_malformed(said, self.channel.addr[0])
        body = json.dumps({"error": {"code": CODES.get(error.code, "invalid"), "message": said[:300],
                                     "request_id": uuid.uuid4().hex[:16]}}).encode()
        self.close_on_finish = self.wrote_header = True
        head = (f"HTTP/1.1 {error.code} {error.reason}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
                "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n{_date(int(time.time()))}")
        self.channel.write_soon(head.encode("latin-1") + (b"" if self.request.command == "HEAD" else body))


class Work(WSGITask):
    """A request's environment, and the writing of its answer."""

    complete = True

    def execute(self) -> None:
        """Head and body in one send, where they are small. The headers are written as they should be, and need none of waitress's mending."""
        call, asked = self.channel.call, self._connection()
        endless = isinstance(call.body, Feed)
        keep = not endless and "close" not in asked and (self.version == "1.1" or "keep-alive" in asked)
        self.close_on_finish = not keep
        said = "Connection: close\r\n" if not keep else "" if self.version == "1.1" else "Connection: Keep-Alive\r\n"
        head = f"HTTP/1.1 {STATUS_LINES.get(call.status, call.status)}\r\n{call.head()}{said}{_date(int(time.time()))}"
        self.wrote_header = True
        body, call.body = (b"" if self.request.command == "HEAD" else call.body), b""  # a large one is kept once
        if isinstance(body, Feed):
            self.close_on_finish = False  # it ends with its client
            self.channel.write_soon(head.encode("latin-1") + body.first)
            self.channel.begin_feed(body, call)
        elif isinstance(body, Part):
            self.channel.write_soon(head.encode("latin-1"))
            self.channel.write_soon(body.buffer())
        elif len(body) > TOGETHER:
            self.channel.write_soon(head.encode("latin-1"))
            self.channel.write_soon(body)
        else:
            self.channel.write_soon(head.encode("latin-1") + body)

    def _connection(self) -> list[str]:
        return [word.strip() for word in self.request.headers.get("CONNECTION", "").lower().split(",")]


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return f"Server: orkosi\r\nDate: {build_http_date(second)}\r\n\r\n"


class Channel(HTTPChannel):
    """A connection that knows since when the present request, or answer, is under way."""

    parser_class, task_class, error_task_class = Parser, Work, JsonError
    since = 0.0        # when the request that is being received began; 0: none is
    until = 0.0        # when the answer that waits must be read
    stuck_since = 0.0  # since when it waits without progress
    stuck_at = 0
    held_back = False  # the next request waits for the answer before it to be read
    call: Call | None = None  # what is under way here, until its answer is read
    idling = False     # it stands among the idle ones,
    deaf = False       # and has said something there already
    feed: Feed | None = None  # what is added to its answer, which has no end

    def __init__(self, *args: Any, **kwargs: Any):
        self.touched = time.monotonic()
        super().__init__(*args, **kwargs)
        self.client = tunnel.client_of(self.addr[0]) or self.addr[0]

    def environment(self, request: Any) -> dict[str, Any]:
        """What a request on this connection says, as WSGI has it."""
        environ: dict[str, Any] = request.environment()
        environ["REMOTE_ADDR"] = self.client
        return environ

    # ── in the loop ──

    def readable(self) -> bool:
        # What was closed to make room, in this very turn, is asked as well: its number may be a newcomer's by the time poll answers.
        return self.connected and not self.server.finishing and bool(super().readable())

    def writable(self) -> bool:
        return self.connected and (self.held_back or bool(super().writable()))

    def received(self, data: bytes) -> bool:
        if self.feed is not None:
            return False  # whatever it says, it is being answered for good
        self.touched = time.monotonic()
        if not self.since:
            self.since = self.touched
        result = super().received(data)
        if self.request is None:
            self.since = 0.0
        return result

    def handle_write(self) -> None:
        if not self.held_back:
            super().handle_write()
        else:  # nobody is at work on this connection
            self._flush_exception(self._flush_some)
            if self.will_close:
                self.handle_close()
            elif not self.total_outbufs_len:
                self.held_back = False
                self.settle()
                self.server.add_task(self)
        if not self.total_outbufs_len:
            self.settle()

    def handle_close(self) -> None:
        lost = bool(self.total_outbufs_len)
        self.server.idle.forget(self)
        super().handle_close()
        if self.feed is not None:
            feeds.leave(self.feed)
        self.server.closed(self, lost)

    def idle(self) -> bool:
        """Whether nothing is asked and nothing answered here."""
        return self.feed is None and not (self.requests or self.request is not None or self.total_outbufs_len or self.will_close)

    def silent(self) -> bool:
        """Whether there is nothing to do here until somebody speaks."""
        return self.idle() or (self.feed is not None and not self.total_outbufs_len)

    def begin_feed(self, feed: Feed, call: Call) -> None:
        """From now on, what happens is written here."""
        self.feed = feed
        feeds.enter(feed, self, call)

    def push(self, raw: bytes) -> None:
        """Write a piece of an answer that has no end: at once, as much as goes."""
        if not self.total_outbufs_len:
            try:
                raw = raw[self.socket.send(raw):]
            except BlockingIOError:
                pass
            except OSError:
                self.handle_close()
                return
        if raw and self.connected:
            self.server.idle.give(self)
            self.write_soon(raw)

    def overdue(self, moment: float) -> bool:
        """Whether this client has had its time."""
        if self.request is not None and self.since:
            allowed = WHOLE if self.request.headers_finished else HEADERS
            return moment - self.since > allowed
        waiting = self.total_outbufs_len
        if waiting:
            self.until = self.until or moment + WHOLE + waiting / SLOWEST
            if waiting != self.stuck_at:
                self.stuck_at, self.stuck_since = waiting, moment
            patience = IN_THE_WAY if self.call and self.call.heavy and flow.waiting else WHOLE
            return moment - self.stuck_since > patience or moment > self.until
        self.stuck_at = 0
        return False

    def answer(self, call: Call) -> None:
        """Write the answer of a call, or as much of it as goes."""
        self.touched = time.monotonic()
        self.call = call
        self.service()
        if self.server.finishing and not self.requests:
            self.close_when_flushed = True
        if not self.total_outbufs_len:
            self.settle()
        elif not self.connected:
            self.server.closed(self, True)

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Never wait: the next request is held back instead, in `add_task`."""

    def settle(self) -> None:
        """The answer is read, or its client is gone: what it weighed is free."""
        call, self.until = self.call, 0.0
        if call is not None and call.answered:
            self.call = None
            if call.heavy:
                flow.leave(call.heavy)

    def hung_up(self) -> bool:
        """Whether the client is gone; for who is about to give it something that must not be lost."""
        try:
            poll = select.poll()
            poll.register(self.socket, GONE)
            if not self.connected or any(events & GONE for _, events in poll.poll(0)):
                return True
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except (OSError, ValueError, AttributeError):  # closed meanwhile
            return True
