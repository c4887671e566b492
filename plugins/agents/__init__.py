"""Agents: the staff. Who they are, what the operator wants of them, and what they are seen to do.

Owns agents, agent_runs and agent_templates. An agent of the host is a folder, a run script and a job of the
supervisor; an agent of another tenant is a row, driven from outside by its key.

Surprise: there is no status column. `wanted` is what the operator asked for and `reported` what a
process-less agent last said of itself; the rest is read off the process, the lease and the age of
the last sign of life (`state.py`). The verbs below write the row first, in one write; then files and processes,
outside of it.

Files, each using those before it: rows, turns, paths, loading, bootstrap, settling, state, idle, runs, templates.
"""
from contextlib import suppress

from orkosi import HOST_TENANT, Conflict, Problem
from plugins import logs, queue, supervisor

from . import bootstrap, idle, runs, settling, state, templates
from .loading import end_brain, load, may_load, unload
from .paths import drop_flag, finished, folder_of, key_file, plist_of, put_flag, write_file
from .rows import (
    NAME,
    Agent,
    AgentName,
    AgentPatch,
    Command,
    Interval,
    NewAgent,
    Note,
    Reported,
    Short,
    Status,
    change,
    find,
    find_id,
    log,
    plugin,
    register,
    remove,
    report,
    seek,
    want,
)
from .turns import in_turn

__all__ = ["NAME", "Agent", "AgentName", "AgentPatch", "Command", "Interval", "NewAgent", "Note", "Reported", "Short", "Status",
           "bootstrap", "change", "find", "find_id", "folder_of", "idle", "plugin", "register", "report", "runs", "seek", "settling",
           "state", "templates"]


def create(new: NewAgent) -> tuple[Agent, str | None]:
    """Make an agent in ten steps; called again, it takes those that failed before. Answers its key where it is driven from outside. Conflict."""
    agent, key = bootstrap.make(new)
    state.look_for_program(agent)
    return agent, key


@in_turn
def stop(name: str, note: str | None = None) -> Agent:
    """Stop an agent: nothing of it runs when this returns, and its job waits again at no cost of an attempt - unless its result lies here already."""
    agent = want(name, "stopped", note, "agent.stopped")
    if agent.local:
        put_flag(name)
        write_file(name, status="stopped", note=note)
        unload(agent)
    queue.release_active(agent.queue, but=finished(agent.name))
    _tell(agent, "stopped", note)
    return agent


@in_turn
def start(name: str, note: str | None = None) -> Agent:
    """Let an agent run, whether it was stopped or paused. Unavailable where the supervisor does not take it; then all is as it was."""
    before = find(name)
    may_load(before)
    agent = want(name, "running", note, "agent.started")
    if agent.local:
        try:
            bootstrap.lay_missing(agent)
            drop_flag(name)
            write_file(name, status="idle", note=note)
            load(agent)
        except (Problem, OSError):
            want(name, before.wanted, before.note, "agent.start_failed")
            write_file(name, status=before.wanted if before.wanted != "running" else "idle", note=before.note)
            if before.wanted == "stopped":
                put_flag(name)
            raise
    _tell(agent, "started", note)
    return agent


@in_turn
def restart(name: str, note: str | None = None) -> Agent:
    """End what runs of an agent, and start it anew, with its plist as it is on the disk; its job waits again at no cost of an attempt.

    Conflict where its launch agent is disabled.
    """
    may_load(find(name))
    agent = want(name, "running", note, "agent.restarted")
    if agent.local:
        bootstrap.lay_missing(agent)
        drop_flag(name)
        write_file(name, status="idle", note=note)
        supervisor.restart(plist_of(name), lambda: _put_down(agent))
    _tell(agent, "restarted", note)
    return agent


def _put_down(agent: Agent) -> None:
    """What a runner that had to be killed left behind: its brain ends, and its job waits again."""
    end_brain(agent.name)
    queue.release_active(agent.queue, but=finished(agent.name))


def _tell(agent: Agent, what: str, note: str | None) -> None:
    """What was done with an agent stands among its lines, where the operator looks for it."""
    if agent.tenant_id == HOST_TENANT:
        logs.record(agent.name, f"{what}: {note}" if note else what)
    log.info("agent %s is %s", agent.name, what)


def pause(name: str, note: str | None = None) -> Agent:
    """Let an agent finish what it has, and take no more. Conflict where it is stopped."""
    return _turn(name, "paused", note)


def resume(name: str, note: str | None = None) -> Agent:
    """Let a paused agent take jobs again. Conflict where it is stopped."""
    return _turn(name, "running", note)


@in_turn
def _turn(name: str, wanted: str, note: str | None) -> Agent:
    if find(name).wanted == "stopped":
        raise Conflict(f"Agent {name} is stopped; start it first")
    if wanted == "paused":
        agent = want(name, "paused", note, "agent.paused")
    else:
        agent = want(name, "running", note, "agent.resumed")
    if agent.local:
        write_file(name, status="paused" if wanted == "paused" else "idle", note=note)
    _tell(agent, "paused" if wanted == "paused" else "resumed", note)
    return agent


@in_turn
def retune(name: str, patch: AgentPatch) -> Agent:
    """Change an agent's fields, and its files with them; what runs of it runs on, by what it was told. NotFound."""
    agent = change(name, patch)
    if agent.local:
        bootstrap.lay(agent)
        state.look_for_program(agent)
        if agent.wanted != "stopped":
            with suppress(Conflict):  # disabled: it stays unloaded
                load(agent, gently=True)
    return agent


@in_turn
def delete(name: str) -> Agent:
    """Take an agent away. Its folder with the workspace stays on the disk, and its tasks stay. NotFound."""
    agent = find(name)
    if agent.local:
        unload(agent)
    queue.release_active(agent.queue)  # also what it had finished: nobody delivers that any more
    remove(name)
    if agent.local:
        for path in (plist_of(name), key_file(name), folder_of(name) / "state.json"):
            path.unlink(missing_ok=True)
        drop_flag(name)
    log.info("agent %s is deleted; its folder %s stays", name, folder_of(name))
    return agent
