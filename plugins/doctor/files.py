"""The database files, each looked at alone: which of the two is at fault, where both together do not open or are damaged.

Surprise: each is opened for reading only, so that nothing that is damaged becomes worse by being looked at.
"""
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from orkosi import Damaged, Problem, settings, translate
from plugins import storage

from . import Finding

NAMES = {"orkosi.db": "main", "logs.db": "logs"}
RESTORE = "restore a backup: python3 orkosi.py restore FILE"


def said(name: str, error: Problem | apsw.Error) -> Finding:
    """What a database answered instead of what it was asked."""
    problem = translate(error)
    cure = f"doctor --full says which file; {RESTORE}" if isinstance(problem, Damaged) else ""
    return Finding(name, "fail", problem.message if isinstance(problem, Problem) else str(error), cure)


def refused(error: Problem | apsw.Error) -> list[Finding]:
    """Why both together did not open: what is the matter with one of them alone, or else what was said."""
    found = [Finding("database", "fail", f"{path} does not open: {why}; clock, health, agents and backups were not looked at", RESTORE)
             for path in _present() if (why := _alone(path, "table_list"))]
    return found or [said("database", error)]


def pages() -> Iterator[Finding]:
    """Read every page of each. Beside a file that may not be written, SQLite would make others that may not be, either: those are left alone."""
    for path in [] if any(storage.unwritable()) else _present():
        if why := _alone(path, "integrity_check(5)"):
            yield Finding("integrity", "fail", f"{path}: {why}", RESTORE)
        else:
            yield Finding("integrity", "ok", f"every page of {NAMES[path.name]} is whole")


def _present() -> list[Path]:
    return [path for name in NAMES if (path := settings.data / name).exists()]


def _alone(path: Path, ask: str) -> str:
    """What a file by itself has to complain of when it is asked; empty where it is well."""
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as con:
            con.set_busy_timeout(5000)
            con.execute("PRAGMA cell_size_check = on")
            told = str(con.execute(f"PRAGMA {ask}").fetchall()[0][0])
            return "" if ask == "table_list" or told == "ok" else " ".join(told.split())
    except apsw.Error as error:
        return str(error)
