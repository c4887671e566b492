"""Plists: how a job of the supervisor is written down, and what is known of one. Both drivers share this."""
import contextlib
import fcntl
import hashlib
import os
import plistlib
import sys
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from orkosi import Struct, Unprocessable, settings


class Status(Struct):
    """What the supervisor knows of one job."""
    loaded: bool = False
    pid: int | None = None
    last_exit: int | None = None


def folder_hash() -> str:
    """Eight hex digits of where the data folder is: two installations never share a label, and one has one, whatever it is reached by."""
    return hashlib.sha256(os.fsencode(true_name(settings.data))).hexdigest()[:8]


def true_name(path: Path) -> str:
    """The one name of a folder: through no link, and as the disk spells it where letters' case does not matter."""
    found = os.path.realpath(path)
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            fd = os.open(found, os.O_RDONLY)
            try:
                return os.fsdecode(fcntl.fcntl(fd, 50, bytes(1024)).rstrip(b"\0"))  # F_GETPATH
            finally:
                os.close(fd)
    return found


def plist_of(label: str) -> Path:
    return settings.data / "jobs" / f"{label}.plist"


def write(label: str, spec: dict[str, Any]) -> Path:
    """Write a job's plist, whole or not at all, and only if it says something new; where it is."""
    path, text = plist_of(label), plistlib.dumps({"Label": label, **spec})
    if not path.exists() or path.read_bytes() != text:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(text)
        fresh.replace(path)
    return path


def lives_elsewhere(path: Path) -> bool:
    """Whether a plist that another place of this folder left is of one that is still there: it was copied, and its jobs are not ours to end."""
    try:
        os.stat(read(path).get("WorkingDirectory", "/"))
    except (PermissionError, Unprocessable):  # another user's home, into which nobody else may look; or no job at all
        return True
    except OSError:
        return False
    return True


def read(path: Path) -> dict[str, Any]:
    """What a plist says; Unprocessable where that is not a job."""
    try:
        spec = plistlib.loads(path.read_bytes())
    except OSError as error:
        raise Unprocessable(f"{path.name} cannot be read: {error.strerror}") from None
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise Unprocessable(f"{path.name} is not a property list: {error}") from None
    arguments = spec.get("ProgramArguments") if isinstance(spec, dict) else None
    if not isinstance(arguments, list) or not arguments or not all(isinstance(one, str) for one in arguments):
        raise Unprocessable(f"{path.name} has no ProgramArguments")
    if spec.get("Label") != path.stem:
        raise Unprocessable(f"{path.name} must be named after its Label, {spec.get('Label')!r}")
    return spec
