"""Taking over: a standby becomes the one that serves, and the one that did hears of it, as far as it can be reached.

Surprise: the order. The copy is proven first; then the old one is told, and ends; then, where it answers, a last pull brings what it had
until then; only then does this folder stop being a copy. Whatever dies in between, never do two serve, and `promote` can be said again.
"""
import socket
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from orkosi import Conflict, NotFound, Problem, Unavailable, settings
from plugins import storage
from plugins.backups import epochs, offsite, restoring
from plugins.vault import master

from . import MARK, SUPERSEDED, log, mark, note, pulling, superseded_by
from .source import Source

TELL = "to_tell.json"  # whom the one that was promoted has yet to tell
ENDS = 40.0  # seconds that a server has to end, once it was told
Told = Callable[[str], None]


def promote(recovery: Callable[[str], bytes | None], anyway: bool, say: Told) -> int:
    """Have this folder serve from now on; the epoch that begins. Conflict where it needs no promotion, Unavailable where nobody could be told."""
    data: Path = settings.data
    copied = mark(data)
    if not copied and not superseded_by(data):
        raise NotFound(f"{data} is no standby, and nothing was promoted in its place; it may serve as it is")
    if not copied and not anyway:
        raise Conflict("Another one was promoted, and would not hear of this one; once it is off for good: promote --anyway")
    with storage.held():
        restoring.prove_whole(data)
        key = recovery(_vault_of(data))
        restoring.prove_vault(data, key)
        source = Source(copied["of"], copied.get("ssh", "ssh")) if copied.get("of") else None
        epoch = 1 + max(epochs.of(data), epochs.facts(data, SUPERSEDED).get("epoch", 1), _known_to_the_remote(say))
        told, at_remote = _tell(source, epoch, say), _tell_remote(epoch, say)
        if not (told or at_remote or anyway):
            raise Unavailable("Neither the old one nor a remote could be told, and two must never serve at once. "
                              "Once the old one is off for good: promote --anyway")
    if told and source:
        _pull_a_last_time(source, say)
    with storage.held():
        if key is not None:
            master.keep(key)
        if source and not told:
            note(data, TELL, {"of": source.name, "ssh": source.ssh, "epoch": epoch})
        epochs.keep(data, epoch)
        (data / SUPERSEDED).unlink(missing_ok=True)
        (data / MARK).unlink(missing_ok=True)  # last: from here on it may serve
    return epoch


def _vault_of(data: Path) -> str:
    """Which master key the vault in a copy needs; "" where it has none."""
    con = apsw.Connection(str(data / "orkosi.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        row = con.execute("SELECT kek_id FROM vault_keys ORDER BY id DESC LIMIT 1").fetchone()
    finally:
        con.close()
    return str(row[0]) if row else ""


def _tell(source: Source | None, epoch: int, say: Told) -> bool:
    if source is None:
        return False
    try:
        source.ask("supersede", "--epoch", str(epoch), "--by", f"{socket.gethostname()}:{settings.data}", patience=ENDS + 20)
    except Problem as problem:
        say(f"{source.name} could not be told: {problem.message}")
        return False
    say(f"{source.name} serves no more")
    return True


def _known_to_the_remote(say: Told) -> int:
    if not settings.backup_remote:
        return 1
    try:
        return epochs.of_remote(settings.backup_remote)
    except Unavailable as problem:
        say(f"{offsite.public(settings.backup_remote)} does not say which epoch it knows: {problem.message}")
        return 1


def _tell_remote(epoch: int, say: Told) -> bool:
    if not settings.backup_remote:
        return False
    try:
        epochs.raise_at(settings.backup_remote, epoch)
    except Unavailable as problem:
        say(f"{offsite.public(settings.backup_remote)} could not be told: {problem.message}")
        return False
    say(f"{offsite.public(settings.backup_remote)} knows of epoch {epoch}")
    return True


def _pull_a_last_time(source: Source, say: Told) -> None:
    try:
        pulling.pull(source)
        restoring.prove_whole(settings.data)
        say("It was copied a last time, after its end: nothing of it is lost")
    except Problem as problem:
        say(f"A last copy was not made, so that what came after {mark(settings.data).get('at')} is lost: {problem.message}")


# ── afterwards ──


def end_here(epoch: int, by: str, supersede: Callable[[Path, int, str], bool]) -> None:
    """At the old one: serve no more, and wait for its server to end. Conflict where it is in a later epoch, or its server does not end."""
    if not supersede(settings.data, epoch, by):
        raise Conflict(f"{settings.data} is in epoch {epochs.of(settings.data)} already, and not superseded by {epoch}")
    end = time.monotonic() + ENDS
    while time.monotonic() < end:
        try:
            with storage.held():
                return
        except storage.AlreadyRunning:
            time.sleep(0.2)
    raise Conflict(f"The server of {settings.data} did not end within {ENDS:.0f} s")


def tell_again() -> None:
    """Tell the old one, where it could not be told at the promotion; once it has heard, there is no more to do."""
    waiting = epochs.facts(settings.data, TELL)
    if waiting and _tell(Source(waiting["of"], waiting.get("ssh", "ssh")), waiting["epoch"], log.info):
        (settings.data / TELL).unlink(missing_ok=True)
