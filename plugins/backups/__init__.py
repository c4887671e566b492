"""Backups: sealed copies of all that a company has, made while it works, proven by restoring them, and kept off the machine.

Owns no table: what there is, is what lies in `backups/`, read at each call. Beside each file stands what was found out about it
(`<name>.json`); a file without that is a backup all the same. Surprise: making, verifying and pushing are jobs of the server's own
queue. They survive a restart, are tried again, and one of a kind is under way at a time.
"""
import json
import logging
import re
import time
from pathlib import Path
from typing import Any, Literal

from orkosi import HOST_TENANT, Check, Conflict, NotFound, Plugin, Problem, Struct, acting, db, now, seconds, settings, stopping, system, writes
from plugins import folders, notifications, queue
from plugins.fields import wrong

from . import apart, making, restoring, sealed

plugin = Plugin("Backups", layer="domain", needs=("agents",))
plugin.setting("backup_hours", float, 24.0, "Hours from one backup to the next; 0: none is made by itself")
plugin.setting("backup_keep_days", int, 7, "For so many days, the newest scheduled backup of each is kept")
plugin.setting("backup_keep_weeks", int, 4, "For so many weeks, likewise")
plugin.setting("backup_keep_months", int, 12, "For so many months, likewise")
plugin.setting("backup_remote", str, "", "A git remote that backups are pushed to, sealed as they are", secret=True)
plugin.setting("backup_branch", str, "backups", "The branch there; it holds the kept backups alone, and is rewritten each time")

log = logging.getLogger("orkosi")
NAME = re.compile(r"orkosi-\d{8}-\d{6}(?:-\d+)?-(scheduled|manual)\.backup")
SNAPSHOT = re.compile(r"before-upgrade-\d+-\d{14}\.db")  # a plain copy of the database, made by an upgrade of its schema
DRILL, SNAPSHOTS = 7 * 86400, 3  # seconds from one drill to the next; how many snapshots are kept
RETRY = 3600.0  # seconds from an order of the server's own to the next
Kind = Literal["scheduled", "manual", "before_upgrade"]
Verification = Literal["ok", "failed", "pending"]
Offsite = Literal["pushed", "pending", "failed", "none"]


class Backup(Struct):
    """A backup, as it lies in the folder. `rows`: of all tables together, when it was made."""
    filename: str
    kind: Kind
    size_bytes: int
    created_at: str
    sha256: str | None
    schema: int | None
    rows: int | None
    includes: list[str]
    encrypted: bool
    verified_at: str | None
    verification: Verification
    offsite: Offsite

    @property
    def place(self) -> str:
        """By what backups are sorted: the time, and then the name."""
        return f"{self.created_at} {self.filename}"


class UnderWay(Struct):
    """A backup that is being made or verified, or waits for that."""
    job_id: str
    filename: str
    status: str


class Drill(Struct):
    """The last time that a backup was restored to see whether it can be."""
    at: str
    seconds: float
    ok: bool


class BackupStats(Struct):
    """The backups, all together."""
    count: int
    total_bytes: int
    last_backup_at: str | None
    next_backup_at: str | None
    last_verified_at: str | None
    last_drill: Drill | None
    recovery_key_confirmed_at: str | None


# ── what there is ──


def everything() -> list[Backup]:
    """Every backup in the folder, newest first."""
    try:
        names = [path.name for path in making.folder().iterdir()]
    except OSError:
        return []
    found = [seen for name in names if (NAME.fullmatch(name) or SNAPSHOT.fullmatch(name)) and (seen := _look(name))]
    return sorted(found, key=lambda one: one.place, reverse=True)


def find(filename: str) -> Backup:
    """One backup by its name. Invalid for what is no name of one, NotFound."""
    if not NAME.fullmatch(filename) and not SNAPSHOT.fullmatch(filename):
        raise wrong("filename", "That is no name of a backup; GET /api/backups lists them")
    found = _look(filename)
    if found is None:
        raise NotFound(f"There is no backup {filename}")
    return found


def _look(name: str) -> Backup | None:
    path = making.folder() / name
    try:
        state = path.lstat()
        if not folders.plain(state):
            return None
        if SNAPSHOT.fullmatch(name):
            return Backup(name, "before_upgrade", state.st_size, folders.modified(state), None, int(name.split("-")[2]), None, ["database"], False,
                          None, "pending", "none")
        with open(path, "rb") as file:
            said = sealed.read_header(file)
        known = noted(name, state.st_size)
        return Backup(name, said["kind"], state.st_size, said["created_at"], known.get("sha256"), said["schema"], said["rows"], said["includes"],
                      True, known.get("verified_at"), known.get("verification", "pending"), _offsite(known))
    except (OSError, Problem, KeyError, ValueError):
        return _unreadable(name)


def _unreadable(name: str) -> Backup | None:
    """A file with a backup's name that says nothing of itself: it is shown, and that it is no good."""
    try:
        state = (making.folder() / name).lstat()
    except OSError:
        return None
    return Backup(name, "manual", state.st_size, folders.modified(state), None, None, None, [], True, None, "failed", "none")


def _offsite(known: dict[str, Any]) -> Offsite:
    said: Offsite = known.get("offsite", "pending")
    return said if settings.backup_remote else "none"


def noted(name: str, size: int | None = None) -> dict[str, Any]:
    """What was found out about a backup of this size; {} where nothing was, or it is another file by now."""
    try:
        found = json.loads(folders.read_plain(making.folder() / f"{name}.json", 1 << 16))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and (size is None or found.get("size") == size) else {}


def note(name: str, **facts: Any) -> None:
    """Keep what was found out about a backup."""
    folders.write_whole(making.folder() / f"{name}.json", json.dumps(noted(name) | facts))


def stats() -> BackupStats:
    """How many there are, how much they weigh, and when the next one comes."""
    found = everything()
    own = counting(found)
    verified = [one.verified_at for one in found if one.verified_at]
    confirmed = db.value("SELECT confirmed_at FROM vault_masters ORDER BY created_at DESC LIMIT 1")
    return BackupStats(len(found), sum(one.size_bytes for one in found), own[0].created_at if own else None, _next_at(own),
                       max(verified, default=None), last_drill(), confirmed)


def counting(found: list[Backup]) -> list[Backup]:
    """Those that may be the last one: not such as cannot be restored, or only have a backup's name, nor of a time that is yet to come."""
    return [one for one in found if one.encrypted and one.verification != "failed" and one.created_at <= now()]


def _next_at(own: list[Backup]) -> str | None:
    if settings.backup_hours <= 0:
        return None
    last = own[0].created_at if own else db.value("SELECT created_at FROM tenants WHERE id = :id", id=HOST_TENANT)
    return now(seconds(last) + settings.backup_hours * 3600 - time.time())


def last_drill() -> Drill | None:
    """The last drill; None where there was none."""
    try:
        found = json.loads(folders.read_plain(making.folder() / "drill.json", 1 << 12))
        return Drill(found["at"], found["seconds"], found["ok"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def delete(filename: str) -> list[str]:
    """Take a backup away; what to know about that. Invalid, NotFound."""
    gone = find(filename)
    newest = next((one.filename for one in everything() if one.verification == "ok"), None)
    (making.folder() / filename).unlink(missing_ok=True)
    (making.folder() / f"{filename}.json").unlink(missing_ok=True)
    return [f"{filename} was the newest backup that is verified; make another: POST /api/backups/trigger"] if gone.filename == newest else []


# ── making and verifying, as jobs ──


class Order(Struct):
    """What a job is to make, or to verify."""
    filename: str
    kind: Kind = "manual"
    drill: bool = False


@writes
def trigger(kind: Kind = "manual") -> UnderWay:
    """Have a backup made; where one is being made, or waits to be, it is that one."""
    return _under_way("backups.make") or _ordered("backups.make", Order(fresh_name(kind), kind))


@writes
def verify(filename: str, drill: bool = False) -> UnderWay:
    """Have a backup verified, by restoring it into a folder that is thrown away. Conflict for a snapshot, which is none. Invalid, NotFound."""
    if not find(filename).encrypted:
        raise Conflict(f"{filename} is a plain copy of the database, made before an upgrade; it has nothing to be verified against")
    return _under_way("backups.verify", filename) or _ordered("backups.verify", Order(filename, drill=drill))


def _under_way(kind: str, filename: str | None = None) -> UnderWay | None:
    for state in queue.UNFINISHED:
        for id, payload in db.all(tuple, """SELECT id, payload FROM jobs WHERE tenant_id = :tenant AND queue = :own AND task_type = :kind
                                             AND state = :state LIMIT 100""", own=queue.OWN, kind=kind, state=state):
            name = json.loads(payload)["payload"]["filename"]
            if filename in (None, name):
                return UnderWay(f"job_{id}", name, state)
    return None


def _ordered(kind: str, order: Order) -> UnderWay:
    job = queue.later(kind, {"filename": order.filename, "kind": order.kind, "drill": order.drill}, attempts=3, timeout=900)
    return UnderWay(f"job_{job.id}", order.filename, job.state)


def fresh_name(kind: Kind) -> str:
    """A name for a backup that is made now."""
    stamp = now()[:19].replace("-", "").replace(":", "").replace("T", "-")
    names = [f"orkosi-{stamp}{suffix}-{kind}.backup" for suffix in ("", *(f"-{number}" for number in range(1, 100)))]
    return next(name for name in names if not (making.folder() / name).exists())


@plugin.job("backups.make")
def _make(order: Order) -> str:
    began = time.monotonic()
    try:
        apart.run("create", order.filename, "--kind", order.kind)
    except Problem as problem:
        if noted(order.filename).get("verification") != "failed":  # else it was made, but is no good, which was told already
            if not stopping.is_set():  # then it is made after the start
                notifications.notify("No backup was made", problem.message, type="error", source="backups", link="/api/backups/stats")
            raise
    log.info("backup %s: made and proven in %.1f s", order.filename, time.monotonic() - began)
    tidy()
    offsite.ask(order.filename)
    return order.filename


@plugin.job("backups.verify")
def _verify(order: Order) -> bool:
    began = time.monotonic()
    try:
        apart.run("verify", order.filename)
    except Problem:
        if noted(order.filename).get("verification") != "failed":
            raise
    well = noted(order.filename).get("verification") == "ok"
    if order.drill:
        facts = {"at": now(), "seconds": round(time.monotonic() - began, 1), "ok": well}
        folders.write_whole(making.folder() / "drill.json", json.dumps(facts))
    return well


def prove(filename: str) -> bool:
    """Restore a backup into a folder that is thrown away, and note whether that went well. NotFound, Sealed."""
    find(filename)
    path = making.folder() / filename
    try:
        with making.room(f".verifying-{filename}") as place:
            restoring.unpack(path, place, restoring.key_of(path))
            restoring.prove_vault(place)
    except (sealed.Damaged, OSError) as error:
        said = error.message if isinstance(error, Problem) else f"{error.strerror}: {error.filename}"
        if isinstance(error, OSError):
            raise
        note(filename, size=path.stat().st_size, verification="failed", verified_at=now(), reason=said)
        log.error("backup %s cannot be restored: %s", filename, said)
        notifications.notify(f"Backup {filename} cannot be restored", said, type="error", source="backups", link="/api/backups")
        return False
    note(filename, size=path.stat().st_size, verification="ok", verified_at=now(), reason=None)
    return True


# ── what is kept, and when the next one comes ──


def tidy() -> list[str]:
    """Take away the scheduled backups that no rule keeps, and old snapshots; never the newest verified one. Their names."""
    found = everything()
    newest = next((one.filename for one in found if one.verification == "ok"), None)
    scheduled = [one for one in found if one.kind == "scheduled" and one.encrypted]
    kept = {newest} | retained(scheduled)
    gone = [one.filename for one in scheduled if one.filename not in kept]
    gone += [one.filename for one in [one for one in found if one.kind == "before_upgrade"][SNAPSHOTS:]]
    for name in gone:
        (making.folder() / name).unlink(missing_ok=True)
        (making.folder() / f"{name}.json").unlink(missing_ok=True)
    return gone


def retained(scheduled: list[Backup]) -> set[str]:
    """The names of the scheduled backups, given newest first, that some rule keeps."""
    return {name for width, many in ((10, settings.backup_keep_days), (-1, settings.backup_keep_weeks), (7, settings.backup_keep_months))
            for name in _newest_of_each(scheduled, width, many)}


def _newest_of_each(backups: list[Backup], width: int, many: int) -> list[str]:
    """Of the last so many days (the first 10 characters of a time), months (7) or weeks (-1) that have any, the newest of each.

    One that cannot be restored stands for its period only where there is no other, and takes no place from a period that has one.
    """
    found: dict[str, Backup] = {}
    for one in backups:
        period = str(int(seconds(one.created_at) + 3 * 86400) // (7 * 86400)) if width < 0 else one.created_at[:width]  # weeks begin on Monday
        before = found.setdefault(period, one)
        if before.verification == "failed" and one.verification != "failed":
            found[period] = one
    return [one.filename for bad in (False, True)
            for one in [one for one in found.values() if (one.verification == "failed") is bad][:max(many, 0)]]


_tried = -RETRY  # when something was ordered last, by itself


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """In another data folder nothing was tried yet."""
    global _tried
    _tried = time.monotonic() - RETRY


@plugin.every("1m")
def come_round() -> None:
    """Have the next backup made when its time has come, and once a week see whether the newest can be restored.

    What fails is ordered again after an hour, not each minute: a vault that is sealed stays so until somebody comes.
    """
    global _tried
    if time.monotonic() - _tried < RETRY:
        return
    with acting(system()):
        own = counting(everything())
        due = _next_at(own)
        if due is not None and due <= now():
            trigger("scheduled")
            _tried = time.monotonic()
        drill = last_drill()
        if own and own[0].created_at <= now(-3600) and (drill is None or drill.at <= now(-DRILL)):
            verify(own[0].filename, drill=True)
            _tried = time.monotonic()


@plugin.health("backups")
def health() -> Check:
    """Whether there is a backup of late, and whether it can be restored."""
    with acting(system()):
        own = [one for one in everything() if one.encrypted]
        if settings.backup_hours <= 0 and not own:
            return Check(True, "none are made: backup_hours is 0")
        due = _next_at(counting(own))
        if due is not None and seconds(due) + settings.backup_hours * 3600 < time.time():
            return Check(False, f"the next backup was due at {due}")
        bad = next((one.filename for one in own[:1] if one.verification == "failed"), None)
        if bad:
            return Check(False, f"{bad}, the newest one, cannot be restored")
        drill = last_drill()
        return Check(drill is None or drill.ok, "" if drill is None or drill.ok else f"the drill of {drill.at} failed")


def at(filename: str) -> Path:
    """Where a backup lies. Invalid, NotFound."""
    return making.folder() / find(filename).filename


from . import commands as commands  # noqa: E402
from . import offsite  # noqa: E402  # the last lines: they use what is above
