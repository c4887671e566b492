"""Trees: every process that a run has started, wherever it went, and its end.

What an agent's program starts may leave its process group, its session and its parent; all the real tools do that to their
commands. Two things stay: it descends from the program as long as its parents live, and it carries their environment. So one
is looked for before the first signal, and the other until nothing is left. Surprise: only who empties its environment and
loses its parent, too, is not found.
"""
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from . import processes
from .processes import Process

LINUX = Path("/proc/self/stat").exists()
PACE = 0.03 if LINUX else 0.15  # seconds between two looks: elsewhere each is a program that is started
HARD = 2.0                      # seconds for which what does not want to end is made to


class Seen(dict[int, tuple[int, int, str, str]]):
    """All living processes at one moment, zombies left out: pid → parent, group, time of birth, name."""

    @classmethod
    def now(cls) -> "Seen":
        return cls(_linux() if LINUX else _elsewhere())

    def below(self, roots: Iterable[Process]) -> set[Process]:
        """These, the groups they lead or led, and the descendants of all of them: those that live."""
        roots = list(roots)
        found = {one for one in roots if one.pid in self and self[one.pid][2] == one.born}
        near: dict[int, list[int]] = {}
        for pid, (parent, group, _, _) in self.items():
            near.setdefault(parent, []).append(pid)
            near.setdefault(-group, []).append(pid)
        line = [one.pid for one in found] + [-one.pid for one in roots]
        while line:
            fresh = [Process(pid, self[pid][2]) for pid in near.get(line.pop(), ())]
            line += [one.pid for one in fresh if one not in found]
            found.update(fresh)
        return found


def _linux() -> Iterable[tuple[int, tuple[int, int, str, str]]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        name, _, rest = _read(f"/proc/{pid}/stat", 1024).decode(errors="replace").partition("(")[2].rpartition(")")
        fields = rest.split()
        if fields and fields[0] not in "ZX":
            yield int(pid), (int(fields[1]), int(fields[2]), fields[19], name)


def _elsewhere() -> Iterable[tuple[int, tuple[int, int, str, str]]]:
    for line in _ps("-A", "-o", "pid=,ppid=,pgid=,stat=,lstart=,comm="):
        pid, parent, group, state, rest = line.split(maxsplit=4)
        *when, name = rest.split(maxsplit=5)
        if not state.startswith("Z"):
            yield int(pid), (int(parent), int(group), " ".join(when), name.rpartition("/")[2])


def _ps(*arguments: str) -> list[str]:
    return subprocess.run(["/bin/ps", *arguments], capture_output=True, text=True, timeout=10, errors="replace",
                          env={"LC_ALL": "C", "TZ": "UTC"}).stdout.splitlines()


def carrying(mark: str, seen: Seen) -> set[Process]:
    """Processes of ours in whose environment a variable begins with `mark`, which names it: `NAME=beginning`."""
    if LINUX:
        needle = b"\0" + os.fsencode(mark)
        return {Process(pid, facts[2]) for pid, facts in seen.items()
                if pid != os.getpid() and needle in b"\0" + _read(f"/proc/{pid}/environ", 1 << 17)}
    # The environment stands behind the arguments there, and only of one's own processes.
    pids = [int(line.split(maxsplit=1)[0]) for line in _ps("-x", "-E", "-ww", "-o", "pid=,command=") if f" {mark}" in line]
    return {Process(pid, seen[pid][2]) for pid in pids if pid in seen and pid != os.getpid()}


def _read(path: str, most: int) -> bytes:
    """What a file of /proc says, without what Python's own files do beside: there are two for each process of the machine at each look. Empty
    where it is another user's, or its process has ended."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        said = piece = os.read(fd, most)
        while piece:
            said += (piece := os.read(fd, most))
        return said
    except OSError:
        return b""
    finally:
        os.close(fd)


def end(mark: str, grace: float, roots: Iterable[Process] = (), reap: Callable[[], object] = lambda: None) -> list[str]:
    """Ask all that descends from `roots` or carries `mark` to end, and after `grace` seconds make it; what was ended, by name and number.

    `reap` fetches a child of ours that is dead."""
    known, asked, ended = set(roots), set[Process](), dict[Process, str]()
    hard = time.monotonic() + grace
    while True:
        seen = Seen.now()
        known = alive = seen.below(known | carrying(mark, seen))
        moment = time.monotonic()
        if not alive or moment > hard + HARD:
            reap()
            return [f"{name} ({one.pid})" for one, name in ended.items()]
        for one in alive if moment >= hard else alive - asked:
            _signal(one.pid, signal.SIGKILL if moment >= hard else signal.SIGTERM)
            ended[one] = seen[one.pid][3]
        asked |= alive
        reap()
        time.sleep(PACE)


def end_left(pid_file: Path, mark: str, grace: float) -> list[str]:
    """End what is left of a process on record, and all that carries `mark`; what it was. The record is gone then."""
    left = processes.remembered(pid_file)
    ended = end(mark, grace, [left] if left else [])
    with contextlib.suppress(OSError):
        pid_file.unlink()
    return ended


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError as error:
        if not isinstance(error, ProcessLookupError):
            print(f"process {pid} cannot be ended: {error.strerror}", file=sys.stderr)
