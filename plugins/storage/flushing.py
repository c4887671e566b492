"""Flushing: what has been committed is made durable, for all who wait for that at once, while others commit.

SQLite could flush by itself, in each commit; on Apple's disks that takes 18 ms, in which nobody else could write. So the writer's connection
commits without, and one thread flushes the WAL: a commit is told of when a flush that began after it has ended. What nobody was told of may
be read meanwhile, as a commit that survives a kill. Surprise: the WAL is opened here beside SQLite, by a descriptor of its own. That file alone may
be: no lock of SQLite's is on it, and SQLite does not replace it while a connection is open. Its own VFS would keep the interpreter for as long.
"""
import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from orkosi import Problem, Write, db, translate

log = logging.getLogger("orkosi")
SLOW, LONGEST = 0.004, 0.016  # seconds of a flush that is slow; and seconds at most that are waited after one


class Flusher:
    """What makes commits durable: at once, where a flush takes no time; else a thread, and the commits that wait for it.

    After a slow one it waits as long again, until those who were just told are back: so they are in the next together, instead of in two by turns.
    """

    def __init__(self, wal: "Wal"):
        self._wal = wal
        self.took = 0.0  # seconds that the last one took
        self.since = 0.0  # since when one is under way; 0: none is
        self._failed = False  # the last one did
        self._line: list[Write] = []
        self._came, self._over = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def add(self, batch: list[Write]) -> None:
        """Have these finished once they are durable; inside the turn in which they were committed."""
        if self.took < SLOW and not self._line:
            self._finish(batch)
            return
        with self._came:
            self._line += batch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
                self._thread.start()
            self._came.notify()

    def close(self) -> None:
        """Flush what waits, and end."""
        with self._came:
            self._over = True
            self._came.notify()
        if self._thread:
            self._thread.join()
        self._wal.close()

    def _run(self) -> None:
        enough = 0
        while batch := self._next(enough):
            self._finish(batch)
            enough = len(self._line) + len(batch)

    def _next(self, enough: int) -> list[Write]:
        with self._came:
            end = time.monotonic() + (min(self.took, LONGEST) if self.took >= SLOW else 0.0)
            while len(self._line) < enough and not self._over and (left := end - time.monotonic()) > 0:
                self._came.wait(left)
            while not self._line and not self._over:
                self._came.wait()
            batch, self._line = self._line, []
            return batch

    def _finish(self, batch: list[Write]) -> None:
        self.since = began = time.monotonic()
        try:
            (_fold if self._failed else self._wal.flush)()
            self._failed = False
        except (OSError, apsw.Error, Problem) as error:
            self._failed = True
            _fail(batch, error)
        self.took, self.since = time.monotonic() - began, 0.0
        for item in batch:
            item.finished = True
            item.tell(item)


def _fold() -> None:
    """After a flush that failed: another may say that all is well, though what the first was for is lost, and with it all that stands behind it in
    the WAL. So all of that goes into the main file, which is flushed, too. apsw.Error."""
    con = db.connect()
    try:
        con.execute("PRAGMA main.user_version").fetchall()  # a file that was not read is not folded
        there, folded = con.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_FULL)
    finally:
        con.close()
    if folded < there:
        raise apsw.IOError("not all that was committed could be folded into the main file")


def _fail(batch: list[Write], error: Exception) -> None:
    """Whether these last is not known: that is what they are told."""
    log.error("the disk could not be flushed: %s", error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    known = translate(apsw.FullError() if full else apsw.IOError(str(error)) if isinstance(error, OSError) else error)
    for item in batch:
        item.error = item.error or known


class Wal:
    """The WAL of the main file, to be flushed; opened at the first time, for SQLite has made it by then."""

    def __init__(self, path: Path, vfs: str | None):
        self._path, self._vfs, self._open = path, vfs, contextlib.ExitStack()
        self._to_disk: Callable[[], Any] | None = None

    def flush(self) -> None:
        """Make durable what has been committed. OSError, apsw.Error."""
        if self._to_disk is None:
            self._to_disk = self._of_vfs(self._vfs) if self._vfs else self._of_system()
        self._to_disk()

    def close(self) -> None:
        self._open.close()

    def _of_vfs(self, vfs: str) -> Callable[[], Any]:
        """By the VFS that has the file, as in tests of power cuts."""
        file = apsw.VFSFile(vfs, str(self._path), [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0])
        self._open.callback(file.xClose)
        return partial(file.xSync, apsw.SQLITE_SYNC_FULL | apsw.SQLITE_SYNC_DATAONLY)

    def _of_system(self) -> Callable[[], Any]:
        file = self._open.enter_context(open(self._path, "rb+", buffering=0))
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # that there is such a file
        finally:
            os.close(folder)
        return partial(_flush, file.fileno())


def _flush(number: int) -> None:
    """As SQLite does: to the medium itself where the system tells it from the disk's own memory."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)
        except OSError:  # a file system that cannot, such as one of the network
            os.fsync(number)
    else:
        os.fdatasync(number)
