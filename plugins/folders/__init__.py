"""Folders: how those that others write into are read: no link is followed, nothing blocks, and a change rings a bell.

An agent owns its workspace and its logs, and may put there a symbolic link to a secret, a hard link to a
database, or a pipe that never answers. So every step down is taken from the folder before it, by descriptor
and without following links, and a file is looked at once more after it was opened. Owns no table.
Surprise: the observers only say that it is worth looking. What they miss, the next look finds.
"""
import errno
import logging
import os
import stat
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orkosi import NoSpace, Plugin, Unavailable

plugin = Plugin("Folders", layer="ground")

log = logging.getLogger("orkosi")

# SQLite's locks fall when anybody else in this process closes one of these (POSIX); nothing here may open them.
NEVER = (".db", ".db-wal", ".db-shm", ".db-journal")


@contextmanager
def directory(name: str | Path, parent: int | None = None) -> Iterator[int | None]:
    """A folder's descriptor; None where there is none, none that may be read, or a link stands in its place."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if parent is not None else 0)
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM):
            raise  # too many open files is no reason to believe that a folder is gone
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened(data: Path, name: str) -> Iterator[int | None]:
    """A folder below the data folder, reached step by step: no part of its path may be a link."""
    with ExitStack() as stack:
        folder = stack.enter_context(directory(data))
        for part in name.split("/"):
            if folder is not None:
                folder = stack.enter_context(directory(part, folder))
        yield folder


@contextmanager
def regular(name: str, parent: int) -> Iterator[tuple[int, os.stat_result] | None]:
    """A plain file with one name, opened for reading; None for links, hard links, pipes, devices and databases."""
    fd = -1
    try:
        if not name.endswith(NEVER):
            with suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        info = os.fstat(fd) if fd >= 0 else None
        yield (fd, info) if info and plain(info) else None
    finally:
        if fd >= 0:
            os.close(fd)


def open_plain(path: Path | str, flags: int = os.O_RDONLY, parent: int | None = None) -> int:
    """A descriptor of a regular file, opened or made without following a link at its end and without ever waiting.

    OSError for anything else that has the name: a pipe that nobody answers at would hold whoever opens it for good.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return fd


def read_plain(path: Path, most: int) -> bytes:
    """The first `most` bytes of a regular file. OSError."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(most)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What goes wrong with files, as a sentence that begins so: NoSpace, Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{what}: the disk is full; make room, then try again") from None
        raise Unavailable(f"{what}: {error.strerror}" + (f": {error.filename}" if error.filename else "")) from None


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file, whole or not at all, readable by nobody else, whatever stood there before."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "w") as file:
        file.write(text)
    fresh.replace(path)


def write_in(folder: int, name: str, raw: bytes) -> None:
    """Write a new file into a folder, by its descriptor. FileExistsError where anything has the name."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        file.write(raw)


def replace_in(folder: int, name: str, raw: bytes) -> None:
    """Put a whole new file in the old one's place, so that nobody ever reads half of one."""
    fresh = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=folder)
    write_in(folder, fresh, raw)
    os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)


def plain(info: os.stat_result) -> bool:
    """Whether this is a regular file that has no second name somewhere else."""
    return stat.S_ISREG(info.st_mode) and info.st_nlink == 1


def modified(info: os.stat_result) -> str:
    """When a file was changed, as times are written here; its owner may have set it to any year."""
    moment = datetime.fromtimestamp(min(max(info.st_mtime_ns, 0), 250_000_000_000 * 10**9) // 10**6 / 1000, UTC)
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def entries(folder: int) -> list[tuple[str, os.stat_result]]:
    """Names and states of what is in a folder, links not followed; without names that no text can hold."""
    found = []
    with os.scandir(folder) as listed:
        for entry in listed:
            with suppress(OSError):  # it went away meanwhile
                if entry.name.isprintable():
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _said_in_earnest(record: logging.LogRecord) -> bool:
    """Not what watchdog calls an error where a folder was let go while it looked there, as at every other stop."""
    return "called when the thread is inactive" not in record.msg


class Bell:
    """Rings when something changes in the folders it watches."""

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._rung = threading.Event()
        self._watches: dict[Path, tuple[int, Any]] = {}
        self._observer: Any = None

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders; one made anew under its old name is watched anew."""
        wanted = {folder: inode for folder in folders if (inode := self._inode(folder))}
        for folder in [folder for folder, (inode, _) in self._watches.items() if wanted.get(folder) != inode]:
            with suppress(KeyError, OSError):
                self._observer.unschedule(self._watches.pop(folder)[1])
        for folder, inode in wanted.items():
            if folder not in self._watches:
                self._watches[folder] = (inode, self._schedule(folder))

    @staticmethod
    def _inode(folder: Path) -> int:
        try:
            info = folder.lstat()
        except OSError:
            return 0
        return info.st_ino if stat.S_ISDIR(info.st_mode) else 0

    def _schedule(self, folder: Path) -> Any:
        # Imported when first needed, for it takes a while. Reading a file is an event, too: those are left out.
        from watchdog import events
        from watchdog.observers import Observer
        kinds = [events.FileCreatedEvent, events.FileModifiedEvent, events.FileMovedEvent, events.FileDeletedEvent,
                 events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent]
        # It warns where a folder was made while it looked for folders; nothing is missed by it.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        logging.getLogger("watchdog.observers.inotify").addFilter(_said_in_earnest)
        try:
            if self._observer is None:
                self._observer = Observer()
                self._observer.start()
            return self._observer.schedule(self, str(folder), recursive=self._recursive, event_filter=kinds)
        except (OSError, RuntimeError, SystemError, TypeError, ValueError) as error:  # a limit of the system; on a Mac, it is told in five ways
            log.warning("%s is not watched (%s); changes there are noticed a few seconds late", folder, error)
            return None

    def dispatch(self, event: Any) -> None:
        """What the observer calls."""
        self._rung.set()

    def wait(self, stop: threading.Event, patience: float, settle: float) -> bool:
        """Wait for a change, at most `patience` seconds, and then `settle` more for what comes with it; whether one came."""
        end, rung = time.monotonic() + patience, False
        while not rung and not stop.is_set() and time.monotonic() < end:
            rung = self._rung.wait(0.25)
        if rung:
            stop.wait(settle)
        self._rung.clear()
        return rung

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
