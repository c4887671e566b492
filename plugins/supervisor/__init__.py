"""Supervisor: what keeps scripts running, behind one small interface.

Owns no table. A plist in `jobs/` is the whole truth of a job: its file name is its label, and two drivers read
the same file. `launchd` has macOS run it; `embedded` runs it from a thread of this server, so that
Linux, CI and offline work run the real loop. Surprise: every verb here may start processes: never call one
inside a write.
"""
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

from orkosi import Invalid, Plugin, settings

from . import embedded, launchd, processes
from .plist import Status, folder_hash, plist_of, read, write
from .plist import lives_elsewhere as lives_elsewhere

log = logging.getLogger("orkosi")
plugin = Plugin("Supervisor", layer="ground", needs=("folders",))
plugin.setting("supervisor", str, "auto", "What runs the agents: launchd, embedded, or auto (launchd on macOS, else embedded)")


class Driver(Protocol):
    def load(self, plist: Path, gently: bool = False) -> bool: ...
    def unload(self, plist: Path) -> None: ...
    def end(self, plist: Path) -> None: ...
    def start(self, plist: Path) -> None: ...
    def status(self, plist: Path) -> Status: ...
    def statuses(self, plists: list[Path]) -> list[Status]: ...


def driver() -> Driver:
    """The driver that the setting `supervisor` names."""
    match settings.supervisor:
        case "launchd":
            return launchd.driver
        case "embedded":
            return embedded.driver
        case "auto":
            return launchd.driver if sys.platform == "darwin" and _session() else embedded.driver
    raise Invalid(f"supervisor must be auto, launchd or embedded, not {settings.supervisor!r}")


def load(plist: Path, *, gently: bool = False) -> bool:
    """Take a job into care, or take in its changed plist; False where it is loaded as it stands, and nothing happens.

    What runs of a job whose plist changed is ended; `gently`: it runs on, and the plist counts from its next start.
    """
    return driver().load(plist, gently)


@plugin.every("5s")
def take_in() -> None:
    """Take in the plists that waited for what ran by the ones before."""
    if driver() is launchd.driver:
        launchd.driver.take_in()


@cache
def _session() -> bool:
    """Whether launchd has a session of this user; looked at once, for the driver must not change while jobs are in its care."""
    found = launchd.driver.there()
    if not found:
        log.warning("launchd has no session of this user: nobody is logged in at the screen. The server runs the agents itself; "
                    "with automatic log-in, launchd would, and they would outlive it")
    return found


def restart(plist: Path, ended: Callable[[], None] = lambda: None) -> None:
    """End what runs of a job and start it, with its plist as it is now, whether it was loaded or not; `ended` is called in between."""
    if load(plist):
        if not read(plist).get("RunAtLoad"):
            start(plist)
        return
    end(plist)
    ended()
    start(plist)


def unload(plist: Path) -> None:
    """Let go of a job and end its whole process group. Nothing happens where it was not loaded."""
    driver().unload(plist)


def end(plist: Path) -> None:
    """Ask what runs of a loaded job to end, and wait until it has; what does not want to is made to. The job stays loaded."""
    driver().end(plist)


def start(plist: Path) -> None:
    """Start a loaded job now; nothing happens where it runs."""
    driver().start(plist)


@plugin.on("stopping")
def hurry(event: str, folder: object) -> None:
    """The server stops: what it runs itself is ended at once."""
    embedded.driver.hurry()


def statuses(plists: list[Path]) -> list[Status]:
    """The same of several jobs, at the cost of one."""
    return driver().statuses(plists)


def status(plist: Path) -> Status:
    """Whether a job is loaded, its pid while it runs, and how it last ended."""
    return driver().status(plist)


__all__ = ["Status", "embedded", "folder_hash", "launchd", "plist_of", "processes", "read", "write"]
