"""Stopping, starting and their kin: the row first, in one write; then files and processes, outside of it.

The row is the truth. A crash between the two is mended at the next start of the server, when `settle`
makes the supervisor agree with the rows.
"""
import contextlib
import os
import threading
from pathlib import Path

from orkosi import Conflict, Problem, Unavailable, settings
from plugins import queue, supervisor
from plugins.supervisor import processes

from . import Agent, AgentPatch, bootstrap, change, everyone, find, log, plugin, remove, want
from .state import folder_of, label_of, write_file

GRACE = 3.0  # seconds a leftover brain has to end


def stop(name: str, note: str | None = None) -> Agent:
    """Stop an agent: nothing of it runs when this returns, and its job waits again at no cost of an attempt."""
    agent = want(name, "stopped", note, "agent.stopped")
    if agent.local:
        _put_flag(name)
        write_file(name, status="stopped", note=note)
        supervisor.unload(_plist(agent))
        end_brain(name)
    queue.release_active(agent.queue)
    log.info("agent %s is stopped", name)
    return agent


def start(name: str, note: str | None = None) -> Agent:
    """Let an agent run, whether it was stopped or paused. Unavailable where the supervisor does not take it."""
    agent = want(name, "running", note, "agent.started")
    if agent.local:
        drop_flag(name)
        write_file(name, status="idle", note=note)
        _load(agent)
    log.info("agent %s is started", name)
    return agent


def restart(name: str, note: str | None = None) -> Agent:
    """End what runs of an agent, and start it anew; its job waits again at no cost of an attempt."""
    agent = want(name, "running", note, "agent.restarted")
    if agent.local:
        drop_flag(name)
        write_file(name, status="idle", note=note)
        if supervisor.status(_plist(agent)).loaded:
            supervisor.kickstart(_plist(agent))
        else:
            _load(agent)
    log.info("agent %s is restarted", name)
    return agent


def pause(name: str, note: str | None = None) -> Agent:
    """Let an agent finish what it has, and take no more. Conflict where it is stopped."""
    return _turn(name, "paused", note)


def resume(name: str, note: str | None = None) -> Agent:
    """Let a paused agent take jobs again. Conflict where it is stopped."""
    return _turn(name, "running", note)


def _turn(name: str, wanted: str, note: str | None) -> Agent:
    if find(name).wanted == "stopped":
        raise Conflict(f"Agent {name} is stopped; start it first")
    if wanted == "paused":
        agent = want(name, "paused", note, "agent.paused")
    else:
        agent = want(name, "running", note, "agent.resumed")
    if agent.local:
        write_file(name, status="paused" if wanted == "paused" else "idle", note=note)
    return agent


def retune(name: str, patch: AgentPatch) -> Agent:
    """Change an agent's fields, and its files with them. NotFound."""
    agent = change(name, patch)
    if agent.local:
        bootstrap.lay(agent)
        if agent.wanted != "stopped":
            _load(agent)
    return agent


def delete(name: str) -> Agent:
    """Take an agent away. Its folder with the workspace stays on the disk, and its tasks stay. NotFound."""
    agent = find(name)
    if agent.local:
        supervisor.unload(_plist(agent))
        end_brain(name)
    queue.release_active(agent.queue)
    remove(name)
    if agent.local:
        for path in (_plist(agent), bootstrap.key_file(name), folder_of(name) / "state.json"):
            path.unlink(missing_ok=True)
        drop_flag(name)
    log.info("agent %s is deleted; its folder %s stays", name, folder_of(name))
    return agent


def _load(agent: Agent) -> None:
    supervisor.load(_plist(agent))
    if not supervisor.status(_plist(agent)).loaded:
        raise Unavailable(f"The supervisor does not list {agent.name}")


def _plist(agent: Agent) -> Path:
    return supervisor.plist_of(label_of(agent.name))


def end_brain(name: str) -> None:
    """End the brain that a runner which was killed left behind, with its whole process group."""
    file = folder_of(name) / "brain.pid"
    if left := processes.remembered(file):
        processes.end_group(left.pid, GRACE)
    file.unlink(missing_ok=True)


# ── the stop flag ──
# For the run script alone, so that it can stop without asking anybody; the row is the truth.


def _put_flag(name: str) -> None:
    try:
        os.close(os.open(bootstrap.stop_flag(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except OSError as error:  # there already, perhaps somebody else's: the row still says it
        log.debug("stop flag of %s: %s", name, error)


def drop_flag(name: str) -> None:
    """Remove an agent's stop flag, where it is ours to remove."""
    with contextlib.suppress(OSError):
        bootstrap.stop_flag(name).unlink(missing_ok=True)


# ── start and end of the server ──


@plugin.service
def settle(stop: threading.Event) -> None:
    """Make files and processes agree with the rows; at the end, give back the jobs of the agents that ended with the server."""
    try:
        _drop_strangers()
    except (Problem, OSError) as error:
        log.warning("what another place of this folder left: %s", error)
    for agent in everyone():
        if agent.local:
            try:
                _settle(agent)
            except (Problem, OSError) as error:
                log.error("agent %s does not run: %s", agent.name, error)
    stop.wait()
    if supervisor.driver() is supervisor.embedded.driver:
        _give_back()


def _settle(agent: Agent) -> None:
    if not bootstrap.stands_here(agent):
        log.info("agent %s: its files are written anew for %s", agent.name, settings.data)
        bootstrap.lay(agent)
        supervisor.unload(_plist(agent))  # what launchd may hold is the old one
    if agent.wanted == "stopped":
        _put_flag(agent.name)
        supervisor.unload(_plist(agent))
    else:
        drop_flag(agent.name)
        _load(agent)


def _drop_strangers() -> None:
    """Remove agents' plists that another place of this folder left."""
    ours = f"com.orkosi.{supervisor.folder_hash()}."
    for path in (settings.data / "jobs").glob("com.orkosi.*.agent.*"):
        if not path.name.startswith(ours):
            if path.suffix == ".plist" and not _lives_elsewhere(path):
                supervisor.unload(path)
            path.unlink(missing_ok=True)


def _lives_elsewhere(plist: Path) -> bool:
    """Whether this folder was copied, not moved: then the other one's agents are not ours to end."""
    return Path(supervisor.read(plist).get("WorkingDirectory", "/")).exists()


def _give_back() -> None:
    """The supervisor ends its children now, and they cannot reach a server that is going: release for them."""
    ended = [agent for agent in everyone() if agent.local]
    done = threading.Event()
    for _ in range(80):
        if not any(supervisor.status(_plist(agent)).pid for agent in ended):
            break
        done.wait(0.1)
    for agent in ended:
        end_brain(agent.name)
        queue.release_active(agent.queue)
