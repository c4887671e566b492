"""The loop: who answers a request, who waits, and who goes.

waitress's loop reads requests and writes answers; between two looks at the sockets, it begins what has come in and hands
over what others have answered. Surprise: everything here but `wake`, `ring` and `finish` runs on the loop's one thread,
and may wait for nobody. So it answers only what is alone on its connection, small, and asks the database no more than 20 ms.
"""
import errno
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from orkosi import Conflict, Endpoint, Unavailable, clean, here
from plugins.server import gauges
from plugins.server.call import Call
from plugins.server.door import Door
from plugins.server.feeds import feeds
from plugins.server.flow import SMALL, flow
from plugins.server.http import IDLE, SEND, Channel
from plugins.server.idle import Idle
from plugins.server.lanes import guarded, lanes
from plugins.server.parked import Room
from plugins.server.polling import look
from plugins.server.writer import Writer

log = logging.getLogger("orkosi")

UNREAD = 256 << 20        # bytes of answers that wait to be read, in all: beyond it, who reads slowest goes
FINISH = 5.0              # seconds from being told to end to leaving what is still under way
PLACES, SPARE = 1200, 64  # connections; and how many idle ones make room at once
PATIENCE, ASIDE = 0.02, 60.0  # seconds in SQLite that the loop has for an answer; and for which one that took longer is left to a lane
SMALL_BODY = 64 << 10     # bytes of a body that the loop reads through by itself
TOGETHER = 16             # requests that are begun between two looks at the sockets; and writes, before the writer is told of them
GLANCES = 100             # of those who wait, how many are asked a second whether they still may


class Server(TcpWSGIServer):
    """A waitress server whose loop says where each request runs, looks at its channels every second, and ends in order."""

    channel_class = Channel
    next_channel_cleanup = float("inf")  # waitress's own, by wall time: a clock that jumps must not hang up on anybody
    looked = 0.0
    tunnel: Door | None = None
    finishing = 0.0  # since when it was told to end
    loop = 0         # the thread it runs on
    woken = False    # somebody has something for it

    def __init__(self, *args: Any, **kwargs: Any):
        self.malformed, self.last_malformed = 0, ""
        self.ready: deque[Channel] = deque()   # whose next request nobody has yet
        self.handed: deque[Call] = deque()     # that writer or lanes have done their part of
        self.rung: deque[Call] = deque()       # that wait, and may have something now
        self.writes: list[Call] = []           # for the writer, of this turn
        self.slow: dict[Endpoint, float] = {}  # quick reads that were not, and until when a lane answers them
        self.room = Room()
        self.lanes = lanes()
        self.writer = Writer(self.handed, self.wake, self.lanes["disk"])
        super().__init__(*args, **kwargs)
        self.idle = Idle(self._map)
        feeds.wake = self.wake

    # ── the loop ──

    def run(self) -> None:
        """Serve until `finish` was called and nothing is under way, or 5 s after."""
        self.loop = threading.get_ident()
        gauges.running[:] = [self]
        while not self.finished():
            patience = 0.0 if self.ready else max(0.0, min(1.0, self.room.next_end() - time.monotonic()))
            look(patience + (0.001 if patience else 0), self._map)
            self.turn()

    def turn(self) -> None:
        """What there is to do between two looks at the sockets."""
        self.woken = False  # before looking: what comes after it wakes the loop again
        if self.finishing:
            feeds.end()
        for call in list(self.room.calls) if self.finishing else self.room.over():
            self.room.leave(call)
            call.give_up_waiting()
            self.attempt(self.deliver, call)
        begun = 0
        while self.handed or self.rung or (self.ready and begun < TOGETHER):
            if self.handed:
                self.attempt(self.deliver, self.handed.popleft())
            elif self.rung:
                self.attempt(self.answer_bell, self.rung.popleft())
            else:
                self.attempt(self.dispatch, self.ready.popleft())
            begun += 1
            if len(self.writes) >= TOGETHER:  # a crowd: the writer need not wait until all of it is begun
                self.give_writes()
        self.give_writes()
        feeds.send()
        self.idle.look()

    def attempt(self, step: Callable[[Any], None], one: Any) -> None:
        """Do a step for one connection, or a call of it. A fault of ours is logged and ends that connection, never the loop."""
        if not guarded(partial(step, one)):
            channel = one if isinstance(one, Channel) else one.channel
            guarded(partial(self.closed, channel, True))
            guarded(channel.handle_close)

    def give_writes(self) -> None:
        if self.writes:
            self.writer.add(self.writes)
            self.writes = []

    def ring(self, call: Call) -> None:
        """Have a call that waits asked again; from any thread."""
        self.rung.append(call)
        self.wake()

    def wake(self) -> None:
        """Have the loop look at what was handed to it; from any thread. Once is enough until it does."""
        if not self.woken and threading.get_ident() != self.loop:
            self.woken = True
            self.trigger.pull_trigger()

    pull_trigger = wake  # waitress wakes its loop whenever something was written; here the loop itself writes

    def finish(self) -> None:
        """Take no more requests, and let `run` return; may be called by a signal handler."""
        self.finishing = self.finishing or time.monotonic()
        self.trigger.pull_trigger()

    def finished(self) -> bool:
        if not self.finishing:
            return False
        busy = [one for one in list(self.active_channels.values()) if one.requests or one.total_outbufs_len]
        return not busy or time.monotonic() - self.finishing > FINISH

    def shutdown(self) -> None:
        """After `run`: let the writer finish what it has, and end the lanes."""
        gauges.running.clear()
        self.writer.close()
        for lane in self.lanes.values():
            lane.close()
        self.idle.close()
        if self.tunnel:
            self.tunnel.close()
        self.close()

    def readable(self) -> bool:
        moment = time.monotonic()
        if moment - self.looked >= 1:
            gauges.lags.append(max(0.0, moment - self.looked - 1.1) if self.looked else 0.0)
            self.looked = moment
            self.put_out(moment)
            self.tell_malformed()
            self.look_after_waiting()
        if len(self.active_channels) >= PLACES - SPARE:
            self.make_room()
        return bool(self.accepting) and not self.finishing and len(self.active_channels) < PLACES

    def handle_accept(self) -> None:
        """Take in all who knock, and not one a turn: a crowd would fill the system's own line, where a knock is heard again after 1 s."""
        for _ in range(SPARE):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                return

    # ── where a request runs ──

    def add_task(self, channel: Channel) -> None:
        """Have the next request of a connection answered, once all that came with it is parsed, and the answer before it is read."""
        if channel.total_outbufs_len:
            channel.held_back = True
        else:
            self.ready.append(channel)

    def dispatch(self, channel: Channel) -> None:
        """Begin a request, and answer it or give it to whoever is to answer it."""
        if not channel.requests or not channel.connected:
            return
        request = channel.requests[0]
        if request.error:
            channel.service()
            return
        call = channel.call = Call(self.application, channel.environment(request), self.ring)
        call.channel = channel
        here.patience = PATIENCE
        try:
            given = self.at_once(call)
        finally:
            del here.patience
        if given:
            return
        if call.answered and call.status != 503:
            self.deliver(call)
        else:  # what the loop cannot have without waiting, it can never have: 503 is not final here
            call.status = 0
            self.to_lane(call)

    def at_once(self, call: Call) -> bool:
        """What the loop can do by itself, with 20 ms for it; whether the writer has the rest."""
        channel, began = call.channel, time.perf_counter()
        alone = len(channel.requests) == 1 and channel.request is None
        if not call.begin():
            return False
        endpoint = call.endpoint
        assert endpoint
        if not (alone and endpoint.quick) or self.slow.get(endpoint, 0.0) > time.monotonic():
            return False
        if endpoint.method == "GET":
            call.go()
            if call.status in (0, 503) or len(call.body) > SMALL:
                self.slow[endpoint] = time.monotonic() + ASIDE
                log.info("%s is answered by a lane for %.0f s: it took %.0f ms and %d bytes", endpoint.operation, ASIDE,
                         (time.perf_counter() - began) * 1000, len(call.body))
        elif int(call.request.environ.get("CONTENT_LENGTH") or 0) <= SMALL_BODY and call.decode():
            call.quick = True
            self.writes.append(call)
            return True
        return False

    def to_lane(self, call: Call) -> None:
        """Have a lane do the whole of it. One that is full is a 503 at once."""
        name = call.endpoint.lane if call.endpoint else "disk"
        whose = call.request.address if name == "hash" else call.request.actor.tenant

        def through() -> None:
            call.go()
            self.handed.append(call)
            self.wake()
        try:
            self.lanes[name].add(whose, through)
        except Unavailable as full:
            call.finish(error=full)
            self.deliver(call)

    # ── what became of it ──

    def deliver(self, call: Call) -> None:
        """Send an answer; or have the call stand aside, where there is none yet."""
        channel = call.channel
        if call.answered:
            call.tell()
        if not channel.connected:
            self.lost(call)
        elif call.request.if_lost and channel.hung_up():
            self.lost(call)
            call.finish(error=Conflict("The connection says no more, as one does whose client is gone: what was leased to it went back"))
            channel.answer(call)
        elif call.answered:
            self.idle.give(channel)
            channel.answer(call)
        elif call.rung:
            self.ask_again(call)
        elif self.finishing:
            call.give_up_waiting()
            self.deliver(call)
        else:
            self.room.enter(call)
            self.idle.take(channel)

    def answer_bell(self, call: Call) -> None:
        """Somebody rang for a call: ask it again, where it waits; where it is still on its way to the room, as soon as it is there."""
        if self.room.leave(call):
            self.ask_again(call)
        elif not call.answered:
            call.rung = True

    def ask_again(self, call: Call) -> None:
        call.rung = False
        if call.channel.hung_up():
            call.channel.call = None
            call.channel.handle_close()
            self.lost(call)
        elif not call.ask_again():
            self.deliver(call)
        elif call.quick:
            self.writes.append(call)
        else:
            self.to_lane(call)

    def closed(self, channel: Channel, unread: bool) -> None:
        """A connection is gone, with an answer that was not wholly read, or none yet."""
        call, channel.call = channel.call, None
        if call is not None and (unread if call.answered else self.room.leave(call)):
            self.lost(call)

    def lost(self, call: Call) -> None:
        """An answer does not arrive: have undone what can be."""
        if call.heavy:
            flow.leave(call.heavy)
            call.heavy = 0
        if not call.answered:
            call.waits.leave()
        elif undo := call.request.if_lost:
            call.request.if_lost = None
            try:
                self.lanes["disk"].add(call.request.actor.tenant, undo)
            except Unavailable:  # it must be done all the same
                threading.Thread(target=undo, daemon=True).start()

    def look_after_waiting(self) -> None:
        """Once a second: whose client is gone without our having heard, and, of some, whether they may still wait."""
        for call in [one for one in self.room.calls if one.channel.deaf and one.channel.hung_up()]:
            call.channel.handle_close()
        feeds.look_after(GLANCES)
        for call in self.room.some(GLANCES):
            if not call.ask_again():
                self.room.leave(call)
                self.deliver(call)

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
                channel.handle_close()

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


def answers(family: int, host: str, port: int) -> bool:
    """Whether somebody listens there. On a Mac, binding 127.0.0.1 beside who listens on every address succeeds."""
    with socket.socket(family, socket.SOCK_STREAM) as knock:
        knock.settimeout(1)
        return knock.connect_ex(({"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)) == 0


def listen(application: Any, host: str, port: int) -> Server:
    """A server bound to host:port, not yet running. OSError where the port is taken."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if port and answers(family, host, port):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    adj = Adjustments(sockets=[sock], threads=1, connection_limit=PLACES, max_request_body_size=8 << 20,
                      inbuf_overflow=128 << 10, max_request_header_size=32 << 10, channel_request_lookahead=0, ident="orkosi",
                      backlog=1024, recv_bytes=65536,
                      clear_untrusted_proxy_headers=False)  # nothing here reads them, and what clears them would stand between us and the application
    adj.socket_options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND)]
    return Server(application, {}, _sock=sock, dispatcher=object(), adj=adj, bind_socket=False,  # our lanes stand in for its threads
                  sockinfo=(family, socket.SOCK_STREAM, 0, sock.getsockname()))
