"""Doctor: what the owner of a machine would look at, in one command, each finding with its cure.

Owns no table. It looks from outside of the server, beside it or without it, and changes nothing unless it is asked to mend what is safe.
Surprise: every health check of the plugins is asked, too, so that a plugin which can be unwell needs no line here.
"""
import os
import platform
import re
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from orkosi import APPLICATION_ID, HOME, Paging, Plugin, Problem, Struct, across_tenants, acting, db, now, plugins, seconds, settings, system
from plugins import agents, backups, storage, supervisor
from plugins.backups import restoring
from plugins.service import bundle, protected
from plugins.vault import master

plugin = Plugin("Doctor", layer="views", needs=("backups", "agents", "service", "vault", "supervisor"))
State = Literal["ok", "warn", "fail"]
ROOM = 1 << 30  # bytes of free disk below which it warns
LATE = 3.0  # intervals after which a missing backup is a failure


class Finding(Struct):
    """One thing that was looked at. `cure`: what to do about it."""
    name: str
    state: State
    detail: str
    cure: str = ""


Check = Callable[[], Iterator[Finding]]
_checks: list[tuple[str, Check]] = []


def check(name: str) -> Callable[[Check], Check]:
    """Have something looked at, in the order in which they stand here."""
    def keep(fn: Check) -> Check:
        _checks.append((name, fn))
        return fn
    return keep


def examine(full: bool = False, fix: bool = False) -> list[Finding]:
    """Look at everything. `full`: every page of the databases, too; `fix`: mend what is safe first."""
    found = mend() if fix else []
    for name, look in _checks:
        if look not in _NEEDS_DATABASE:  # first: opening the folder mends what is loose about it
            found += _asked(name, look)
    if _opens(found):
        for name, look in _checks:
            if look in _NEEDS_DATABASE:
                found += _asked(name, look)
        storage.close_data()
    if full:
        found += files.pages()
    return found


def _asked(name: str, look: Check) -> list[Finding]:
    try:
        return [msgspec.structs.replace(one, name=name) for one in look()]
    except (Problem, apsw.Error) as error:
        return [files.said(name, error)]
    except OSError as error:
        return [Finding(name, "fail", f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))]


def _opens(found: list[Finding]) -> bool:
    """Whether the database can be looked into; where not, `found` says why. One that the next start would upgrade is left alone."""
    if any(one.name == "database" and one.state != "ok" for one in found):
        return False
    try:
        storage.open_data()
        return True
    except (Problem, apsw.Error) as error:
        found += files.refused(error)
        return False


def _present() -> int:
    """The schema that this version has."""
    found = re.search(r"PRAGMA user_version = (\d+)", Path(HOME, "schema.sql").read_text())
    return int(found[1]) if found else 0


def ok(detail: str) -> Finding:
    return Finding("", "ok", detail)


def warn(detail: str, cure: str) -> Finding:
    return Finding("", "warn", detail, cure)


def fail(detail: str, cure: str) -> Finding:
    return Finding("", "fail", detail, cure)


# ── the machine ──


@check("python")
def python() -> Iterator[Finding]:
    """The interpreter, and whether it is made for this processor."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.platform == "darwin" and platform.machine() == "x86_64" and "ARM64" in platform.version():
        yield fail(f"{version} is made for Intel, and runs translated: there are no packages for that",
                   "install a Python for Apple silicon from python.org")
    else:
        yield ok(f"{version} ({platform.machine()}), in {sys.prefix}")
    link = Path(HOME, ".venv/bin/python")
    if link.is_symlink() and not link.exists():
        yield fail(".venv points to a Python that is gone", "start Orkosi once: it makes .venv anew")


@check("wheels")
def wheels() -> Iterator[Finding]:
    """Whether `.venv` could be made anew here without a network."""
    place = Path(HOME, "wheels")
    if not place.is_dir():
        yield ok("there are none: packages come from the network, should .venv have to be made anew")
    elif missing := bundle.missing_wheels(place):
        yield warn(f"wheels/ has none for this Python of {', '.join(missing)}", "python3 orkosi.py wheels, or take the Python that they are for")
    else:
        yield ok("wheels/ has every package")


@check("folder")
def folder() -> Iterator[Finding]:
    """The data folder: whose it is, who reads it, and where it lies."""
    data = settings.data
    if not data.is_dir():
        yield fail(f"there is no data folder at {data}", "start the server once, or name another with --data")
        return
    state = data.stat()
    if state.st_uid != os.geteuid():
        yield fail(f"{data} belongs to another user", f"sudo chown -R {os.geteuid()} '{data}'")
    elif state.st_mode & 0o077:
        yield warn(f"{data} can be read by others", f"chmod 700 '{data}', or doctor --fix")
    elif not os.access(data, os.W_OK):
        yield fail(f"{data} cannot be written", f"chmod u+w '{data}'")
    else:
        yield ok(str(data))
    if sys.platform == "darwin" and (place := protected(data)):
        yield fail(f"{data} is in {place}: macOS keeps what launchd starts out of there", "move the whole folder, for instance to ~/orkosi")


@check("disk")
def disk() -> Iterator[Finding]:
    """How much room there is."""
    place = settings.data if settings.data.exists() else settings.data.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.1f} GB are free"
    least = settings.min_free_mb << 20
    yield fail(said, "make room: writes are refused below min_free_mb") if free < least else warn(said, "make room") if free < ROOM else ok(said)


@check("clock")
@across_tenants
def clock() -> Iterator[Finding]:
    """Whether the time can be right."""
    newest = db.value("""SELECT max(made.at) FROM (SELECT max(created_at) AS at FROM users
                                                   UNION ALL SELECT max(created_at) AS at FROM sessions) AS made""")
    if newest and seconds(newest) > time.time() + 60:
        yield fail(f"it is {now()} here, but something was made at {newest}", "set the clock: System Settings, General, Date & Time, automatically")
    elif time.time() < 1_760_000_000:
        yield fail(f"it is {now()} here, which cannot be", "set the clock")
    else:
        yield ok(now())


# ── the data ──


@check("database")
def database() -> Iterator[Finding]:
    """Whether the file is one of ours, and of this version."""
    path = settings.data / "orkosi.db"
    if not path.exists():
        yield warn("there is none yet", "start the server once")
        return
    if kept := list(storage.unwritable()):
        for one, cure in kept:
            yield fail(f"{one} cannot be written", cure)
        return
    try:
        con = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            mine, version = con.pragma("application_id"), con.pragma("user_version")
        finally:
            con.close()
    except apsw.Error as error:
        yield fail(f"{path} does not open: {error}", files.RESTORE)
        return
    if mine != APPLICATION_ID:
        yield fail(f"{path} is none of Orkosi's", "put the right file there, or restore a backup")
    elif version != _present():
        older = int(str(version)) < _present()
        yield warn(f"its schema is {version}, and this version has {_present()}",
                   "the next start upgrades it, after a copy" if older else "start the newer version that wrote it")
    else:
        yield ok(f"schema {version}, {path.stat().st_size / 1e6:.1f} MB")


@check("secrets")
def secrets_of_others() -> Iterator[Finding]:
    """Whether anybody else reads a key."""
    loose = [path for path in [master.path(), *(settings.data / "keys").glob("*")]
             if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        yield fail(f"{path} can be read by others", f"chmod 600 '{path}', or doctor --fix")
    if settings.data in master.path().parents:
        yield fail("the master key lies in the data folder, and would travel with it", "set master_key_file to a place elsewhere")
    if not loose:
        yield ok("nobody else reads a key")


@check("health")
def health() -> Iterator[Finding]:
    """What every plugin says of itself. The points of the company's health are the server's to look at: its supervisor runs the agents."""
    with acting(system()):
        for one in plugins.values():
            for name, look in one.checks.items():
                if "." in name:
                    continue
                found = look()
                said = f"{name}: {found.detail}" if found.detail else name
                if not found.ok:
                    yield fail(said, "see what it says")
                elif "not confirmed" in found.detail:
                    yield warn(said, "write it down, keep it off this machine, then: python3 orkosi.py vault confirm")
                else:
                    yield ok(said)


# ── the server, and what it looks after ──


@check("server")
def server() -> Iterator[Finding]:
    """Whether it runs, and whether it could."""
    running = _reached()
    if running:
        yield ok(f"it runs at {running}")
        return
    yield warn("it does not run", "python3 orkosi.py serve, or as a service: python3 orkosi.py install")
    with socket.socket() as one:
        one.settimeout(1)
        if one.connect_ex((settings.host if settings.host not in ("", "0.0.0.0", "::") else "127.0.0.1", settings.port)) == 0:
            yield fail(f"another program listens on port {settings.port}", "set another `port`, or end that program")


def _reached() -> str:
    import urllib.error
    import urllib.request
    try:
        url = (settings.data / "server.url").read_text().strip()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/api/health", timeout=3):
            return url
    except (OSError, ValueError):
        return ""


@check("agents")
def staff() -> Iterator[Finding]:
    """Whether launchd has what the rows say, and every agent what it needs."""
    with acting(system()):
        seen = [one for one in agents.state.page(Paging(limit=200), None).items if one.local]
        for one in seen:
            if not agents.key_file(one.name).exists():
                yield fail(f"{one.name} has no key file", f"python3 orkosi.py agent rekey {one.name}")
            plist = agents.plist_of(one.name)
            if one.wanted != "stopped" and not plist.exists():
                yield fail(f"{one.name} has no plist", "start the server again: it writes it anew")
            elif one.wanted != "stopped" and supervisor.driver() is supervisor.launchd.driver and not supervisor.status(plist).loaded:
                yield fail(f"{one.name} should run, but launchd does not list it", f"python3 orkosi.py agent restart {one.name}")
            elif program := agents.state.lacking(one):
                yield warn(program[0], "see what it says")
        yield ok(f"{len(seen)} of this machine")


@check("backups")
def copies() -> Iterator[Finding]:
    """How old the newest backup is, whether it is good, and whether one is off this machine."""
    with acting(system()):
        found = [one for one in backups.everything() if one.encrypted]
        if not found:
            yield warn("there is none yet", "python3 orkosi.py backup create")
            return
        good = backups.counting(found)
        if found[0].verification == "failed":
            yield fail("the newest cannot be restored", "make another: python3 orkosi.py backup create")
        if not good:
            yield fail("there is none that can be restored", "make another: python3 orkosi.py backup create")
            return
        age = (time.time() - seconds(good[0].created_at)) / 3600
        said = f"the newest{' that is good' if good[0] is not found[0] else ''} is {age:.0f} h old, {good[0].verification}"
        if settings.backup_hours and age > LATE * settings.backup_hours:
            yield fail(said, "the server makes them while it runs; or: python3 orkosi.py backup create")
        else:
            yield ok(said)
        if settings.backup_remote:
            remote = backups.offsite.status()
            yield ok(f"{remote.remote} has {remote.latest.filename}") if remote.in_sync and remote.latest else fail(
                f"{remote.remote}: {remote.last_error or f'{remote.behind} behind'}", "python3 orkosi.py backup push")
        else:
            yield warn("none is off this machine", "set backup_remote to a git remote")


@check("mail")
def mail() -> Iterator[Finding]:
    """Whether letters go anywhere."""
    yield ok("goes through the mail server") if settings.smtp_url else warn("is written to data/outbox, and goes nowhere", "set smtp_url")


_NEEDS_DATABASE = (clock, health, staff, copies)


# ── what is safe to mend ──


def mend() -> list[Finding]:
    """Take away others' rights to read, give the owner back the right to write, and remove what interrupted work left; what was done."""
    done = []
    if settings.data.is_dir() and settings.data.stat().st_uid == os.geteuid() and settings.data.stat().st_mode & 0o077:
        settings.data.chmod(0o700)
        done.append(Finding("folder", "ok", f"mended: nobody else reads {settings.data} any more"))
    for path in [master.path(), *(settings.data / "keys").glob("*")]:
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
            done.append(Finding("secrets", "ok", f"mended: nobody else reads {path} any more"))
    for path, cure in storage.unwritable():
        if cure.startswith("chmod"):
            path.chmod(0o600)
            done.append(Finding("database", "ok", f"mended: {path} can be written again"))
    data = Path(os.path.realpath(settings.data))  # as restoring takes it
    path = data.with_name(f"{data.name}.restoring")
    if path.exists():
        kept = restoring.heal(data)
        done.append(Finding("folder", "ok", f"mended: {path}, which a restore left unfinished, is {f'kept as {kept}' if kept else 'gone'}"))
    return done


from . import commands as commands  # noqa: E402  # last: they use what is above
from . import files  # noqa: E402
