"""waitress, taught deadlines.

Every byte a client drips moves waitress's own timeout, so that a few sockets could hold every
place for ever. Here a request has 10 s for its headers and 30 s in all, and an answer that
nobody reads is dropped after 30 s. Errors that waitress answers by itself are JSON, too.
"""
import json
import logging
import socket
import time
import uuid
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

HEADERS, WHOLE, IDLE = 10.0, 30.0, 75.0  # seconds
THREADS = 64
# What programs ask again and again, and one index step answers: waking a worker would cost several times the answer.
QUICK = {"/api/health", "/api/ready", "/api/version", "/api/agent-runs/idle-check"}

CODES = {400: "invalid", 413: "too_large", 431: "invalid", 500: "internal_error", 501: "invalid"}


class JsonError(ErrorTask):
    """The answer to what never became a request: a bad line, a body too large."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": {"code": CODES.get(error.code, "invalid"), "message": f"{error.reason}: {error.body}"[:300],
                                     "request_id": uuid.uuid4().hex[:16]}}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.response_headers.append(("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"))
        self.response_headers.append(("X-Content-Type-Options", "nosniff"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection that knows since when the present request, or answer, is under way."""

    error_task_class = JsonError
    since = 0.0       # when the request that is being received began; 0: none is
    stuck_since = 0.0  # since when an answer waits without progress
    stuck_at = 0

    def __init__(self, *args: Any, **kwargs: Any):
        self.touched = time.monotonic()
        super().__init__(*args, **kwargs)

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
        while self.server.quick:
            self.server.quick.pop().service()

    def overdue(self, moment: float) -> bool:
        """Whether this client has had its time."""
        if self.request is not None and self.since:
            allowed = WHOLE if self.request.headers_finished else HEADERS
            return moment - self.since > allowed
        waiting = self.total_outbufs_len
        if waiting:
            if waiting != self.stuck_at:
                self.stuck_at, self.stuck_since = waiting, moment
            return moment - self.stuck_since > WHOLE
        self.stuck_at = 0
        return False


class Server(TcpWSGIServer):
    """A waitress server that looks at its channels every second, and puts the overdue out."""

    channel_class = Channel
    next_channel_cleanup = float("inf")  # waitress's own, by wall time: a clock that jumps must not hang up on anybody
    looked = 0.0

    def __init__(self, *args: Any, **kwargs: Any):
        self.quick: list[Channel] = []
        super().__init__(*args, **kwargs)

    def add_task(self, task: Any) -> None:
        """Hand a request to a worker; a quick one is answered by the loop itself, as soon as it is wholly read."""
        request = task.requests[0]
        if request.command == "GET" and request.path in QUICK and not request.error:
            self.quick.append(task)
        else:
            super().add_task(task)

    def readable(self) -> bool:
        moment = time.monotonic()
        if moment - self.looked >= 1:
            self.looked = moment
            self.put_out(moment)
        return super().readable()

    def put_out(self, moment: float) -> None:
        """Close what is overdue, and what has been silent for long between two requests."""
        for channel in list(self.active_channels.values()):
            if channel.overdue(moment):
                if channel.total_outbufs_len:
                    channel.handle_close()  # outright: a polite close would wait for the very client that does not read
                else:
                    channel.will_close = True
            elif not channel.requests and channel.request is None and moment - channel.touched > IDLE:
                channel.will_close = True


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
    adj = Adjustments(sockets=[sock], threads=THREADS, connection_limit=1200, asyncore_use_poll=True, max_request_body_size=8 << 20,
                      max_request_header_size=32 << 10, channel_request_lookahead=0, ident="orkosi", backlog=1024, recv_bytes=65536)
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    return Server(application, {}, _sock=sock, dispatcher=dispatcher, adj=adj, bind_socket=False,
                  sockinfo=(family, socket.SOCK_STREAM, 0, sock.getsockname()))
