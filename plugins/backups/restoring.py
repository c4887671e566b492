"""Restoring: a backup becomes a data folder again, first beside the present one, and in its place only when all of it is proven.

Owns `<data>.restoring`, which lies beside the data folder and has `.staged` in it for as long as it may be thrown away.
Surprise: verifying is restoring. The same steps go into a folder that is thrown away afterwards; what was verified can be restored.
"""
import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from orkosi import APPLICATION_ID, Unavailable, now
from plugins import vault
from plugins.vault import master

from . import making
from .sealed import Damaged, Reader, Settling, read_header

BLOCK = 1 << 20
STAGED = ".staged"  # in a folder that is being unpacked, and gone before that is exchanged: what has it is nobody's only copy
Told = Callable[[int, int], None]  # told how many bytes of the file are done, of how many


def key_of(path: Path, kek: bytes | None = None) -> bytes:
    """The key of a backup: out of a master key, or of the one in the key file. Damaged, Sealed."""
    with open(path, "rb") as file:
        header = read_header(file)
    salt = bytes.fromhex(header["salt"])
    if kek is not None and master.id_of(kek) != header["kek_id"]:
        raise Unavailable("That recovery key is of another vault than the one this backup was made with")
    return vault.derived(kek, salt) if kek is not None else vault.backup_key(header["kek_id"], salt)


def unpack(path: Path, place: Path, key: bytes, told: Told = lambda done, of: None) -> dict[str, Any]:
    """Unpack a backup into an empty folder, and prove it whole; its manifest. Damaged. Nothing is written outside of the folder."""
    size, links, manifest = path.stat().st_size, [], {}
    with open(path, "rb") as file:
        reader: Any = Reader(file, key)  # tarfile reads from it, and does no more
        try:
            with tarfile.open(fileobj=reader, mode="r|") as tar:
                for info in tar:
                    told(file.tell(), size)
                    if info.name == making.MANIFEST:
                        manifest = json.load(tar.extractfile(info) or file)
                    elif info.issym():
                        links.append((info.name, info.linkname))
                    else:
                        _lay(tar, info, place)
        except (tarfile.TarError, EOFError, ValueError, KeyError) as error:
            raise Damaged(f"The backup cannot be unpacked: {error}") from None
        reader.finish()
    for name, target in links:  # last: no file is written through one of them
        os.symlink(target, inside(place, name))
    told(size, size)
    _prove(place, manifest)
    return manifest


def inside(place: Path, name: str) -> Path:
    """Where something of the archive goes: below the folder, whatever it is called."""
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise Damaged(f"The backup has a file that would lie elsewhere: {name[:200]!r}")
    return place.joinpath(*parts)


def _lay(tar: tarfile.TarFile, info: tarfile.TarInfo, place: Path) -> None:
    path = inside(place, info.name)
    if info.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif info.isreg():
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = tar.extractfile(info)
        assert raw
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            settling = Settling(file.fileno())
            while block := raw.read(BLOCK):
                file.write(block)
                settling.wrote(len(block))
        os.utime(path, (info.mtime, info.mtime))
    else:
        return
    path.chmod(info.mode & 0o700 | (0o700 if info.isdir() else 0o600))


def _prove(place: Path, manifest: dict[str, Any]) -> None:
    """Damaged where the databases are not whole, or have other numbers of rows than were counted."""
    prove_whole(place)
    found = making.count(place)
    if other := [name for name in found.keys() | manifest.get("rows", {}).keys() if found.get(name) != manifest.get("rows", {}).get(name)]:
        raise Damaged(f"{other[0]} has {found.get(other[0])} rows, but {manifest.get('rows', {}).get(other[0])} were counted")


def prove_whole(place: Path) -> None:
    """Damaged where the databases in a folder that nobody serves are not whole, or do not open."""
    for name in making.DATABASES:
        if not (place / name).is_file():
            raise Damaged(f"There is no {name} in it")
        con = apsw.Connection(str(place / name), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            said = [line for line, in con.execute("PRAGMA integrity_check(10)")]
            if said != ["ok"]:
                raise Damaged(f"{name} in it is not whole: {said[0]}")
            if name == "orkosi.db" and con.pragma("application_id") != APPLICATION_ID:
                raise Damaged("The database in it is none of Orkosi's")
        except apsw.Error as error:
            raise Damaged(f"{name} in it does not open: {error}") from None
        finally:
            con.close()


def prove_vault(place: Path, kek: bytes | None = None) -> None:
    """Damaged where the vault's canary in an unpacked database does not open with the master key, or with the one in the key file."""
    con = apsw.Connection(str(place / "orkosi.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        row = con.execute("SELECT id, kek_id, nonce, wrapped, canary_nonce, canary FROM vault_keys ORDER BY id DESC LIMIT 1").fetchone()
    finally:
        con.close()
    if row is not None and not vault.opens(*row, kek=kek):
        raise Damaged("The vault's canary in it does not open; its credentials would be lost")


# ── in the place of the present folder ──


def stage(path: Path, data: Path, kek: bytes | None, told: Told) -> Path:
    """Unpack and prove a backup beside the data folder; where it lies. Damaged, Sealed, Unavailable where it could not take that one's place."""
    if os.path.ismount(data):  # beside it is another disk, which may have no room
        raise _mounted(data)
    heal(data)
    place = _beside(data)
    place.mkdir(mode=0o700)
    (place / STAGED).touch(mode=0o600)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        unpack(path, place, key_of(path, kek), told)
        prove_vault(place, kek)
        stack.pop_all()  # it is good, and stays
    return place


def _beside(data: Path) -> Path:
    return data.with_name(f"{data.name}.restoring")


def heal(data: Path) -> Path | None:
    """See to what a restore that was killed left beside the data folder: where that lies now, if it was a data folder that was replaced. OSError.

    What was unpacked and never put in place is thrown away. Anything else may be the only copy of a company, and is kept.
    """
    place = _beside(data)
    if place.is_dir() and not (place / STAGED).exists() and any(place.iterdir()):
        kept = _free(data)
        os.rename(place, kept)
        _bring_along(kept, data)
        return kept
    shutil.rmtree(place, ignore_errors=True)
    return None


def _free(data: Path) -> Path:
    """A name for what is replaced. The time alone is none where two restores are of one second."""
    first = data.with_name(f"{data.name}.before-restore-{now()[:19].replace(':', '').replace('-', '')}")
    return next(path for path in (first, *(first.with_name(f"{first.name}-{number}") for number in range(1, 100))) if not path.exists())


def _bring_along(kept: Path, data: Path) -> None:
    for name in ("backups", "offsite", "outbox") if data.is_dir() else ():
        if (kept / name).is_dir() and not (data / name).exists():
            os.rename(kept / name, data / name)


def put_in_place(place: Path, data: Path) -> Path | None:
    """Exchange a staged folder with the data folder; where the old one lies now, if there was one. Unavailable where that cannot be moved.

    Whoever was erased stays erased: the list of them is of this machine, not of the backup. The backups come along, too.
    """
    kept = _free(data)
    with _gone_where_it_fails(place, data):
        if not data.exists():
            (place / STAGED).unlink(missing_ok=True)
            os.rename(place, data)
            return None
        if (data / "erasures.jsonl").exists():
            shutil.copy2(data / "erasures.jsonl", place / "erasures.jsonl")
        if (data / "erasing").is_dir():  # those that are not finished; the folder is opened with them
            shutil.copytree(data / "erasing", place / "erasing", dirs_exist_ok=True)
        (place / "orkosi.lock").touch(mode=0o600)
        (place / STAGED).unlink(missing_ok=True)
        exchanged = _exchange(place, data)
        if not exchanged:
            _in_two_steps(place, data, kept)
    if exchanged:
        os.rename(place, kept)  # from here on, `place` is what there was
    _bring_along(kept, data)
    return kept


@contextlib.contextmanager
def _gone_where_it_fails(place: Path, data: Path) -> Iterator[None]:
    """Nothing that was unpacked stays lying about where it cannot be put in place."""
    try:
        yield
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise _mounted(data) from None
        raise


def _mounted(data: Path) -> Unavailable:
    return Unavailable(f"Nothing was restored: a disk is mounted at {data}, so no other folder can take its place. Restore into a folder inside it, "
                       f"with FILE as a path and --data {data / 'orkosi'}, and serve that one from then on")


def _in_two_steps(place: Path, data: Path, kept: Path) -> None:
    os.rename(data, kept)
    try:
        os.rename(place, data)
    except OSError:
        os.rename(kept, data)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step of the file system, so that no moment has neither; False where it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            return libc.renamex_np(os.fsencode(one), os.fsencode(other), 2) == 0  # RENAME_SWAP
        return libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
    except AttributeError:
        return False
