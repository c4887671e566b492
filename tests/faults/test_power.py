"""A power cut, modelled: whatever was not flushed may be gone, or half there.

Every write goes through to the file, so that the running server notices nothing; beside it an
image is kept of what a flush has made safe. A cut is that image, plus a random half of the
sectors that were under way.
"""
import contextlib
import random
import threading
import time

import apsw
import pytest

from orkosi import Unavailable, acting, db, settings, system
from plugins import queue, storage

SECTOR = 512


class Disk(apsw.VFS):
    """A file system that remembers what a power cut would leave."""

    def __init__(self):
        self.safe, self.pending, self.lock, self.fault, self.delay = {}, [], threading.Lock(), None, 0.0
        self.under_way, self.loses = [], False
        super().__init__("disk", "")

    def xOpen(self, name, flags):
        return DiskFile(self, name, flags)

    def xDelete(self, name, sync):
        super().xDelete(name, sync)
        with self.lock:
            self.safe.pop(name, None)
            self.pending[:] = [one for one in self.pending if one[0] != name]

    def cut(self, dice):
        """What is left after a cut right now: {file name: bytes}."""
        with self.lock:
            left = {path: bytearray(content) for path, content in self.safe.items()}
            for path, offset, content in self.under_way + self.pending:
                if content is None:
                    continue
                for at in range(0, len(content), SECTOR):
                    if dice.random() < 0.5:
                        place(left.setdefault(path, bytearray()), offset + at, content[at:at + SECTOR])
            return left


class DiskFile(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, content, offset):
        if self.disk.fault:
            raise self.disk.fault
        super().xWrite(content, offset)
        with self.disk.lock:
            self.disk.pending.append((self.path, offset, bytes(content)))

    def xTruncate(self, size):
        super().xTruncate(size)
        with self.disk.lock:
            self.disk.pending.append((self.path, size, None))

    def xSync(self, flags):
        with self.disk.lock:
            mine = [one for one in self.disk.pending if one[0] == self.path]
            self.disk.pending[:] = [one for one in self.disk.pending if one[0] != self.path]
            self.disk.under_way += mine
            if self.disk.loses and self.path.endswith("orkosi.db-wal"):  # as Linux: they are given up, and the next flush says that all is well
                self.disk.loses, self.disk.under_way[:] = False, []
                raise apsw.IOError("broken")
        time.sleep(self.disk.delay)  # what is slow: it may be cut as well, and what is written meanwhile is not in it
        with self.disk.lock:
            self.disk.under_way[:] = [one for one in self.disk.under_way if one[0] != self.path]
            image = self.disk.safe.setdefault(self.path, bytearray())
            for _, offset, content in mine:
                if content is None:
                    del image[offset:]
                else:
                    place(image, offset, content)


def place(image, offset, content):
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset:offset + len(content)] = content


@pytest.fixture
def disk(tmp_path, monkeypatch):
    made = Disk()

    def start(durability, delay=0.0):
        made.delay = delay
        monkeypatch.setenv("ORKOSI_DURABILITY", durability)
        settings.load(data=tmp_path / durability)
        storage.open_data(exclusive=True, vfs="disk")
        return made
    yield start
    storage.close_data()
    made.unregister()


def submit_many(acknowledged, stop, number):
    with acting(system()):
        while not stop.is_set():
            job, _ = queue.submit("q", "t", {"from": number})
            acknowledged.append(job.id)
            if job.id % 3 == 0 and (held := queue.claim("q", "w")):
                queue.complete(held[0].id, held[0].lease_token, "done")
                acknowledged.append(-held[0].id)


def cuts(disk, count):
    """(what was acknowledged, what is left) at `count` random moments of a busy server."""
    acknowledged, stop, dice, found = [], threading.Event(), random.Random(7), []
    workers = [threading.Thread(target=submit_many, args=(acknowledged, stop, number)) for number in range(8)]
    for one in workers:
        one.start()
    for _ in range(count):
        stop.wait(dice.uniform(0.02, 0.12))
        known = list(acknowledged)  # before the cut: all of this was promised
        found.append((known, disk.cut(dice)))
    stop.set()
    for one in workers:
        one.join()
    return found


def lost(known, left, folder):
    """How many acknowledged writes are not in what the cut left."""
    folder.mkdir()
    for path, content in left.items():
        (folder / path.rsplit("/", 1)[-1]).write_bytes(content)
    con = apsw.Connection(str(folder / "orkosi.db"))
    try:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = con.execute("SELECT 1 FROM sqlite_schema WHERE name = 'jobs'").fetchall()
        rows = dict(con.execute("SELECT id, state FROM jobs")) if there else {}  # without a flush, not even the schema is sure
    finally:
        con.close()
    return sum((rows.get(-one) != "completed") if one < 0 else (one not in rows) for one in known)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.006], ids=["a quick flush", "a slow one, while which others commit"])
def test_with_full_durability_no_acknowledged_write_is_lost(disk, tmp_path, delay):
    found = cuts(disk("power", delay), 20)
    assert len(found[-1][0]) > 200
    assert [lost(known, left, tmp_path / f"cut{at}") for at, (known, left) in enumerate(found)] == [0] * 20


@pytest.mark.parametrize("delay", [0.0, 0.006], ids=["a quick flush", "a slow one"])
def test_after_a_flush_that_failed_no_acknowledged_write_is_lost(disk, tmp_path, delay):
    now, acknowledged = disk("power", delay), []
    with acting(system()):
        for number in range(30):
            now.loses = number == 10
            with contextlib.suppress(Unavailable):
                acknowledged.append(queue.submit("q", "t", {"n": number})[0].id)
    assert len(acknowledged) == 29
    assert lost(acknowledged, now.cut(random.Random(1)), tmp_path / "cut") == 0


@pytest.mark.slow
def test_the_model_can_see_a_loss(disk, tmp_path):
    """The same cuts without the flush do lose: the test above is able to fail."""
    found = cuts(disk("process"), 8)
    assert sum(lost(known, left, tmp_path / f"cut{at}") for at, (known, left) in enumerate(found)) > 0


@pytest.mark.parametrize("fault, status", [(apsw.FullError("full"), 507), (apsw.ReadOnlyError("read-only"), 503)])
def test_a_disk_that_refuses_is_said_so_and_nothing_is_half_done(disk, fault, status):
    from conftest import Application, Client
    disk_now = disk("power")
    with acting(system()):
        from plugins import users
        user = users.add("root", "root@example.com", "x", "admin", 1)
        token = users.open_session(user.id, "t").access
    client = Client(Application(), token)
    assert client.post("/tasks", {"title": "before", "assignee": "felix"}).status == 201
    disk_now.fault = fault
    answer = client.post("/tasks", {"title": "during", "assignee": "felix", "description": "x" * 20_000})
    assert answer.status == status, answer
    assert [task["title"] for task in client.get("/tasks").data] == ["before"]
    disk_now.fault = None
    assert client.post("/tasks", {"title": "after", "assignee": "felix"}).status == 201
    with acting(system()):
        assert db.value("SELECT count(*) FROM jobs WHERE tenant_id = 1") == 2
