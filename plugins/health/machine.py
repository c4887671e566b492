"""The health of the machine and the server: what a monitor asks.

Surprise: anybody may ask. A word for each is told to everybody, how it is in detail only to administrators.
"""
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Literal

from orkosi import Problem, Struct, across_tenants, db, now, plugins, restarted, settings
from plugins.server import gauges
from plugins.server.limits import limiter

from . import alive

Word = Literal["ok", "warn", "fail", "off"]
NEEDED = ("db", "disk", "watchers")  # without which nothing is served
LARGE, HUGE = 1 << 30, 4 << 30       # bytes of memory
LATE = 60.0                          # seconds by which what is due may be late
WELL = 90.0                          # seconds after which a service that stopped, and has not again, is well: the longest pause, and what it runs
AGAIN = 4.0                          # seconds of pause from which on a service stopped again and again, not once


class Looked(Struct):
    """One look: a word, and what it is about."""
    word: Word
    detail: str


def look() -> dict[str, Looked]:
    """Look at everything a server needs."""
    return {name: _safely(ask) for name, ask in LOOKS.items()}


def _safely(ask: "object") -> Looked:
    try:
        found: Looked = ask()  # type: ignore[operator]
        return found
    except (Problem, OSError, ValueError) as error:
        return Looked("fail", f"{type(error).__name__}: {error}")


def database() -> Looked:
    """Whether it answers, how long that takes, and whether nobody found it damaged since the start: it does not heal."""
    began = time.perf_counter()
    fine = alive()
    size = sum(os.path.getsize(path) for name in ("orkosi.db", "logs.db") if (path := settings.data / name).exists())
    if said := gauges.damaged.get(settings.data):
        return Looked("fail", said)
    return Looked("ok" if fine else "fail", f"{size >> 20} MB; it answered within {(time.perf_counter() - began) * 1000:.1f} ms")


def memory() -> Looked:
    """What this process takes."""
    used = resident()
    return Looked("fail" if used > HUGE else "warn" if used > LARGE else "ok", f"{used >> 20} MB")


def resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        said = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, timeout=5)
        return int(said.stdout) * 1024


def disk() -> Looked:
    """What is free where the data is."""
    free, least = shutil.disk_usage(settings.data).free, settings.min_free_mb << 20
    word: Word = "fail" if free < least else "warn" if free < 10 * least else "ok"
    return Looked(word, f"{free >> 20} MB are free; below {least >> 20} MB nothing is written")


def git() -> Looked:
    """Whether backups can be pushed, where they are to be."""
    if not settings.backup_remote:
        return Looked("off", "no backup_remote is set")
    return Looked("ok", "it is there") if shutil.which("git") else Looked("fail", "a backup_remote is set, and there is no git")


def tunnel() -> Looked:
    """Whether the tunnel's door listens, where there is one."""
    if not settings.tunnel_port:
        return Looked("off", "no tunnel_port is set")
    with socket.socket() as knock:
        knock.settimeout(0.5)
        there = knock.connect_ex(("127.0.0.1", settings.tunnel_port)) == 0
    return Looked("ok" if there else "fail", f"port {settings.tunnel_port} {'listens' if there else 'does not listen'}")


def rate_limits() -> Looked:
    """Whether those that keep guessers out are on."""
    off = [name for name in ("limit_login", "limit_register", "limit_forgot") if getattr(settings, name, "") == "off"]
    return Looked("warn" if off else "ok", f"{', '.join(off)} off" if off else f"{limiter.counted()} callers are counted")


def watchers() -> Looked:
    """Whether every thread that watches over something lives, and does not stop and begin again; off, where none was started."""
    living = {thread.name for thread in threading.enumerate()}
    if "every" not in living:
        return Looked("off", "no services run in this process")
    gone = [name for one in plugins.values() for service in one.services if (name := f"{one.name}.{service.__name__}") not in living
            and name not in ENDING]
    if gone:
        return Looked("fail", f"{', '.join(gone)} ended")
    ill = {name: pause for name, (at, pause) in restarted.copy().items() if time.monotonic() - at < WELL}
    if ill:
        return Looked("fail" if max(ill.values()) >= AGAIN else "warn", f"{', '.join(sorted(ill))} stopped; the log says why")
    return Looked("ok", f"{sum(len(one.services) for one in plugins.values())} live")


ENDING = ("demo.seed", "server.mend_modes")  # services that do their work once, at the start


@across_tenants
def scheduler() -> Looked:
    """Whether what is due begins."""
    late = db.value("""SELECT run_at FROM jobs WHERE state = 'delayed' AND held_for IS NULL AND run_at <= :then
                        ORDER BY run_at LIMIT 1""", then=now(-LATE))
    many = db.value("SELECT count(*) FROM schedules WHERE enabled = 1")
    return Looked("fail" if late else "ok", f"a job was due at {late}, and has not begun" if late else f"{many} schedules")


def backups() -> Looked:
    """Whether there is one of late that can be restored."""
    found = plugins["backups"].checks["backups"]()  # that one alone: anybody may ask, and all of them together take a while
    return Looked("ok" if found.ok else "warn", found.detail)


LOOKS = {"db": database, "memory": memory, "disk": disk, "git": git, "tunnel": tunnel, "rate_limits": rate_limits, "watchers": watchers,
         "scheduler": scheduler, "backups": backups}
