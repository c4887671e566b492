"""Upgrade: another version in the place of this one, and back again by itself where it does not run.

Owns `releases/` beside orkosi.py: `next` while a bundle is being unpacked, `before` with what was replaced, and `journal.json` while an
upgrade is under way. Surprise: the journal is written before the first file moves and removed after the new server is well. Whoever finds
one - the next upgrade, or a rollback - first goes back to the version before; so there is always one that can run, whenever the power fails.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw

from orkosi import HOME, VERSION, Conflict, Problem, Unavailable, acting, settings, system
from plugins import backups, folders, storage
from plugins.backups import making
from plugins.supervisor import launchd

from . import plist, running, wait_until_well
from .bundle import CODE, Bundle, unpack

SWAPPED = (*CODE, "wheels", "bundle.json", "sbom.cdx.json")
Say = Callable[[str], None]


def releases(home: Path = Path(HOME)) -> Path:
    """Where versions lie that are not the present one."""
    return home / "releases"


def upgrade(path: Path, say: Say) -> str:
    """Check a bundle, make a backup, swap, start, see that it is well - or go back; the version that runs now. Damaged, Unavailable."""
    settle(say)
    place = releases() / "next"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    found = unpack(path, place)
    say(f"The bundle has version {found.version}, and every file of it is as it was made")
    _try(found)
    served = bool(running()) and launchd_has_it()
    if running() and not served:
        raise Conflict("A server that launchd does not look after is running; stop it, upgrade, and start it again")
    name = _snapshot()
    say(f"A backup is made: {name}" if name else "There is no data yet to back up")
    if served:
        launchd.driver.unload(plist())
    try:
        _swap(name)
        _prepare(Path(HOME))
        if served:
            launchd.driver.load(plist())
            wait_until_well(found.version)
    except (Problem, OSError, subprocess.SubprocessError) as error:
        said = error.message if isinstance(error, Problem) else str(error)
        say(f"Version {found.version} does not run: {said}")
        back(say, served)
        raise Unavailable(f"Version {found.version} did not run, and {VERSION} is in its place again: {said}") from None
    _journal().unlink()
    return found.version


def launchd_has_it() -> bool:
    """Whether launchd runs the server."""
    try:
        return launchd.driver.status(plist()).pid is not None
    except Problem:
        return False


def _try(found: Bundle) -> None:
    """See whether the new version can say which one it is, before anything is swapped."""
    _prepare(found.folder)
    said = _asked(found.folder, "--version")
    if found.version not in said:
        raise Unavailable(f"The bundle says version {found.version}, but its program says {said.strip()[:200]!r}")


def _prepare(home: Path) -> None:
    """Have the environment of a version: it makes it itself, from its wheels."""
    _asked(home, "--version")


def _asked(home: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "ORKOSI_NO_INSTALL"}
    done = subprocess.run([sys._base_executable if hasattr(sys, "_base_executable") else sys.executable, str(home / "orkosi.py"), *arguments],
                          capture_output=True, text=True, errors="replace", timeout=600, env=environment)
    if done.returncode:
        raise Unavailable(f"it does not start: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:500]}")
    return done.stdout


def _snapshot() -> str:
    if not (settings.data / "orkosi.db").exists():
        return ""
    storage.open_data()
    try:
        with acting(system()):
            name = backups.fresh_name("manual")
            made = making.make(name, "manual")
            backups.note(name, sha256=made["sha256"], size=made["size"], verification="pending", verified_at=None, offsite="pending")
            return name
    finally:
        storage.close_data()


# ── the swap ──


def _journal() -> Path:
    return releases() / "journal.json"


def _swap(backup: str) -> None:
    """Put the next version in the place of the present one, step by step; the journal says that it is under way."""
    before, fresh = releases() / "before", releases() / "next"
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir()
    had = [name for name in (*SWAPPED, ".venv") if (Path(HOME) / name).exists()]
    folders.write_whole(before / "swapped.json", json.dumps({"version": VERSION, "backup": backup, "had": had}))
    folders.write_whole(_journal(), "{}")
    for name in (*SWAPPED, ".venv"):
        if (Path(HOME) / name).exists():
            os.rename(Path(HOME) / name, before / name)
        if (fresh / name).exists():
            os.rename(fresh / name, Path(HOME) / name)
    shutil.rmtree(Path(HOME) / ".venv", ignore_errors=True)  # it has its place in it, and is made anew where it stands
    shutil.rmtree(fresh, ignore_errors=True)


def back(say: Say, start: bool) -> None:
    """Put the version before in its place again, from wherever the swap came to."""
    before = releases() / "before"
    known = json.loads((before / "swapped.json").read_text())
    if start:
        launchd.driver.unload(plist())
    for name in (*SWAPPED, ".venv"):
        target = Path(HOME) / name
        if (before / name).exists() or name not in known["had"]:
            shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink(missing_ok=True)
        if (before / name).exists():
            os.rename(before / name, target)
    interrupted = _journal().exists()
    _journal().unlink(missing_ok=True)
    say(f"Version {known['version']} is in its place again")
    _put_data_back(known["backup"], interrupted, say)
    if start:
        launchd.driver.load(plist())
        wait_until_well()


def _put_data_back(backup: str, interrupted: bool, say: Say) -> None:
    """Where the newer version has changed the schema, the older one cannot read it. What an upgrade that never ran has written is
    nobody's work, and its backup takes its place; after one that ran, that is for a person to decide."""
    newest = re.search(r"PRAGMA user_version = (\d+)", (Path(HOME) / "schema.sql").read_text())
    path = settings.data / "orkosi.db"
    if not newest or not path.exists():
        return
    con = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        version = int(con.pragma("user_version"))  # type: ignore[arg-type]
    finally:
        con.close()
    if version <= int(newest[1]):
        return
    if not interrupted:
        raise Conflict(f"The newer version has changed the data (schema {version}). What was done since the upgrade is lost if you go back: "
                       f"python3 orkosi.py restore {backup}")
    say(f"The newer version had changed the data already: {backup} takes its place")
    _asked(Path(HOME), "restore", backup, "--yes", "--data", str(settings.data))


def settle(say: Say) -> bool:
    """Go back where an upgrade was interrupted; whether one was."""
    if not _journal().exists():
        return False
    say("An upgrade was interrupted; going back first")
    back(say, False)
    return True


def rollback(say: Say) -> None:
    """Put the version before the last upgrade in its place. Conflict where there is none."""
    if settle(say):
        return
    if not (releases() / "before" / "orkosi.py").exists():
        raise Conflict("There is no version before this one")
    served = launchd_has_it()
    if running() and not served:
        raise Conflict("A server that launchd does not look after is running; stop it first")
    back(say, served)
