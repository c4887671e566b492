"""Standby: a second machine that has everything up to the last minute, and may take over; and the first one, which then serves no more.

Owns no table; of the data folder it owns `standby.json` (this is a copy of that one), `pulled.json` (that one makes copies of this) and
`superseded.json` (another one serves now). Surprise: who serves is settled by epochs (`backups/epochs.py`), and the old server may learn of
a newer one in three places: in its own folder, in the one that it was copied into, and at the remote that backups go to. Where it can look
at none of them, it does not learn of it; that is why `promote` wants to hear that it is off.
"""
import json
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from orkosi import Check, Conflict, Plugin, Problem, Unavailable, now, seconds, settings
from plugins import folders
from plugins.backups import epochs, offsite

plugin = Plugin("Standby", layer="views", needs=("storage", "backups", "supervisor", "agents"))

log = logging.getLogger("orkosi")
MARK, PULLED, SUPERSEDED = "standby.json", "pulled.json", "superseded.json"
LATE = 600.0  # seconds without a pull after which health says so
LOOK, REMOTE = 2.0, 60.0  # seconds from one look at the folders to the next, and at the remote
PATIENCE = 5.0  # seconds that the remote has, while a server starts


class Superseded(Conflict):
    """Another folder of this company serves now."""
    code = "superseded"
    exit_code = 5


def mark(folder: Path) -> dict[str, Any]:
    """What a folder is a copy of; {} where it is none."""
    return epochs.facts(folder, MARK)


def note(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """Keep facts about who serves in a data folder."""
    folders.write_whole(folder / name, json.dumps(facts))


def superseded_by(folder: Path) -> dict[str, Any]:
    """What serves in the place of this folder; {} where it may serve itself. The remote is not asked."""
    own = epochs.of(folder)
    copy = Path(epochs.facts(folder, PULLED).get("into") or "/nowhere")
    there = {} if mark(copy) else epochs.facts(copy, epochs.FILE)
    newer = [one for one in (epochs.facts(folder, SUPERSEDED), there) if isinstance(one.get("epoch"), int) and one["epoch"] > own]
    return max(newer, key=lambda one: one["epoch"], default={})


def supersede(folder: Path, epoch: int, by: str) -> bool:
    """Have a folder serve no more, unless it is in a later epoch than this one; whether it is so."""
    if epoch <= epochs.of(folder):
        return False
    note(folder, SUPERSEDED, {"epoch": epoch, "by": by, "at": now()})
    return True


@plugin.on("opening")
def may_open(event: str, folder: Path, *, exclusive: bool) -> None:
    """Refuse a copy, which the next pull would overwrite; and a server, where another one is the company's. Conflict, Superseded."""
    if copied := mark(folder):
        raise Conflict(f"{folder} is a standby of {copied.get('of')}, as it was at {copied.get('at') or 'no time: no pull was completed'}. "
                       "To have it take over: python3 orkosi.py standby promote")
    if exclusive and epochs.facts(folder, PULLED):  # who has no standby need not wait for a remote
        ask_remote(folder, PATIENCE)
    if exclusive and (newer := superseded_by(folder)):
        raise Superseded(_sentence(folder, newer))


def _sentence(folder: Path, newer: dict[str, Any]) -> str:
    return (f"{folder} serves no more: {newer.get('by', 'another one')} was promoted at {newer.get('at', 'some time')} "
            f"(epoch {newer['epoch']}, this one is in {epochs.of(folder)}). "
            "To serve from here all the same, once that one is off: python3 orkosi.py standby promote --anyway")


# ── while it serves ──


@plugin.service
def keep_looking(stop: threading.Event) -> None:
    """End the server where another one was promoted meanwhile; and tell the one that served before this one, until it has heard."""
    from . import taking
    asked = 0.0
    while not stop.wait(LOOK):
        with suppress(Problem, OSError):
            if time.monotonic() - asked >= REMOTE:
                asked = time.monotonic()
                ask_remote(settings.data, offsite.LOOK)
                taking.tell_again()
            if newer := superseded_by(settings.data):
                log.error(_sentence(settings.data, newer))
                os.kill(os.getpid(), signal.SIGTERM)
                return


def ask_remote(folder: Path, patience: float) -> None:
    """Have the folder superseded where the remote knows a later epoch; that is kept, for a start without a network."""
    if settings.backup_remote:
        try:
            epoch = epochs.of_remote(settings.backup_remote, patience)
            supersede(folder, epoch, f"what pushes to {offsite.public(settings.backup_remote)}")
        except Unavailable as problem:
            log.info("the remote does not say which epoch it knows: %s", problem.message)


@plugin.health("standby")
def health() -> Check:
    """Whether the standby still makes its copies, where there is one."""
    last = epochs.facts(settings.data, PULLED)
    if not last:
        return Check(True, "there is none")
    age = time.time() - seconds(last.get("at") or last["since"])
    said = f"{last.get('by')} made its last whole copy at {last.get('at') or 'no time yet'}"
    return Check(age < LATE, said if age < LATE else f"{said}; if it is gone for good: python3 orkosi.py standby forget")


from . import commands as commands  # noqa: E402  # the last line: it uses what is above
