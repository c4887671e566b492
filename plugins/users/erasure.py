"""Erasure: an account goes, and with it whatever names the person, here and in every plugin.

Who owns a table hears `user.erased` and cleans it, in the one transaction that removes the user; who has files or
log lines hears `user.gone` once that holds. What other tables keep is the user's number, which names nobody.
It is done by that number, and by addresses that are known to be the user's: anybody may register with an
address of somebody else, or choose a word as name, and must not thereby have the rows of others erased.
Surprise: `data/erasures.jsonl` is not part of a backup. It holds the number of everybody erased, and when
they came and went; it is applied whenever a data folder is opened, so that nobody comes back with an old copy
of the database. Somebody who registers anew, later, stays.
What follows the commit can fail, or be cut short by a kill, and nobody could ask for it again. So the
transaction leaves a note in `data/erasing/`, which goes when all is done; what it tells of is finished every
minute and at the next start.
"""
import json
import logging
import os
import re
import threading
from functools import partial
from pathlib import Path

import apsw
import msgspec

from orkosi import Denied, NotFound, Struct, across_tenants, current, db, emit, now, settings, writes
from plugins import storage, tenants
from plugins.folders import explained, write_whole
from plugins.server.lanes import guarded
from plugins.users import User, find, people, plugin

log = logging.getLogger("orkosi")
BLOT = "…"
_unfolded = threading.Event()
_finishing = threading.Lock()


class Gone(Struct):
    """Who is erased, for those who must find them; nobody keeps it once it is done. `addresses` are known to be theirs."""
    id: int
    tenant_id: int
    addresses: list[str]
    created: str
    at: str

    def pattern(self) -> re.Pattern[str] | None:
        """What finds their addresses in a text, as whole words; None where none is known to be theirs."""
        either = "|".join(map(re.escape, self.addresses))
        return re.compile(rf"(?<![\w.+%@-])(?:{either})(?![\w@-]|\.\w)", re.I) if either else None

    def blotted(self, text: str) -> str:
        """`text` with their addresses made unreadable."""
        pattern = self.pattern()
        return pattern.sub(BLOT, text) if pattern else text


def leave() -> int:
    """Erase one's own account. Denied for administrators; Conflict for who would leave others without an owner."""
    user = find(current().user or 0)
    if user.role == "admin":
        raise Denied("An administrator's account is erased by another administrator")
    _leave(user)
    return user.id


@writes
def _leave(user: User) -> None:
    emit("user.leaving", user)
    erase(user.id)


@writes
def dismiss(id: int) -> None:
    """Erase somebody of one's own tenant. Denied for oneself, NotFound."""
    if id == current().user:
        raise Denied("Nobody deletes their own account here; another administrator may")
    if not db.value("SELECT 1 FROM users WHERE id = :id AND tenant_id = :tenant", id=id):
        raise NotFound(f"There is no user {id}")
    erase(id)


@writes
@across_tenants
def erase(id: int) -> None:
    """Erase somebody, in every table, log and letter, and in copies that are put back. NotFound; Conflict for the last administrator."""
    user = find(id)
    if user.role == "admin":
        people.keep_an_administrator(id)
    _forget(user)


@across_tenants
def _forget(user: User) -> None:
    proven = db.value("SELECT email_proven_at FROM users WHERE id = :id", id=user.id) is not None
    gone = Gone(user.id, user.tenant_id, [user.email] if proven else [], user.created_at, now())
    emit("user.erased", gone)
    if proven:
        db.run("DELETE FROM invites WHERE email_key = :key", key=user.email.casefold())
    db.run("DELETE FROM users WHERE id = :id", id=user.id)  # sessions, links and invitations sent go with it
    if tenants.is_founder(user.tenant_id, user.id):
        people.hand_on(user.tenant_id)
    note = _begin(gone)
    db.after_commit(partial(guarded, partial(_finish, note)), slow=True)


def fold() -> None:
    """Empty the WAL, where what is deleted still stands; again in a minute where a reader is in the way."""
    _unfolded.set()
    try:
        storage.fold(apsw.SQLITE_CHECKPOINT_TRUNCATE, "main", "logs")
        _unfolded.clear()
    except apsw.BusyError:
        log.info("erased; the WAL is emptied once its readers are done")


# ── what follows the commit ──


def _begin(gone: Gone) -> Path:
    """Note what is to follow, as the last thing before the commit: what cannot be noted is not done at all."""
    folder: Path = settings.data / "erasing"
    note = folder / f"{gone.id}.json"
    with explained("The erasure cannot be noted"):
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(note, msgspec.json.encode(gone).decode())
        for path in (note, folder, settings.data):  # a power cut leaves it as the commit
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
    return note


def _finish(note: Path) -> None:
    """Do what follows an erasure that holds. Done again where it was cut short, it does what is left."""
    with _finishing:
        if note.exists():
            gone = msgspec.json.decode(note.read_bytes(), type=Gone)
            _record(gone)
            emit("user.gone", gone)
            fold()
            note.unlink(missing_ok=True)


def _begun() -> list[tuple[Path, Gone]]:
    found = []
    for path in sorted((settings.data / "erasing").glob("*.json")):
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Gone)))
        except (OSError, msgspec.MsgspecError):
            log.error("%s cannot be read; the erasure it tells of is not finished", path)
    return found


@plugin.every("1m")
@writes
@across_tenants
def finish() -> None:
    """Do what is left of erasures, and what a reader was in the way of."""
    for note, gone in _begun():
        if db.value("SELECT 1 FROM users WHERE id = :id AND created_at = :created", id=gone.id, created=gone.created):
            note.unlink()  # its commit failed, and who asked was told so
        else:
            db.after_commit(partial(guarded, partial(_finish, note)), slow=True)
    if _unfolded.is_set():
        db.after_commit(fold, slow=True)


# ── staying erased ──


def _record(gone: Gone) -> None:
    if any(_tells_of(one, gone.id, gone.created) for one in _records()):
        return
    line = json.dumps({"id": gone.id, "created": gone.created, "at": gone.at})
    handle = os.open(settings.data / "erasures.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(handle)


@plugin.on("opened")
@across_tenants
def replay_erasures(event: str = "", folder: object = None) -> None:
    """Erase again whoever came back with an older copy of the database, and finish what a kill cut short."""
    begun = [gone for _, gone in _begun()]
    records = _records() + [{"id": gone.id, "created": gone.created, "at": gone.at} for gone in begun]
    for user in db.all(User, "SELECT * FROM users") if records else ():
        if any(_tells_of(one, user.id, user.created_at) for one in records):
            log.warning("user %s was erased before; erased again", user.id)
            _forget(user)
    finish()


def _tells_of(record: dict, id: int, created: str) -> bool:
    return record["id"] == id and record.get("created", created) == created < record["at"]


def _records() -> list[dict]:
    try:
        lines = (settings.data / "erasures.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            log.error("erasures.jsonl has a line that cannot be read; the others hold")
    return found


