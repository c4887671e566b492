"""waitress, taught deadlines, and to wait for nobody.

Every byte a client drips moves waitress's own timeout, so that a few sockets could hold every place for
ever. Here a request has 10 s for its headers and 30 s in all; an answer must be read at 64 KB a second, and
goes on at least once in 30 s. Idle connections make room where places run out. Errors that waitress answers
by itself are JSON, too.

Surprise: no thread ever waits for a client. The next request of a connection begins once the answer before
it is read, and the loop answers by itself only where nothing can make it wait: a quick request, alone on its
connection, with no output before it.
"""
import json
import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest

from orkosi import clean
from plugins.server.flow import flow

log = logging.getLogger("orkosi")

HEADERS, WHOLE, IDLE = 10.0, 30.0, 75.0  # seconds
SLOWEST = 64 << 10   # bytes a second that an answer is read with at least, once its first 30 s are over
IN_THE_WAY = 5.0     # seconds without progress for a large answer that others wait behind
UNREAD = 256 << 20   # bytes of answers that wait to be read, in all: beyond it, who reads slowest goes
FINISH = 5.0         # seconds from being told to end to leaving what is still under way
SEND = 128 << 10     # bytes that the system keeps of an answer: of what it keeps, nobody hears whether it arrived
PLACES, SPARE = 1200, 64  # connections; and how many idle ones make room at once
THREADS = 64

CODES = {400: "invalid", 413: "too_large", 431: "invalid", 500: "internal_error", 501: "invalid"}
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class Parser(HTTPRequestParser):
    """A request as it comes in. What can never become one is refused at once."""

    begun = False

    def received(self, data: bytes) -> int:
        if not self.begun and (first := data.lstrip(b"\r\n")[:1]):
            self.begun = True
            if not first.isalpha():  # a TLS hello, for example: its end of headers would never come
                self.parse_header(b"GET / HTTP/1.0\r\n")
                self.error = BadRequest("That is no HTTP request; this port speaks plain HTTP")
                self.completed = True
                return len(data)
        return int(super().received(data))

    def parse_header(self, header_plus: bytes) -> None:
        self.command, self.path = "", "/"  # for what looks at a request that could not be parsed
        super().parse_header(header_plus)
        if "CONTENT_LENGTH" in self.headers and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            raise ParsingError("Content-Length and Transfer-Encoding stand together")
        if self.version == "1.1" and not self.headers.get("HOST"):
            raise ParsingError("Host is missing")


class JsonError(ErrorTask):
    """The answer to what never became a request: a bad line, a body too large."""

    def execute(self) -> None:
        error = self.request.error
        self.channel.server.count_malformed(f"{error.reason}: {error.body}", self.channel.addr[0])
        body = json.dumps({"error": {"code": CODES.get(error.code, "invalid"), "message": f"{error.reason}: {error.body}"[:300],
                                     "request_id": uuid.uuid4().hex[:16]}}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.response_headers.append(("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"))
        self.response_headers.append(("X-Content-Type-Options", "nosniff"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Work(WSGITask):
    """A request, with what the application may ask of its connection."""

    def get_environment(self) -> dict[str, Any]:
        prepared, self.channel.prepared = self.channel.prepared, None
        if prepared is not None:
            return prepared
        environ: dict[str, Any] = super().get_environment()
        environ["orkosi.hung_up"], environ["orkosi.owes"] = self.channel.hung_up, self.channel.owes
        return environ

    def write(self, data: bytes) -> None:
        """Head and body in one send, where that is possible."""
        if self.wrote_header or not data or not self.complete or not self.has_body or self.content_length != len(data):
            super().write(data)
            return
        self.wrote_header, self.content_bytes_written = True, len(data)
        self.channel.write_soon(self.build_response_header() + data)

    def execute(self) -> None:
        try:
            super().execute()
        except ClientDisconnected:
            self.channel.give_up()
            raise


class Aftermath:
    """What is to be done, by a worker, where an answer did not arrive."""

    def __init__(self, service: Callable[[], None]):
        self.service = service

    def cancel(self) -> None:
        """The server ends: leases end by themselves."""


class Channel(HTTPChannel):
    """A connection that knows since when the present request, or answer, is under way."""

    parser_class, task_class, error_task_class = Parser, Work, JsonError
    since = 0.0        # when the request that is being received began; 0: none is
    until = 0.0        # when the answer that waits must be read
    stuck_since = 0.0  # since when it waits without progress
    stuck_at = 0
    fresh = False      # a request was just received, and nobody has it yet
    held_back = False  # the next request waits for the answer before it to be read
    prepared: dict[str, Any] | None = None  # the environment of an answer that the loop has made
    if_lost: Callable[[], None] | None = None
    heavy = 0          # bytes of the answer that count against the whole server's share

    def __init__(self, *args: Any, **kwargs: Any):
        self.touched = time.monotonic()
        super().__init__(*args, **kwargs)

    # ── in the loop ──

    def readable(self) -> bool:
        return not self.server.finishing and bool(super().readable())

    def writable(self) -> bool:
        return self.held_back or bool(super().writable())

    def received(self, data: bytes) -> bool:
        self.touched = time.monotonic()
        if not self.since:
            self.since = self.touched
        result = super().received(data)
        if self.request is None:
            self.since = 0.0
        return result

    def handle_read(self) -> None:
        super().handle_read()
        if self.fresh:
            self.fresh = False
            if self.server.at_once(self):
                self.service()
                if self.total_outbufs_len:
                    self.handle_write()
            else:
                self.server.task_dispatcher.add_task(self)

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
                self.server.task_dispatcher.add_task(self)
        if not self.total_outbufs_len:
            self.settle()

    def handle_close(self) -> None:
        lost = bool(self.total_outbufs_len)
        super().handle_close()
        if lost:
            self.give_up()
        self.settle()

    def idle(self) -> bool:
        """Whether nothing is asked and nothing answered here."""
        return not (self.requests or self.request is not None or self.total_outbufs_len or self.will_close)

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
            patience = IN_THE_WAY if self.heavy and flow.waiting else WHOLE
            return moment - self.stuck_since > patience or moment > self.until
        self.stuck_at = 0
        return False

    # ── in whatever thread answers ──

    def service(self) -> None:
        super().service()
        if self.server.finishing and not self.requests:
            self.close_when_flushed = True
            self.server.pull_trigger()
        if not self.total_outbufs_len:
            self.settle()

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Never wait: the next request is held back instead, in `add_task`."""

    def owes(self, if_lost: Callable[[], None] | None, heavy: int) -> None:
        """Hear of an answer, before its first byte: what to do where it does not arrive, and what it weighs."""
        with self.outbuf_lock:
            self.if_lost, self.heavy = if_lost, self.heavy + heavy

    def settle(self) -> None:
        """The answer is read, or its client is gone."""
        with self.outbuf_lock:
            heavy, self.heavy, self.if_lost, self.until = self.heavy, 0, None, 0.0
        if heavy:
            flow.leave(heavy)

    def give_up(self) -> None:
        """The answer did not arrive: have undone what can be."""
        with self.outbuf_lock:
            if_lost, self.if_lost = self.if_lost, None
        if if_lost:
            self.server.task_dispatcher.add_task(Aftermath(if_lost))

    def hung_up(self) -> bool:
        """Whether the client is gone; for whoever waits, or is about to give away something, on its behalf."""
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


class Server(TcpWSGIServer):
    """A waitress server that looks at its channels every second, puts the overdue out, and ends in order."""

    channel_class = Channel
    next_channel_cleanup = float("inf")  # waitress's own, by wall time: a clock that jumps must not hang up on anybody
    looked = 0.0
    finishing = 0.0  # since when it was told to end
    loop = 0

    def __init__(self, *args: Any, **kwargs: Any):
        self.malformed, self.last_malformed = 0, ""
        super().__init__(*args, **kwargs)

    # ── the loop ──

    def run(self) -> None:
        """Serve until `finish` was called and nothing is under way, or 5 s after."""
        self.loop = threading.get_ident()
        while not self.finished():
            wasyncore.loop(timeout=1.0, use_poll=self.adj.asyncore_use_poll, map=self._map, count=1)

    def finish(self) -> None:
        """Take no more requests, and let `run` return; may be called by a signal handler."""
        self.finishing = self.finishing or time.monotonic()
        self.pull_trigger()

    def finished(self) -> bool:
        if not self.finishing:
            return False
        busy = [one for one in list(self.active_channels.values()) if one.requests or one.total_outbufs_len]
        return not busy or time.monotonic() - self.finishing > FINISH

    def readable(self) -> bool:
        moment = time.monotonic()
        if moment - self.looked >= 1:
            self.looked = moment
            self.put_out(moment)
            self.tell_malformed()
        if len(self._map) >= PLACES - SPARE:
            self.make_room()
        return not self.finishing and bool(super().readable())

    # ── who answers ──

    def add_task(self, channel: Channel) -> None:
        """Have the next request of a connection answered; called when it is wholly received, or the one before it answered."""
        if channel.total_outbufs_len:
            channel.held_back = True
        elif threading.get_ident() == self.loop:
            channel.fresh = True  # who answers is decided once all that came with it is parsed
        else:
            self.task_dispatcher.add_task(channel)

    def at_once(self, channel: Channel) -> bool:
        """Whether the loop itself answers: what is quick, and alone on its connection. The answer is then made already."""
        request = channel.requests[0]
        if (len(channel.requests) > 1 or channel.request is not None or request.error or request.command != "GET"
                or not self.application.quick(request.path)):
            return False
        environ = Work(channel, request).get_environment()
        prepared = self.application.prepare_at_once(environ)
        if prepared is not None:
            channel.prepared = environ | {"orkosi.prepared": prepared}
        return prepared is not None

    # ── who goes ──

    def put_out(self, moment: float) -> None:
        """Close what is overdue, and what has been silent for long between two requests."""
        unread = 0
        for channel in sorted(self.active_channels.values(), key=lambda one: one.until, reverse=True):
            unread += channel.total_outbufs_len
            if channel.overdue(moment) or (channel.total_outbufs_len and unread > UNREAD):
                if channel.total_outbufs_len:
                    channel.handle_close()  # outright: a polite close would wait for the very client that does not read
                else:
                    channel.will_close = True
            elif channel.idle() and (self.finishing or moment - channel.touched > IDLE):
                channel.will_close = True

    def make_room(self) -> None:
        """Close those that have been idle for longest; who is in the middle of something stays."""
        idle = sorted((one for one in self.active_channels.values() if one.idle()), key=lambda one: one.touched)
        for channel in idle[:SPARE]:
            channel.handle_close()

    def count_malformed(self, what: str, address: str) -> None:
        """Note one request that was none; they are told of in one line a second, however many there are."""
        self.malformed, self.last_malformed = self.malformed + 1, f"{clean(what, 120)} (from {address})"

    def tell_malformed(self) -> None:
        if self.malformed:
            log.warning("%d malformed requests refused, the last: %s", self.malformed, self.last_malformed)
            self.malformed = 0


def listen(application: Any, host: str, port: int) -> Server:
    """A server bound to host:port, not yet running. OSError where the port is taken."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    adj = Adjustments(sockets=[sock], threads=THREADS, connection_limit=PLACES, asyncore_use_poll=True, max_request_body_size=8 << 20,
                      inbuf_overflow=128 << 10, max_request_header_size=32 << 10, channel_request_lookahead=0, ident="orkosi",
                      backlog=1024, recv_bytes=65536,
                      clear_untrusted_proxy_headers=False)  # nothing here reads them, and what clears them would stand between us and the application
    adj.socket_options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND)]
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    return Server(application, {}, _sock=sock, dispatcher=dispatcher, adj=adj, bind_socket=False,
                  sockinfo=(family, socket.SOCK_STREAM, 0, sock.getsockname()))
