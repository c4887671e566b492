"""What the disk and the supervisor say of an automation, and making the supervisor follow its record."""
import logging
import os
from pathlib import Path

from orkosi import Problem, Struct, settings
from plugins import supervisor

from . import LAUNCHED, Automation

log = logging.getLogger("orkosi")
OUTSIDE = "The path is outside the data folder, and so it is never looked at"


class Live(Struct):
    """The file as it is now, and for a launch agent its process."""
    exists: bool
    is_executable: bool
    loaded: bool | None = None
    pid: int | None = None
    last_exit: int | None = None


def inside(path: str, root: Path | None = None) -> Path | None:
    """`path` where it is within `root` (the data folder), links followed; else None, without having looked at it."""
    root = (root or settings.data).absolute()
    lexical = Path(os.path.normpath(root / path))
    if not lexical.is_relative_to(root):
        return None
    real = Path(os.path.realpath(lexical))
    return real if real.is_relative_to(os.path.realpath(root)) else None


def plist(automation: Automation) -> Path | None:
    """The plist of a launch agent that may be loaded: a plain file in `jobs/`."""
    path = Path(os.path.normpath(settings.data / automation.path))
    if automation.type != LAUNCHED or path.suffix != ".plist" or path.parent != settings.data / "jobs":
        return None
    return path if inside(str(path), settings.data / "jobs") else None


def look(automation: Automation) -> tuple[Live | None, str | None]:
    """The live state, or None and why not."""
    path = inside(automation.path)
    if path is None:
        return None, OUTSIDE
    try:
        found = Live(path.exists(), path.is_file() and os.access(path, os.X_OK))
    except (OSError, ValueError) as error:
        return None, f"The path cannot be looked at: {error}"
    if (job := plist(automation)) is None:
        return found, None
    try:
        status = supervisor.status(job)
    except Problem as problem:
        return found, problem.message
    found.loaded, found.pid, found.last_exit = status.loaded, status.pid, status.last_exit
    return found, None


def follow(automation: Automation) -> None:
    """Load a launch agent that is active, and unload one that is not. Unprocessable where its plist is no job."""
    job = plist(automation)
    if job is None:
        return
    if automation.status != "active":
        supervisor.unload(job)
    elif job.exists():
        supervisor.load(job)


def let_go(automation: Automation) -> None:
    """Unload one whose record is gone or points elsewhere."""
    if job := plist(automation):
        supervisor.unload(job)
