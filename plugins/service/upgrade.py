"""Upgrade: another version in the place of this one, and back again by itself where it does not run.

Owns `releases/` beside orkosi.py: `next` while a bundle is being unpacked, `before` with what was replaced, and while an upgrade is under way
`journal.json`, `lock` and `recover.py`. Surprise: an upgrade is not done when the files are swapped, but when the new server has said
that it is well. Until then, every start of orkosi.py first asks recover.py; if this process dies, whatever starts next goes back.
"""
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from orkosi import HOME, VERSION, Conflict, Problem, Unavailable, acting, settings, system
from plugins import backups, folders, storage
from plugins.backups import making
from plugins.supervisor import launchd

from . import plist, recover, running, wait_until_well
from .bundle import CODE, Bundle, unpack

SWAPPED = (*CODE, "wheels", "bundle.json", "sbom.cdx.json")
Say = Callable[[str], None]


def releases(home: Path = Path(HOME)) -> Path:
    """Where versions lie that are not the present one."""
    return home / "releases"


def upgrade(path: Path, say: Say) -> str:
    """Check a bundle, make a backup, swap, start, see that it is well - or go back; the version that runs now. Damaged, Unavailable."""
    with _alone():
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
        try:
            _swap(name, served)
            _asked(Path(HOME), "--version")
            if served:
                launchd.driver.start(plist())
                wait_until_well(found.version)
        except (Problem, OSError, subprocess.SubprocessError) as error:
            said = error.message if isinstance(error, Problem) else str(error)
            say(f"Version {found.version} does not run: {said}")
            back(say, served)
            raise Unavailable(f"Version {found.version} did not run, and {VERSION} is in its place again: {said}") from None
        recover.finish(Path(HOME))
        return found.version


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One upgrade at a time; recover.py sees by this lock whether it is still alive. Conflict."""
    releases().mkdir(exist_ok=True)
    with open(releases() / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another upgrade is under way") from None
        yield


def launchd_has_it() -> bool:
    """Whether launchd runs the server."""
    try:
        return launchd.driver.status(plist()).pid is not None
    except Problem:
        return False


def _try(found: Bundle) -> None:
    """See whether the new version can say which one it is, before anything is swapped: it makes its environment, from its wheels."""
    said = _asked(found.folder, "--version")
    if found.version not in said:
        raise Unavailable(f"The bundle says version {found.version}, but its program says {said.strip()[:200]!r}")


def _asked(home: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "ORKOSI_NO_INSTALL"} | {"ORKOSI_RECOVERING": "1"}
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
            made = making.make(lambda: backups.fresh_name("manual"), "manual")
            name = str(made["filename"])
            backups.note(name, sha256=made["sha256"], size=made["size"], verification="pending", verified_at=None, offsite="pending")
            return name
    finally:
        storage.close_data()


# ── the swap ──


def _journal() -> Path:
    return releases() / "journal.json"


def _begin() -> None:
    """From here on, whatever starts asks recover.py, which is there and whole before the journal says so."""
    if not _journal().exists():  # else it is there, from before the swap; beside us lies that of a version which did not run
        fresh = releases() / "recover.new"
        shutil.copy2(Path(recover.__file__), fresh)
        os.replace(fresh, releases() / "recover.py")
    folders.write_whole(_journal(), json.dumps({"stage": "swapping"}))


def _swap(backup: str, served: bool) -> None:
    """Stop the server, and put the next version in the place of this one. launchd goes on wanting the server: what it starts meanwhile waits.

    What is replaced is copied first: so that there is no moment at which orkosi.py, by which all is healed, is not there.
    """
    before, fresh, home = releases() / "before", releases() / "next", Path(HOME)
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir()
    names = [*(name for name in SWAPPED if name != "orkosi.py"), ".venv", "orkosi.py"]
    had = [name for name in names if (home / name).exists()]
    facts = {"version": VERSION, "backup": backup, "had": had, "names": names, "data": str(settings.data)}
    folders.write_whole(before / "swapped.json", json.dumps(facts))
    shutil.copy2(home / "orkosi.py", before / "orkosi.py")
    _begin()
    if served:
        launchd.driver.end(plist())
    for name in names:
        if name != "orkosi.py" and (home / name).exists():
            os.rename(home / name, before / name)
        if (fresh / name).exists():
            os.replace(fresh / name, home / name)
    _at_home(home / ".venv", fresh / ".venv")
    folders.write_whole(_journal(), json.dumps({"stage": "trying"}))
    shutil.rmtree(fresh, ignore_errors=True)


def _at_home(venv: Path, made_at: Path) -> None:
    """Tell the programs of an environment that was moved where it is now. (Its Python knows by itself.)"""
    for program in venv.glob("bin/*"):
        if program.is_file() and not program.is_symlink() and os.fsencode(made_at) in (said := program.read_bytes()):
            program.write_bytes(said.replace(os.fsencode(made_at), os.fsencode(venv)))


def back(say: Say, start: bool) -> None:
    """Put the version before in its place again."""
    home, known = Path(HOME), json.loads((releases() / "before" / "swapped.json").read_text())
    _begin()
    if start:
        launchd.driver.end(plist())
    recover.put_back(home, known["names"], known["had"])
    said = recover.put_data_back(home, known["backup"], known["data"])
    recover.finish(home)
    say(f"Version {known['version']} is in its place again{said}")
    if start:
        launchd.driver.start(plist())
        wait_until_well()


def rollback(say: Say) -> None:
    """Put the version before the last upgrade in its place. Conflict where there is none, or the newer one has changed the data."""
    with _alone():
        if not (releases() / "before" / "orkosi.py").exists():
            raise Conflict("There is no version before this one")
        known = json.loads((releases() / "before" / "swapped.json").read_text())
        newest = re.search(r"PRAGMA user_version = (\d+)", (releases() / "before" / "schema.sql").read_text())
        if _schema() > int(newest[1] if newest else 0):
            raise Conflict("The newer version has changed the data, which the older one cannot read. What was done since the upgrade is lost if you "
                           f"go back: stop the server, python3 orkosi.py restore {known['backup']}, and then again: rollback")
        served = launchd_has_it()
        if running() and not served:
            raise Conflict("A server that launchd does not look after is running; stop it first")
        back(say, served)


def _schema() -> int:
    path = settings.data / "orkosi.db"
    if not path.exists():
        return 0
    con = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(con.pragma("user_version"))  # type: ignore[arg-type]
    finally:
        con.close()
