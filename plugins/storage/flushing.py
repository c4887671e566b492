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
from typing import Any

import apsw

from orkosi import Write, db, here, translate

log = logging.getLogger("orkosi")
SLOW, LONGEST = 0.004, 0.016  # seconds of a flush that is slow; and seconds at most that are waited after one


class Flusher:
    """What makes commits durable: at once, where a flush takes no time; else a thread, and the commits that wait for it.

    After a slow one it waits as long again, until those who were just told are back: so they are in the next together, instead of in two by turns.
    """

    def __init__(self, wal: "Wal"):
        self._wal = wal
        self.took = 0.0   # seconds that the last flush took
        self.since = 0.0  # since when the first of those waits that were not told; 0: nobody does
        self._written = self._flushed = -1  # pages that the writer has written in all; and how many of them a flush has made durable
        self._failed = False  # the last flush did
        self._flushing = threading.Lock()  # one at a time, so that what one has missed the next one sees to
        self._line: list[Write] = []
        self._came, self._over = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def add(self, batch: list[Write]) -> None:
        """Have these finished once they are durable; inside the turn in which they were committed."""
        with self._came:
            self._written, _ = db.writer.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)
            self._wal.path = db.writer.filename_wal
            self.since = self.since or time.monotonic()
            if self._line or self.took >= SLOW and self._there():
                self._line += batch
                self._came.notify()
                return
        self._finish(batch)

    def _there(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="flusher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there are as many as may be: then whoever commits flushes
                log.error("the flusher could not be started: %s", error)
                return False
            self._thread = thread
        return True

    def close(self) -> None:
        """Flush what waits, and end."""
        with self._came:
            self._over = True
            self._came.notify()
        if self._thread:
            self._thread.join()
        self._wal.close()

    def _run(self) -> None:
        here.flushing, enough = True, 0
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
        with self._flushing:
            if self._written != self._flushed or self._failed:  # a write that changed nothing, and stands behind nothing, costs no flush
                self._flush(batch)
        for item in batch:
            item.finished = True
            item.tell(item)
        with self._came:
            self.since = time.monotonic() if self._line else 0.0

    def _flush(self, batch: list[Write]) -> None:
        began, written = time.monotonic(), self._written
        try:
            (_fold if self._failed else self._wal.flush)()
            self._flushed, self._failed = written, False
        except Exception as error:  # nobody else would tell those who wait
            self._failed = True
            log.error("the disk could not be flushed: %s", error)
            for item in batch:
                item.error = _in_words(error)
        self.took = time.monotonic() - began


def _fold() -> None:
    """After a flush that failed: another may say that all is well, though what the first was for is lost, and with it all that stands behind it in
    the WAL. So all of that goes into the main file, which is flushed, too. apsw.Error."""
    if not fold(apsw.SQLITE_CHECKPOINT_FULL, "main"):
        raise apsw.IOError("not all that was committed could be folded into the main file")


def fold(how: int, *names: str) -> bool:
    """Fold the WALs of these files into them, by a connection of its own; whether all of them is there now. apsw.BusyError, where a reader is in
    the way of one."""
    con = db.connect()
    try:
        for name in names:
            con.execute(f"PRAGMA {name}.user_version").fetchall()  # a file that was not read is not folded
        return all([there == folded for there, folded in (con.wal_checkpoint(name, how) for name in names)])
    finally:
        con.close()


def _in_words(error: Exception) -> BaseException:
    """What is told: whether a write lasts is not known then, and that it stands as long as this process does."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return translate(apsw.FullError() if full else apsw.IOError(str(error)))
    return translate(error)


class Wal:
    """The WAL of the main file, to be flushed; opened at the first time, for SQLite has made it by then."""

    path = ""  # as SQLite says: beside the file itself, where orkosi.db is a link

    def __init__(self, vfs: str | None):
        self._vfs, self._open = vfs, contextlib.ExitStack()
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
        file = apsw.VFSFile(vfs, self.path, [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0])
        self._open.callback(file.xClose)
        return partial(file.xSync, apsw.SQLITE_SYNC_FULL | apsw.SQLITE_SYNC_DATAONLY)

    def _of_system(self) -> Callable[[], Any]:
        file = self._open.enter_context(open(self.path, "rb+", buffering=0))
        folder = os.open(os.path.dirname(self.path), os.O_RDONLY)
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
