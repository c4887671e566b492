"""Processes by identity: a pid with its time of birth, and whole groups that end together.

A pid alone is not a name: numbers come back. Whoever remembers a process over a restart
remembers `Process(pid, born)`, and asks `lives` before trusting it.
"""
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from orkosi import Struct
from plugins import folders


class Process(Struct, frozen=True):
    pid: int
    born: str


def born(pid: int) -> str:
    """When `pid` was started, in the words of this system; "" where it does not live."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if stat[0] in "ZX" else stat[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return ""
    said = subprocess.run(["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10,
                          env={"LC_ALL": "C", "TZ": "UTC"}).stdout
    state, _, when = said.strip().partition(" ")
    return "" if state.startswith("Z") else " ".join(when.split())


def lives(process: Process) -> bool:
    """Whether that very process is still there."""
    return bool(process.born) and born(process.pid) == process.born


def identify(pid: int) -> Process:
    """A process that was just started, as one that can be known again."""
    return Process(pid, born(pid))


def remember(path: Path, process: Process) -> None:
    """Write a process down, so that whoever comes later knows it again."""
    folders.write_whole(path, json.dumps({"pid": process.pid, "born": process.born}))


def remembered(path: Path) -> Process | None:
    """The process in `path`, if it still lives."""
    try:
        found = json.loads(folders.read_plain(path, 4096))
        process = Process(int(found["pid"]), str(found["born"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if process.pid > 1 and lives(process) else None


def group_lives(group: int) -> bool:
    """Whether a process group has a member left that is not dead already.

    A zombie is dead, and only not fetched yet: by a parent of ours, or by an init that takes its time.
    """
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        return False
    if not Path("/proc/self/stat").exists():
        return True
    return any(_alive_in(group, one) for one in os.listdir("/proc") if one.isdigit())


def _alive_in(group: int, pid: str) -> bool:
    try:
        state, _, its_group, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # it ended meanwhile
        return False
    return int(its_group) == group and state not in "ZX"


def end_group(group: int, grace: float, reap: Callable[[], object] = lambda: None) -> None:
    """Ask a whole process group to end, and after `grace` seconds make it. `reap` fetches a child of ours."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            reap()
            return
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not group_lives(group):
                reap()  # dead is not fetched yet
                return
            reap()
            time.sleep(0.02)
