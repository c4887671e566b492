"""Pulling: one copy of everything, made from what is here already.

The databases are copied by SQLite itself, each whole or not at all; files come as one tar of those that have changed. Surprise: the folder
is marked as a copy before the first byte, and stays so until it is promoted; a pull that dies in the middle is finished by the next.
"""
import contextlib
import os
import shutil
import socket
import stat
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from orkosi import VERSION, Conflict, Struct, Unavailable, now, settings
from plugins import folders, storage
from plugins.backups import epochs, making, restoring

from . import MARK, mark, note
from .source import Offer, Source, listing


class Pulled(Struct):
    """What one pull did. `version`: of the other side."""
    databases: list[str]
    files: int
    removed: int
    seconds: float
    version: str


def pull(source: Source) -> Pulled:
    """Make the data folder what the source's is. Conflict where it has a company of its own, AlreadyRunning, Unavailable."""
    began, data = time.monotonic(), Path(settings.data)
    os.umask(0o077)
    with folders.explained(f"{data} is not yet what {source.name} is"), _opened(data):
        known = mark(data)
        if not known and (data / "orkosi.db").exists():
            raise Conflict(f"{data} has a company of its own, or was promoted; nothing of it is overwritten. "
                           "Name another folder with --data, or move it aside")
        offered = source.offer(socket.gethostname(), known.get("at") or "", data)
        if offered.epoch < epochs.of(data):
            raise Conflict(f"{source.name} is in epoch {offered.epoch} and this copy in {epochs.of(data)}: "
                           "that one was superseded; pull from the one that serves")
        note(data, MARK, known | {"of": source.name, "ssh": source.ssh, "at": known.get("at")})
        fresh = [name for name in making.DATABASES if known.get("stamps", {}).get(name) != offered.stamps[name] or not (data / name).exists()]
        for name in fresh:
            source.copy_database(offered, name, data)
        removed, wanted = _shape(data, offered)
        _fetch(source, data, offered, wanted)
        epochs.keep(data, offered.epoch)
        note(data, MARK, {"of": source.name, "ssh": source.ssh, "at": now(), "stamps": offered.stamps, "version": offered.version})
    return Pulled(fresh, len(wanted), removed, round(time.monotonic() - began, 2), offered.version)


@contextlib.contextmanager
def _opened(data: Path) -> Iterator[None]:
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with storage.held():
        yield


def _shape(data: Path, offered: Offer) -> tuple[int, list[str]]:
    """Take away what is not there any more, make folders and links; how many went, and which files must be fetched."""
    here = {name: one for name, one in listing(data).items() if name != epochs.FILE}
    there = _rooted({name: one for name, one in offered.files.items() if name != epochs.FILE})
    paths = {name: restoring.inside(data, name) for name in there}
    gone = [name for name, one in here.items() if name not in there or there[name][0] != one[0] or (one[0] == "l" and there[name] != one)]
    for name in sorted(gone, reverse=True):  # what is in a folder before the folder
        _remove(data / name)
    for name, (kind, mode, _, _, target) in there.items():
        if kind == "d":
            paths[name].mkdir(parents=True, exist_ok=True)
            paths[name].chmod(mode)
        elif kind == "l" and not os.path.lexists(paths[name]):
            os.symlink(target, paths[name])
    return len(gone), [name for name, one in there.items() if one[0] == "f" and here.get(name) != one]


def _rooted(files: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What lies in folders, and in nothing else: while it was listed, an agent may have put a link in the place of a folder, and what
    is written below that link would be written wherever it leads on this machine."""
    found: dict[str, list[Any]] = {}
    for name in sorted(files, key=lambda name: name.count("/")):
        above = name.rpartition("/")[0]
        if not above or found.get(above, [""])[0] == "d":
            found[name] = files[name]
    return found


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _fetch(source: Source, data: Path, offered: Offer, wanted: list[str]) -> None:
    """Have the files sent, each put in its place when it is whole. Unavailable where the stream breaks off."""
    if not wanted:
        return
    open_ones = set(wanted)
    try:
        with source.sent(wanted) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for info in tar:
                if info.isreg() and info.name in open_ones:
                    open_ones.discard(info.name)
                    _lay(tar, info, restoring.inside(data, info.name), offered.files[info.name])
    except (tarfile.TarError, EOFError) as error:
        raise Unavailable(f"{source.name} broke off while it sent files: {error}") from None


def _lay(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path, said: list[Any]) -> None:
    """The time it had when it was offered: where it was changed since, the next pull sees that and fetches it again."""
    raw = tar.extractfile(info)
    assert raw
    fresh = path.with_name(f".{path.name[:100]}.pulling")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            shutil.copyfileobj(raw, file, restoring.BLOCK)
        os.utime(fresh, ns=(said[3], said[3]))
        fresh.chmod(said[1])
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)  # on a full disk, what is half there would be in the way of everything else


def warning(pulled: Pulled) -> str:
    """What to say where the two sides are not of one version; "" where they are."""
    return "" if pulled.version == VERSION else f"The other side runs version {pulled.version} and this one {VERSION}: bring this one to the same"
