"""The master key: one small file outside of the data folder, and the recovery key, which is the same in writing.

Surprise: there may be several files. Before the database is told of a new key, that is written beside the old one, and takes
its place afterwards; the old one is kept as `master.key.<id>`, since older backups were sealed with it, and other data folders
may be. Whichever of them the database names is the right one, whenever the power fails.
"""
import base64
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orkosi import Conflict, Invalid, Unavailable, settings
from plugins import folders


class Sealed(Unavailable):
    """The vault cannot be opened; its message says why, and what to do."""
    code = "vault_sealed"


def path() -> Path:
    """Where the key file is: `master_key_file`."""
    return Path(settings.master_key_file).expanduser()


def id_of(key: bytes) -> str:
    """How records name a master key without telling it."""
    return hashlib.sha256(b"orkosi/kek-id/1" + key).hexdigest()[:16]


def find(id: str) -> bytes:
    """The master key of this id: in the file, in the one laid for it by a change that was interrupted, or kept from before. Sealed."""
    reasons = []
    for file in (path(), _next(), _kept(id)):
        try:
            key = read(file)
        except Sealed as sealed:
            reasons.append(sealed.message)
            continue
        if id_of(key) == id:
            return key
        reasons.append(f"{file} has another key than this data folder was sealed with; put the right file there, or use the recovery key: "
                       "orkosi.py vault import-key")
    raise Sealed(reasons[0])


def read(file: Path) -> bytes:
    """The key in a file that only its owner can read. Sealed in one sentence for anything else."""
    try:
        info = file.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise Sealed(f"{file} must be a plain file that nobody but its owner, who runs this, can read: chmod 600 {file}")
        text = folders.read_plain(file, 1000).decode().strip()
        key = bytes.fromhex(text.removeprefix("orkosi-master-key:"))
    except FileNotFoundError:
        raise Sealed(f"{file} is not there; put it back, or use the recovery key: orkosi.py vault import-key") from None
    except (OSError, ValueError):
        raise Sealed(f"{file} cannot be read as a master key; put the right one there, or use the recovery key: orkosi.py vault import-key") from None
    if len(key) != 32:
        raise Sealed(f"{file} has no key of 32 bytes; put the right one there, or use the recovery key: orkosi.py vault import-key")
    return key


def make_or_read() -> bytes:
    """The key for a vault that is not made yet: the one in the file, or a new one. Sealed where the file is no good."""
    if not os.path.lexists(path()):
        write(path(), secrets.token_bytes(32))
    return read(path())


def write(file: Path, key: bytes) -> None:
    """Write a key file, whole and on the disk before this returns."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folders.write_whole(file, f"orkosi-master-key:{key.hex()}\n")
    for place in (file, file.parent):
        fd = os.open(place, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def keep(key: bytes) -> Path:
    """Put a key where this folder finds it, without taking the place of one that another data folder may need; where it is."""
    file = path()
    if os.path.lexists(file):
        try:
            other = read(file) != key
        except Sealed:  # it may be somebody's key all the same
            other = True
        if other:
            file = _kept(id_of(key))
    write(file, key)
    return file


@contextmanager
def alone() -> Iterator[None]:
    """One change of keys at a time, whoever makes it: two would write over each other's next key. Conflict where one is under way."""
    path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(folders.open_plain(path().with_name(path().name + ".lock"), os.O_WRONLY | os.O_CREAT), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another change of the master key is under way; wait until it is done") from None
        settle()
        yield


def put_next(key: bytes) -> None:
    """Lay the key that is to be the next one beside the present one."""
    write(_next(), key)


def settle() -> None:
    """Let the next key, where one is laid, take the place of the present one, which is kept: older backups and other data folders need it."""
    with suppress(FileNotFoundError):
        key = read(path()) if os.path.lexists(path()) else None
        if not os.path.lexists(_next()):
            return
        if key:
            write(_kept(id_of(key)), key)
        os.replace(_next(), path())


def _next() -> Path:
    return path().with_name(path().name + ".next")


def _kept(id: str) -> Path:
    return path().with_name(f"{path().name}.{id}")


# ── in writing ──


def recovery(key: bytes) -> str:
    """A master key in 14 groups of 4, with a checksum of 24 bits; capital letters and digits that are not mistaken for each other."""
    text = base64.b32hexencode(key + hashlib.sha256(key).digest()[:3]).decode().translate(_OUT)
    return "-".join(text[at:at + 4] for at in range(0, 56, 4))


def from_recovery(text: str) -> bytes:
    """The master key that was written down. Invalid where a letter is wrong."""
    plain = "".join(text.upper().split()).replace("-", "").replace("O", "0").replace("I", "1").replace("L", "1")
    try:
        raw = base64.b32hexdecode(plain.translate(_IN)) if len(plain) == 56 else b""
    except ValueError:
        raw = b""
    if len(raw) != 35 or hashlib.sha256(raw[:32]).digest()[:3] != raw[32:]:
        raise Invalid("That is no recovery key: it has 14 groups of 4 letters and digits, and one of them is not as it was written down")
    return raw[:32]


_OUT = str.maketrans("ABCDEFGHIJKLMNOPQRSTUV", "ABCDEFGHJKMNPQRSTVWXYZ")
_IN = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUV")
