"""Start and end of the server: files and processes are made to agree with the rows.

The row is the truth. Verbs write it first, in one write, then files and processes outside of it; what a crash
left between the two is mended here.
"""
import threading
from pathlib import Path

from orkosi import Problem, settings
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
