"""Making: what goes into a backup - both databases as they stand at one moment, and the folders of agents, products and workers.

Owns `.making` in the backups' folder, which is gone when it is done, however it ends. Left out: agents' keys, which are made anew;
what can be made anew from the rows (plists, run scripts' environment are laid at the start); runs' output, logs' files, letters.
Surprise: the databases are copied by SQLite itself, in one reading transaction: without it, a copy in many steps would begin again
with every commit of the server.
"""
import contextlib
import fcntl
import io
import json
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from orkosi import VERSION, db, now, settings, translated
from plugins import folders, vault

from .sealed import LOOSE, Settling, Writer

DATABASES = ("orkosi.db", "logs.db")
FOLDERS = ("agents", "products", "workers")
FILES = ("orkosi.toml", "billing.toml", "epoch.json")
LEFT_OUT = ("runs", "scratch", "logs")  # of each agent's folder
MANIFEST = "manifest.json"
DEEPEST = 400  # folders in folders; what lies deeper is left out, for nobody could take it away again where it is unpacked
DEEPER = 100  # bytes by which a path may be longer where a backup is unpacked; what would not go in there is left out
PARTS = ["database", "logs", "workspaces", "products", "workers", "settings", "vault"]


def folder() -> Path:
    """Where backups are."""
    return settings.data / "backups"


@contextlib.contextmanager
def room(name: str) -> Iterator[Path]:
    """A folder of one's own among the backups, which is gone afterwards. One at a time, here or in another process: whoever comes later waits."""
    place = folder() / name
    folder().mkdir(mode=0o700, exist_ok=True)
    turn = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)  # whoever is interrupted here has no room to take away: it is somebody else's
        try:
            _take_away(place)
            place.mkdir(mode=0o700)
            yield place
        finally:
            _take_away(place)
    finally:
        os.close(turn)


def _take_away(place: Path) -> None:
    """The large files piece by piece: a file system that frees a gigabyte at once lets nobody commit meanwhile."""
    for path in [place / name for name in DATABASES]:
        with contextlib.suppress(OSError):
            state = path.lstat()
            for size in range(state.st_size, 0, -8 * LOOSE) if stat.S_ISREG(state.st_mode) else ():
                os.truncate(path, size)
    shutil.rmtree(place, ignore_errors=True)


def make(name: str | Callable[[], str], kind: str) -> dict[str, Any]:
    """Make a backup, whole or not at all; what is known of it. Sealed, NoSpace, Unavailable."""
    with folders.explained("No backup was made"), room(".making") as place, translated():
        filename = name if isinstance(name, str) else name()  # chosen here, where nobody else has chosen one whose file is yet to come
        rows = copy_databases(place)
        facts = _header(kind, sum(rows.values()))
        fresh = place / filename
        with open(fresh, "xb") as file:
            writer = Writer(file, facts, vault.backup_key(facts["kek_id"], bytes.fromhex(facts["salt"])))
            stream: Any = writer  # tarfile writes to it, and does no more
            with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _fill(tar, place, {"rows": rows, "version": VERSION, "schema": facts["schema"], "created_at": facts["created_at"]})
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, folder() / filename)
    return {"filename": filename, "sha256": writer.sha256.hexdigest(), "size": writer.size, "salt": facts["salt"]}


def _header(kind: str, rows: int) -> dict[str, Any]:
    return {"created_at": now(), "kind": kind, "version": VERSION, "schema": int(db.writer.pragma("user_version")),  # type: ignore[arg-type]
            "rows": rows, "includes": PARTS, "kek_id": vault.kek_id(), "salt": secrets.token_hex(16)}


def copy_databases(place: Path) -> dict[str, int]:
    """Copy both databases into `place`; how many rows each table has in the copies."""
    source = db.connect()
    try:
        source.execute("BEGIN; SELECT count(*) FROM main.sqlite_schema, logs.sqlite_schema").fetchall()
        for name, space in zip(DATABASES, ("main", "logs"), strict=True):
            _copy(source, space, place / name)
    finally:
        source.close()
    return count(place)


def _copy(source: apsw.Connection, space: str, path: Path) -> None:
    copy = apsw.Connection(str(path))
    file = os.open(path, os.O_RDONLY)
    try:
        copy.execute("PRAGMA synchronous = off").fetchall()
        settling, size = Settling(file), int(source.pragma("page_size", schema=space))  # type: ignore[call-overload]
        with copy.backup("main", source, space) as under_way:
            while not under_way.done:
                under_way.step(LOOSE // size)
                settling.wrote(LOOSE)
        copy.execute("PRAGMA journal_mode = delete").fetchall()  # one file, which needs no other to be whole
    finally:
        copy.close()
        os.close(file)  # not before: it would take SQLite's locks away


def count(place: Path) -> dict[str, int]:
    """How many rows each table of two copies has."""
    found: dict[str, Any] = {}
    for name in DATABASES:
        con = apsw.Connection(str(place / name), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            tables = [row[1] for row in con.execute("PRAGMA main.table_list") if row[2] == "table" and not row[1].startswith("sqlite_")]
            for table in tables:
                found[f"{name}/{table}"] = con.execute(f'SELECT count(*) FROM "{table}"').fetchall()[0][0]
        finally:
            con.close()
    return found


# ── the folders ──


def _fill(tar: tarfile.TarFile, place: Path, manifest: dict[str, Any]) -> None:
    raw = json.dumps(manifest).encode()
    info = tarfile.TarInfo(MANIFEST)
    info.size = len(raw)
    tar.addfile(info, io.BytesIO(raw))
    for name in DATABASES:
        add(tar, place / name, name)
    for name in FILES:
        with contextlib.suppress(OSError):
            add(tar, settings.data / name, name)
    for name in FOLDERS:
        for known, inner, parent in walk(settings.data, name):
            with contextlib.suppress(OSError):  # gone meanwhile, or nobody may read it
                add(tar, inner, known, parent)


@contextlib.contextmanager
def reached(data: Path, known: str) -> Iterator[int | None]:
    """A folder of the data folder, by descriptor; None where there is none, or a link on the way to it. One is held, however deep it lies.

    The first step alone may be a link: the operator's own, to another disk. Below it agents write, whenever they like.
    """
    first, *parts = known.split("/")
    held = contextlib.ExitStack()
    try:
        fd = held.enter_context(folders.directory(data / first))
        for part in parts:
            if fd is not None:
                above, held = held, contextlib.ExitStack()
                with above:
                    fd = held.enter_context(folders.directory(part, fd))
        yield fd
    finally:
        held.close()


def walk(data: Path, root: str) -> Iterator[tuple[str, str, int]]:
    """Everything below a folder, links not followed, a folder before what is in it: (its name in the data folder, in its own, that one's descriptor).

    Surprise: no path is taken twice. What was a folder when it was listed may be a link by the time that it is looked into.
    """
    waiting, longest = [root], os.pathconf(data, "PC_PATH_MAX") - DEEPER - len(os.fsencode(data))
    while waiting:
        known = waiting.pop()
        with reached(data, known) as folder:
            if folder is None:
                continue
            yield known, ".", folder
            inner = []
            with os.scandir(folder) as listed:
                entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in listed)
            for name, is_folder in entries:
                path = f"{known}/{name}"
                if (name in LEFT_OUT and known.count("/") == 1 and known.startswith("agents/")) or len(os.fsencode(path)) > longest:
                    continue
                if is_folder and path.count("/") < DEEPEST:
                    inner.append(path)
                elif not is_folder:
                    yield path, name, folder
            waiting += reversed(inner)


def _in_use() -> set[tuple[int, int]]:
    """The database's own files, which SQLite alone may open: whoever else closes one takes its locks away, whatever name it went by."""
    found = set()
    for name in DATABASES:
        for file in (name, f"{name}-wal", f"{name}-shm"):
            with contextlib.suppress(OSError):
                state = (settings.data / file).stat()
                found.add((state.st_dev, state.st_ino))
    return found


def add(tar: tarfile.TarFile, path: Path | str, known: str, parent: int | None = None) -> None:
    """Add a file, a folder or a link, by its name in the folder of a descriptor; of pipes, sockets and devices there is nothing to keep. OSError."""
    state = os.stat(path, dir_fd=parent, follow_symlinks=False)
    info = tarfile.TarInfo(known)
    info.mode, info.mtime = stat.S_IMODE(state.st_mode), int(state.st_mtime)
    if stat.S_ISLNK(state.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path, dir_fd=parent)
        tar.addfile(info)
    elif stat.S_ISDIR(state.st_mode):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISREG(state.st_mode) and (state.st_dev, state.st_ino) not in _in_use():
        with os.fdopen(folders.open_plain(path, parent=parent), "rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, _Steady(file, info.size))  # type: ignore[arg-type]


class _Steady:
    """A file of the size that was promised, whatever somebody makes of it meanwhile."""

    def __init__(self, file: Any, size: int):
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        raw: bytes = self._file.read(min(size, self._left))
        raw += b"\0" * (min(size, self._left) - len(raw))
        self._left -= len(raw)
        return raw
