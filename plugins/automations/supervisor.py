"""The supervisor: what keeps scripts running, behind one small interface.

A plist in `jobs/` is the whole truth of a job: its file name is its label, and two drivers read
the same file. `launchd` has macOS run it; `embedded` runs it from a thread of this server, so that
Linux, CI and offline work run the real loop. Every verb here may start processes: never call one
inside a write.
"""
import hashlib
import os
import plistlib
import sys
from pathlib import Path
from typing import Any, Protocol
from xml.parsers.expat import ExpatError

from orkosi import Invalid, Struct, Unprocessable, settings


class Status(Struct):
    """What the supervisor knows of one job."""
    loaded: bool = False
    pid: int | None = None
    last_exit: int | None = None


class Driver(Protocol):
    def load(self, plist: Path) -> None: ...
    def unload(self, plist: Path) -> None: ...
    def kickstart(self, plist: Path) -> None: ...
    def status(self, plist: Path) -> Status: ...


def driver() -> Driver:
    """The driver that the setting `supervisor` names."""
    from . import embedded, launchd
    match settings.supervisor:
        case "launchd":
            return launchd.driver
        case "embedded":
            return embedded.driver
        case "auto":
            return launchd.driver if sys.platform == "darwin" else embedded.driver
    raise Invalid(f"supervisor must be auto, launchd or embedded, not {settings.supervisor!r}")


def load(plist: Path) -> None:
    """Take a job into care, or take in its changed plist; nothing happens to one that is loaded as it stands."""
    driver().load(plist)


def unload(plist: Path) -> None:
    """Let go of a job and end its whole process group. Nothing happens where it was not loaded."""
    driver().unload(plist)


def kickstart(plist: Path) -> None:
    """End what runs of a loaded job, and start it now."""
    driver().kickstart(plist)


def status(plist: Path) -> Status:
    """Whether a job is loaded, its pid while it runs, and how it last ended."""
    return driver().status(plist)


def folder_hash() -> str:
    """Eight hex digits of where the data folder is: two installations never share a label."""
    return hashlib.sha256(os.fsencode(settings.data.absolute())).hexdigest()[:8]


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
