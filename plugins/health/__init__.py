"""Health: is it alive, is it ready, and what do the parts say of themselves.

Owns no table. Surprise: the health checks of every plugin are asked one by one; one that
raises is reported as failed and never takes the others with it.
"""
import threading
import time
from contextlib import suppress

from orkosi import Check, Plugin, Problem, Struct, db, plugins

plugin = Plugin("Health", layer="views")
STARTED = time.monotonic()
PAUSE, LATE = 5.0, 15.0  # seconds from one write that is tried to the next; after how many one that is not done tells that none are
_trying = 0.0  # since when one is tried; 0: none is


def alive() -> bool:
    """Whether the database answers, and takes writes: reads have connections of their own, and go on where a write hangs for good."""
    return db.value("SELECT count(*) FROM tenants") is not None and not hangs()


def hangs() -> bool:
    """Whether the last write that was tried, or a flush, is not done, and should be."""
    return any(began and time.monotonic() - began > LATE for began in (_trying, db.flusher.since if db.flusher else 0.0))


@plugin.service
def try_to_write(stop: threading.Event) -> None:
    """Write nothing, again and again, in the turn of all who write: whoever holds that turn and never ends holds this up, too."""
    global _trying
    while not stop.wait(PAUSE):
        _trying = time.monotonic()
        try:
            with suppress(Problem):  # a disk that is full, or another process that is at it for long, is told elsewhere; it does not hang
                db.write(lambda: None, durable=False)
        finally:
            _trying = 0.0


def uptime() -> int:
    """Seconds since this process started."""
    return int(time.monotonic() - STARTED)


def checks() -> dict[str, Check]:
    """What every plugin's checks found, by name."""
    found = {}
    for one in plugins.values():
        for name, ask in one.checks.items():
            try:
                found[name] = ask()
            except Exception as error:
                found[name] = Check(False, f"{type(error).__name__} while checking")
    return found


# ── the company ──


class Point(Struct):
    """One thing that was asked: whether it is well, what was found, and how to mend it."""
    code: str
    ok: bool
    message: str
    fix: str


class Section(Struct):
    """A part of the company: its share of points that are well, of a hundred."""
    score: float
    checks: list[Point]


class Company(Struct):
    """The health of the company: the mean of its sections."""
    score: float
    sections: dict[str, Section]


SECTIONS = ("agents", "tasks", "products", "files")


def company() -> Company:
    """Ask every point of every section. A check is called as its section and its code: `tasks.blocked`."""
    found = checks()
    sections = {}
    for name in SECTIONS:
        points = [Point(code.partition(".")[2], one.ok, one.detail, getattr(one, "fix", "")) for code, one in sorted(found.items())
                  if code.startswith(f"{name}.")]
        sections[name] = Section(round(100 * sum(point.ok for point in points) / len(points), 1) if points else 100.0, points)
    return Company(round(sum(one.score for one in sections.values()) / len(sections), 1), sections)
