"""Feeds: one that cannot tell what happened ends, and no other waits for it."""
import time

from orkosi import Struct
from plugins.server import feeds as room
from plugins.server.feeds import Feed, Feeds


class Thing(Struct):
    id: int


class Things:
    """A source of five things for tenant 1; of tenant 2's, nothing can be read."""

    def __init__(self):
        self.tried = 0

    def head(self, tenant):
        return 5

    def after(self, tenant, id, limit):
        if tenant == 2:
            self.tried += 1
            raise OSError("there is no reading them")
        return [Thing(number) for number in range(id + 1, 6)][:limit]

    def event(self, row):
        return "thing"


class Channel:
    """As much of a connection as a feed uses."""
    total_outbufs_len, close_when_flushed, closed = 0, False, False

    def __init__(self):
        self.taken = b""

    def push(self, raw):
        self.taken += raw

    def handle_close(self):
        self.closed = True


def reads_three(row):
    if row.id > 3:
        raise ValueError("nobody thought of a fourth")
    return True


def test_a_stream_that_fails_ends_and_all_others_go_on(caplog, monkeypatch):
    monkeypatch.setattr(room, "GLANCE", 1.0)
    feeds, source, channels = Feeds(), Things(), [Channel() for _ in range(5)]
    feeds._start = lambda: None  # the pump is moved by hand
    for channel, (tenant, alike, wanted) in zip(channels, [(2, "all", lambda row: True), (1, "three", reads_three), (1, "three", reads_three),
                                                           (1, "all", lambda row: True), (1, "even", lambda row: row.id % 2 == 0)], strict=True):
        feeds.enter(Feed(source, tenant, alike, wanted, 0), channel, None)
    for _ in range(20):
        feeds._look()
        feeds.send()
    assert source.tried == 1, "what fails is not tried again at once"
    time.sleep(1.1)  # until it is
    feeds._look()
    assert source.tried == 2
    lost, third, fourth, all_of_them, even = channels
    assert all_of_them.taken.count(b"event: thing") == 5 and even.taken.count(b"event: thing") == 2
    assert third.taken == fourth.taken == b"" and third.closed and fourth.closed, "each ends; its client comes again where it was"
    assert not (all_of_them.closed or even.closed or lost.closed), "whose things cannot be read just now waits on"
    assert sum("cannot tell of 1 to 5" in record.message for record in caplog.records) == 1, "said once for all that are alike, and not again"


def test_a_place_that_cannot_be_read_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(room, "GLANCE", 5.0)
    feeds, source, lost, well = Feeds(), Things(), Channel(), Channel()
    feeds._start = lambda: None
    feeds.enter(Feed(source, 2, "all", lambda row: True, 0), lost, None)
    feeds._look()
    feeds.enter(Feed(source, 1, "all", lambda row: True, 0), well, None)
    began = time.monotonic()
    feeds._look()
    feeds.send()
    assert well.taken.count(b"event: thing") == 5 and time.monotonic() - began < 2.5 and source.tried == 1
