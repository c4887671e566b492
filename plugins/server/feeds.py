"""Feeds: answers without an end, to which things are added as they happen.

A feed holds no thread. One pump, for all of them, reads what is new, makes the bytes once for all feeds that are alike, and hands them to
the loop, which writes. Whoever asks with JSON and waits stands in the same place, and is rung for. Surprise: nothing is kept in memory for
a client that reads slowly. Its feed falls behind, and is read for by itself from where it is, once it has taken what it was sent.
"""
import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from orkosi import Document, Unavailable, acting, stopping, system
from plugins.server.lanes import guarded
from plugins.server.parked import Parked

if TYPE_CHECKING:
    from plugins.server.call import Call
    from plugins.server.http import Channel

log = logging.getLogger("orkosi")
MOST, OF_A_TENANT = 1000, 200  # feeds at once; and of one tenant that is not the host
GATHER = 0.05     # seconds that what happens is gathered for; twice as long where MOST listen, for each piece is a send to each
GLANCE = 1.0      # seconds after which one looks in any case: other processes write, too
PAGE = 500        # things that are read at once
BEHIND = 256 << 10  # bytes that a client has not taken, from which on its feed waits for it
QUIET = 15.0      # seconds without a word after which a heartbeat is sent
MIME = "text/event-stream"


class Source(Protocol):
    """Something that happens, one after the other, each with an `id` that is larger than the one before."""

    def head(self, tenant: int) -> int:
        """The newest id."""

    def after(self, tenant: int, id: int, limit: int) -> list[Any]:
        """What came after an id, oldest first."""

    def event(self, row: Any) -> str:
        """What its event is called."""


class Feed:
    """One client's place in a source. `alike`: feeds of the same filter; `wanted` says of a thing whether it is for them."""
    over = False  # whether it has said its last

    def __init__(self, source: Source, tenant: int, alike: Hashable, wanted: Callable[[Any], bool], position: int, first: bytes = b"",
                 quiet: float = QUIET, named: bool = False):
        self.source, self.tenant, self.alike, self.wanted, self.position, self.first = source, tenant, alike, wanted, position, first
        self.channel: Channel | None = None
        self.call: Call | None = None
        self.told, self.sent, self.quiet, self.named = time.monotonic(), position, quiet, named

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[bytes]:
        """What there is by now, for a server that is not ours: its client comes again."""
        yield self.first
        while rows := self.source.after(self.tenant, self.position, PAGE):
            self.position = rows[-1].id
            yield self.packed(rows)

    def close(self) -> None:
        """Nothing is open."""

    def packed(self, rows: list[Any]) -> bytes:
        """Things as server-sent events; the same for all feeds that are alike."""
        return b"".join(b"id: %d\nevent: %s\ndata: %s\n\n" % (row.id, self.source.event(row).encode(), msgspec.json.encode(row))
                        for row in rows if self.wanted(row))

    def heartbeat(self) -> bytes:
        """A comment, or, for a page, which sees no comments, an event; and how far it is, so that whoever comes again goes on there."""
        return b"id: %d\nevent: beat\ndata: {}\n\n" % self.sent if self.named else b"id: %d\n: still here\n\n" % self.sent


def document(feed: Feed) -> Document:
    """A feed as an answer. Unavailable where there are too many."""
    if feeds.full(feed.tenant):
        raise Unavailable("Too many streams are open; ask again in a moment, or with ?after= and wait_seconds", headers={"Retry-After": "5"})
    return Document(feed, MIME, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # type: ignore[arg-type]


class Waiter(Parked):
    """A request that waits for something new, and is asked again then; `after`: what it knows already."""

    def __init__(self, source: Source, tenant: int, wait: float, ring: Callable[[], None], nothing: Any, after: int = 0):
        super().__init__(wait, ring, nothing)
        self.place, self.after = (source, tenant), after
        feeds.line_up(self)

    def leave(self) -> None:
        feeds.step_out(self)


class Feeds:
    """All feeds, and the pump."""

    def __init__(self) -> None:
        self.open: dict[Feed, None] = {}     # the loop's
        self.written: deque[tuple[Feed, bytes, int]] = deque()  # for the loop to send
        self.counts = Counter[int]()
        self.bell, self.wake = threading.Event(), lambda: None
        self._waiters: dict[tuple[Source, int], dict[Waiter, None]] = {}
        self._heads: dict[tuple[Source, int], int] = {}
        self._resting: dict[tuple[Source, int], float] = {}  # places that could not be read, until when they are left alone
        self._lock = threading.Lock()
        self._pump: threading.Thread | None = None

    # ── whoever writes ──

    def ring(self) -> None:
        """Something may have happened; after its commit, from any thread. It costs nothing where nobody listens."""
        if self.open or self._waiters:
            self.bell.set()

    # ── the loop ──

    def full(self, tenant: int) -> bool:
        """Whether no more are taken, of all or of this tenant."""
        return self.counts.total() >= MOST or (tenant != 1 and self.counts[tenant] >= OF_A_TENANT)

    def enter(self, feed: Feed, channel: "Channel", call: "Call") -> None:
        """A feed was answered: from now on it is written to."""
        feed.channel, feed.call, feed.told = channel, call, time.monotonic()
        self.counts[feed.tenant] += 1
        self.open[feed] = None
        self._start()
        self.bell.set()

    def leave(self, feed: Feed) -> None:
        """Its client is gone."""
        if feed in self.open:
            del self.open[feed]
            self.counts[feed.tenant] -= 1

    def send(self) -> None:
        """Write what the pump has made."""
        while self.written:
            feed, raw, feed.sent = self.written.popleft()
            if feed in self.open and feed.channel and (raw or feed.over):
                feed.told = time.monotonic()
                if raw:
                    feed.channel.push(raw)
                self._end(feed)

    def _end(self, feed: Feed) -> None:
        """One that has said its last is closed once that is sent."""
        if feed.over and feed.channel and feed in self.open:
            feed.channel.close_when_flushed = True
            if not feed.channel.total_outbufs_len:
                feed.channel.handle_close()

    def look_after(self, most: int) -> None:
        """Once a second: heartbeats, and, of some, whether whoever reads may still."""
        moment = time.monotonic()
        for feed in [one for one in self.open if one.told < moment - one.quiet]:
            feed.told = moment
            if feed.channel and not feed.channel.total_outbufs_len:
                feed.channel.push(feed.heartbeat())
                self._end(feed)
        for feed in list(self.open)[:most]:
            del self.open[feed]  # and to the end of the line
            self.open[feed] = None
            if feed.channel and feed.call and not feed.call.still_may():
                feed.channel.handle_close()

    def end(self) -> None:
        """The server ends: so do they, and their clients come again."""
        for feed in list(self.open):
            if feed.channel:
                feed.channel.handle_close()

    # ── those who wait ──

    def line_up(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.setdefault(waiter.place, {})[waiter] = None
        self._start()
        self.bell.set()

    def step_out(self, waiter: Waiter) -> None:
        with self._lock:
            line = self._waiters.get(waiter.place, {})
            line.pop(waiter, None)
            if not line:
                self._waiters.pop(waiter.place, None)

    # ── the pump ──

    def _start(self) -> None:
        with self._lock:
            if self._pump is None:
                self._pump = threading.Thread(target=self._run, name="feeds", daemon=True)
                self._pump.start()

    def _run(self) -> None:
        with acting(system()):
            while True:
                with self._lock:
                    if not (self.open or self._waiters) or stopping.is_set():
                        self._pump = None
                        return
                if not guarded(self._look):
                    time.sleep(GLANCE)
                if self.bell.wait(GLANCE):
                    time.sleep(GATHER * (1 + len(self.open) / MOST))
                    while self.written and not stopping.is_set():  # the loop is behind: one larger piece for each costs less than two
                        time.sleep(GATHER / 5)
                    self.bell.clear()

    def _look(self) -> None:
        """Read what is new, and hand it over: to feeds that are where all are, at once; to each that is behind, by itself."""
        groups: dict[tuple[Source, int], list[Feed]] = defaultdict(list)
        for feed in list(self.open):
            groups[feed.source, feed.tenant].append(feed)
        with self._lock:
            waiting = {place: list(line) for place, line in self._waiters.items()}
        began = time.monotonic()
        # One that failed fails again, and says so in the log, which is followed as well: once a second is enough. The others wait for none.
        self._resting = {place: until for place, until in self._resting.items() if until > began}
        for place in {*groups, *waiting} - self._resting.keys():
            if not guarded(partial(self._tell, place, groups.get(place, []), waiting.get(place, []))):
                self._resting[place] = began + GLANCE
        if self.written:
            self.wake()

    def _tell(self, place: tuple[Source, int], group: list[Feed], waiters: list[Waiter]) -> None:
        """All who stand in one place."""
        self._feed(place, group)
        head, before = place[0].head(place[1]), self._heads.get(place)
        self._heads[place] = head
        for waiter in waiters if head != before else []:
            waiter.ring()

    def _feed(self, place: tuple[Source, int], group: list[Feed]) -> None:
        source, tenant = place
        pages: dict[int, list[Any]] = {}
        made: dict[tuple[int, Hashable], bytes | None] = {}
        for feed in group:
            if feed.over or feed.channel is None or feed.channel.total_outbufs_len > BEHIND:
                continue  # it takes what it has first
            at = feed.position
            if at not in pages:
                pages[at] = source.after(tenant, at, PAGE)
                if len(pages[at]) == PAGE:
                    self.bell.set()  # there is more
            rows = pages[at]
            if not rows:
                continue
            if (at, feed.alike) not in made:
                made[at, feed.alike] = _told(feed, rows)
            raw = made[at, feed.alike]
            if raw is None:
                feed.over = True
            else:
                feed.position = rows[-1].id
            self.written.append((feed, raw or b"", feed.position))


def _told(feed: Feed, rows: list[Any]) -> bytes | None:
    """What a feed says of these. None where that fails: it ends, its client comes again where it was, and all others go on."""
    told: list[bytes] = []
    if guarded(lambda: told.append(feed.packed(rows))):
        return told[0]
    log.error("a stream of tenant %d cannot tell of %s to %s, and ends", feed.tenant, rows[0].id, rows[-1].id)
    return None


feeds = Feeds()
