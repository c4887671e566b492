"""Storage: opening and closing the data folder, and holding it.

Owns the folder's lock and, through upgrade.py, the shape of the two database files in it. Surprise: a command
opens the folder beside a running server, and then leaves the schema alone; only whoever holds the lock may
change it.
"""
import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orkosi import Conflict, NotFound, Plugin, Unavailable, acting, db, emit, settings, system

from .flushing import Flusher, Wal, fold
from .upgrade import Refused, model_of, read_columns, upgrade

plugin = Plugin("Storage", layer="ground")
_lock_file: Any = None


class AlreadyRunning(Conflict):
    """Another Orkosi is serving this data folder."""
    code = "already_running"
    exit_code = 3


def must_be_there() -> None:
    """NotFound where there is no data folder: a command that only looks makes none."""
    if not (settings.data / "orkosi.db").exists():
        raise NotFound(f"There is no data folder of Orkosi at {settings.data}; name another with --data")


def open_data(*, exclusive: bool = False, vfs: str | None = None) -> list[str]:
    """Open the data folder of the settings; the schema changes made. AlreadyRunning, Damaged, Refused, Unavailable.

    `exclusive` holds the folder for a server. Whoever knows why it must not be opened is asked before. A command opens it beside one, and upgrades
    the schema only where no server runs.
    """
    folder: Path = settings.data
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)  # a clone makes it as the umask says; below it, nothing is to be reached any more
        alone = _take_lock(folder)
    except OSError as error:
        raise Unavailable(f"The data folder {folder} cannot be written: {error.strerror}; choose another with --data") from None
    for path, cure in unwritable():
        # Said here, for SQLite would make others beside it that may not be written, either; and that, it says later as if the disk were full.
        _drop_lock()
        raise Unavailable(f"{path} cannot be written: {cure}")
    if exclusive and not alone:
        raise AlreadyRunning(f"Another Orkosi is serving {folder}; stop it first, or choose another --data")
    emit("opening", folder, exclusive=exclusive)
    db.open(folder, durability=settings.durability, vfs=vfs, flusher=Flusher(Wal(vfs)))
    done = upgrade() if alone else read_columns()
    # Only now, for an upgrade may change every page. What SQLite writes down to take a statement back stays in memory: beyond 64 KiB it opens a
    # file for it in each transaction, and a task with all its indexes takes twice as long. (Its own bound for this must stay below 128 KiB: the
    # piece of memory is written into a file by one call that takes no more, and says that the disk is full.)
    db.writer.execute("PRAGMA temp_store = memory")
    if alone:
        with acting(system()):
            db.write(lambda: emit("opened", folder))
    if not exclusive:
        _drop_lock()
    return done


def unwritable() -> Iterator[tuple[Path, str]]:
    """The database files in the folder of the settings that may not be written, each with its cure."""
    for name in ("orkosi.db", "logs.db"):
        for path in (settings.data / f"{name}{end}" for end in ("", "-wal", "-shm")):
            if os.access(path, os.W_OK):
                continue
            try:
                state = path.stat()
            except OSError:  # there is none, or a server that ends has just removed it
                continue
            if state.st_uid != os.geteuid():
                yield path, f"sudo chown {os.geteuid()} '{path}'"
            elif state.st_mode & 0o200:
                yield path, "its disk is mounted for reading only, or the file is locked: take that away"
            else:
                yield path, f"chmod u+w '{path}', or python3 orkosi.py doctor --fix"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The data folder kept from any server, but not opened, whether it is there or not. AlreadyRunning where one has it."""
    if not settings.data.is_dir():
        yield
        return
    if not _take_lock(settings.data):
        raise AlreadyRunning(f"An Orkosi is serving {settings.data}; stop it first")
    try:
        yield
    finally:
        _drop_lock()


def _take_lock(folder: Path) -> bool:
    """Lock `orkosi.lock` for as long as this process lives; False where another process has it."""
    global _lock_file
    _lock_file = open(folder / "orkosi.lock", "a+")
    try:
        fcntl.flock(_lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        return False
    return True


def _drop_lock() -> None:
    global _lock_file
    if _lock_file:
        _lock_file.close()
        _lock_file = None


def close_data() -> None:
    """Close the files, and let go of the folder."""
    db.close()
    _drop_lock()


__all__ = ["AlreadyRunning", "Refused", "close_data", "fold", "model_of", "open_data", "read_columns", "unwritable", "upgrade"]
