"""Recover: goes back to the version before, where an upgrade was interrupted. A program of its own, with nothing but the standard library.

While an upgrade is under way, a copy of this lies in `releases/recover.py`, and every start of orkosi.py runs it first: whatever mixture of
two versions lies there, this one file is whole. Whoever upgrades holds `releases/lock`. Where nobody holds it, the upgrade has died, and what
it replaced is put back. Where somebody does, the start waits until the files are swapped, and then goes on: it is what is waited for.
"""
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 120.0  # seconds that files may take to be swapped
# In a process of its own, which only looks: two libraries of SQLite in one would take each other's locks away.
LOOK = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], uri=True).execute('PRAGMA user_version').fetchone()[0])"


def recover(home: Path) -> str:
    """See to an upgrade that is under way, or was; what was done, "" where nothing was."""
    releases = home / "releases"
    journal = releases / "journal.json"
    end = time.monotonic() + PATIENCE
    with open(releases / "lock", "a") as lock:
        while journal.exists():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if json.loads(journal.read_text() or "{}").get("stage") != "swapping" or time.monotonic() > end:
                    return ""
                time.sleep(0.1)
                continue
            known = json.loads((releases / "before" / "swapped.json").read_text())
            put_back(home, known["names"], known["had"])
            said = put_data_back(home, known["backup"], known["data"])
            finish(home)
            return f"An upgrade was interrupted: version {known['version']} is in its place again{said}"
    return ""


def put_back(home: Path, names: list, had: list) -> None:
    """Put what lies in `releases/before` in its place again; each file or folder in one step, and orkosi.py itself is never missing."""
    before = home / "releases" / "before"
    for name in names:
        target, old = home / name, before / name
        if old.exists():
            away(target)
            os.replace(old, target)
        elif name not in had:
            away(target)
            target.unlink(missing_ok=True)


def away(target: Path) -> None:
    """Make room for what comes in the place of a folder; a file is replaced as it stands."""
    if target.is_dir() and not target.is_symlink():
        gone = target.with_name(f".{target.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(target, gone)
        shutil.rmtree(gone, ignore_errors=True)


def put_data_back(home: Path, backup: str, data: str) -> str:
    """Where a newer version that never ran well has changed the schema, the backup that was made before it takes the data's place."""
    path = Path(data) / "orkosi.db"
    known = re.search(r"PRAGMA user_version = (\d+)", (home / "schema.sql").read_text())
    if not backup or not path.exists() or not known:
        return ""
    version = int(subprocess.run([sys.executable, "-c", LOOK, f"{path.as_uri()}?mode=ro"], check=True, capture_output=True).stdout)
    if version <= int(known[1]):
        return ""
    environment = os.environ | {"ORKOSI_RECOVERING": "1"}
    subprocess.run([sys.executable, str(home / "orkosi.py"), "restore", backup, "--yes", "--data", data], check=True, env=environment,
                   stdout=sys.stderr)
    return f", and the data is as it was in {backup}"


def finish(home: Path) -> None:
    """The upgrade is over, one way or the other."""
    for name in ("journal.json", "recover.py"):
        (home / "releases" / name).unlink(missing_ok=True)


if __name__ == "__main__":
    done = recover(Path(sys.argv[1]))
    if done:
        print(done, file=sys.stderr)
