"""Start and end of the server: files and processes are made to agree with the rows.

The row is the truth. Verbs write it first, in one write, then files and processes outside of it; what a crash
left between the two is mended here.
"""
import os
import re
import threading
from pathlib import Path

from orkosi import Problem, db, settings, stopping
from plugins import folders, queue, supervisor

from . import bootstrap
from .loading import end_brain, load
from .paths import drop_flag, finished, key_file, plist_of, put_flag
from .rows import Agent, everyone, log, plugin, seek
from .turns import turn_of


@plugin.service
def settle(stop: threading.Event) -> None:
    """Make files and processes agree with the rows; at the end, give back the jobs of the agents that ended with the server."""
    try:
        _drop_strangers()
    except (Problem, OSError) as error:
        log.warning("what another place of this folder left: %s", error)
    for name in [one.name for one in everyone()]:
        with turn_of(name):
            if (agent := seek(name)) is None or not agent.local:
                continue
            try:
                _settle(agent)
            except (Problem, OSError) as error:
                log.error("agent %s does not run: %s", agent.name, error)
    stop.wait()
    if supervisor.driver() is supervisor.embedded.driver:
        _give_back()


def _settle(agent: Agent) -> None:
    if not bootstrap.stands_here(agent):
        log.info("agent %s: its files are written anew, as they must be in %s", agent.name, settings.data)
        before = _read(plist_of(agent.name))
        bootstrap.lay(agent)
        if _read(plist_of(agent.name)) != before:
            supervisor.unload(plist_of(agent.name))  # what launchd may hold is the old one
    if not key_file(agent.name).exists():
        log.warning("agent %s: its key file is gone, so it gets a new key, and the old one is revoked", agent.name)
        bootstrap.rekey(agent)
    if agent.wanted == "stopped":
        put_flag(agent.name)
        supervisor.unload(plist_of(agent.name))
    else:
        drop_flag(agent.name)
        load(agent, gently=True)


# ── runners that were killed ──


@plugin.every("5s")
def take_back() -> None:
    """Take back the jobs of runners that are dead: the attempt counts, and nobody waits for the end of the lease."""
    held = db.all(tuple, """SELECT queue, worker_id FROM jobs WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''
                               AND queue LIKE 'agent:%'""")
    for name in {place.removeprefix("agent:") for place, worker in held if _dead(place, worker)}:
        with turn_of(name):  # whoever stops it just now gives its job back at no cost
            if not stopping.is_set() and (agent := seek(name)) and agent.local:
                _take_back(agent)


def _take_back(agent: Agent) -> None:
    held = dict(db.all(tuple, """SELECT id, worker_id FROM jobs WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''
                                    AND queue = :queue""", queue=agent.queue))
    for worker in {worker for worker in held.values() if _dead(agent.queue, worker)}:
        others = {id for id, its in held.items() if its != worker}  # also of one whose number begins so
        queue.lose_of(worker, f"Its runner {worker} died", but=others | finished(agent.name))


def _dead(place: str, worker: str | None) -> bool:
    """Whether a worker of an agent's queue is a runner, which is called after its process, and that is no more."""
    found = re.fullmatch(r"(.*):(\d{1,9})", worker or "", re.ASCII)
    if found is None or f"agent:{found[1]}" != place:
        return False
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _read(plist: Path) -> bytes:
    try:
        return folders.read_plain(plist, 1 << 20)
    except OSError:
        return b""


def _drop_strangers() -> None:
    """Remove agents' plists that another place of this folder left."""
    ours = f"com.orkosi.{supervisor.folder_hash()}."
    for path in (settings.data / "jobs").glob("com.orkosi.*.agent.*"):
        if not path.name.startswith(ours):
            if path.suffix == ".plist" and not supervisor.lives_elsewhere(path):
                supervisor.unload(path)
            path.unlink(missing_ok=True)


def _give_back() -> None:
    """The supervisor ends its children now, and they cannot reach a server that is going: release for them, but for what they had finished."""
    ended = [agent for agent in everyone() if agent.local]
    done = threading.Event()
    for _ in range(80):
        if not any(supervisor.status(plist_of(agent.name)).pid for agent in ended):
            break
        done.wait(0.1)
    for agent in ended:
        end_brain(agent.name)
        queue.release_active(agent.queue, but=finished(agent.name))
