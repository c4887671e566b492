"""What an agent is doing, derived: from its process, its lease, and its last sign of life."""
import os
import shutil
import threading
from typing import Any

import msgspec

from orkosi import Page, Paging, Problem, Struct, now, seconds
from plugins import lists, queue, supervisor
from plugins.automations import Automation

from .adapters import ADAPTERS, advice
from .paths import folder_of, label_of, read_file, search_path
from .rows import Agent, Status, busy, completed, everyone, plugin, seek

SILENT = 900.0  # seconds without a sign of life after which a process-less agent is not believed any more


class Rate(Struct):
    """How many of its tasks are done. Each number stops at 10,000."""
    done: int
    total: int
    rate: float


class Lease(Struct):
    """The job an agent works on."""
    job_id: str
    task_id: int | None
    title: str | None
    claimed_at: str
    lease_expires_at: str


class SeenAgent(Agent, kw_only=True):
    """An agent with what is true of it now. `state` is its own state file, with the derived status."""
    status: Status
    state: dict[str, Any]
    automations: list[Automation]
    completion_rate: Rate
    process: supervisor.Status | None
    lease: Lease | None
    heartbeat_age_seconds: float | None


def processes_of(agents: list[Agent]) -> dict[str, supervisor.Status]:
    """What the supervisor says of these agents, by name; of those that have no process here, and where it does not answer, nothing."""
    names = [agent.name for agent in agents if agent.local]
    try:
        found = supervisor.statuses([supervisor.plist_of(label_of(name)) for name in names]) if names else []
    except Problem:
        return {}
    return dict(zip(names, found, strict=True))


def status_of(agent: Agent, process: supervisor.Status | None, leased: bool) -> Status:
    """One word for all of it. A lease outweighs the rest, save that the operator stopped the agent, or that one which is driven
    from outside says otherwise of itself."""
    if agent.wanted == "stopped":
        return "stopped"
    if leased and (agent.local or agent.reported in ("idle", "working")):
        return "working"
    if agent.wanted == "paused":
        return "paused"
    if agent.local:
        if process is None or not process.loaded:
            return "offline"
        return "active" if process.pid else "idle"
    silent = agent.last_heartbeat is not None and _age(agent.last_heartbeat) > max(3 * agent.interval_sec, SILENT)
    return "offline" if silent and agent.reported in ("idle", "working") else agent.reported


def statuses(agents: list[Agent]) -> list[Status]:
    """The one word for each of these agents, without all else that is seen of them."""
    leases, running = busy([agent.name for agent in agents]), processes_of(agents)
    return [status_of(agent, running.get(agent.name), agent.name in leases) for agent in agents]


class Glance(Agent, kw_only=True):
    """An agent at a glance: what it is doing, without what takes counting."""
    status: Status
    lease: Lease | None


def glance(agents: list[Agent]) -> list[Glance]:
    """These agents at a glance."""
    leases, running = busy([agent.name for agent in agents]), processes_of(agents)
    return [Glance(**{name: getattr(agent, name) for name in agent.__struct_fields__}, lease=_lease(leases.get(agent.name)),
                   status=status_of(agent, running.get(agent.name), agent.name in leases)) for agent in agents]


def _lease(held: dict[str, Any] | None) -> Lease | None:
    return Lease(held["job_id"], held["task_id"], held["title"], held["claimed_at"], held["lease_expires_at"]) if held else None


def look(agents: list[Agent]) -> list[SeenAgent]:
    """These agents with all that is seen of them."""
    from plugins import automations
    names = [agent.name for agent in agents]
    leases, rates, scripts, running = busy(names), completed(names), automations.of_agents(names), processes_of(agents)
    return [_seen(agent, running.get(agent.name), leases.get(agent.name), rates[agent.name], scripts[agent.name]) for agent in agents]


def _seen(agent: Agent, process: supervisor.Status | None, held: dict[str, Any] | None, tasks: tuple[int, int],
          scripts: list[Automation]) -> SeenAgent:
    status = status_of(agent, process, held is not None)
    lease = _lease(held)
    done, total = tasks
    fields = {name: getattr(agent, name) for name in agent.__struct_fields__}
    if lease:
        fields["current_task"] = lease.title or agent.current_task
    return SeenAgent(**fields, status=status, state=read_file(agent) | {"status": status}, automations=scripts,
                completion_rate=Rate(done, total, round(done / total, 4) if total else 0.0), process=process, lease=lease,
                heartbeat_age_seconds=round(_age(agent.last_heartbeat), 1) if agent.last_heartbeat else None)


def page(query: Paging, statuses: set[str] | None, role: str | None = None) -> Page[SeenAgent]:
    """Agents by name, of these statuses where some are given: a derived status is known only once it is looked at."""
    agents = everyone(role)
    if statuses is None:
        chosen = lists.page(agents, query, "name")
        return msgspec.structs.replace(chosen, items=look(chosen.items))
    return lists.page([one for one in look(agents) if one.status in statuses], query, "name")


def _age(stamp: str) -> float:
    return max(0.0, seconds(now()) - seconds(stamp))


# ── why its work waits ──


@queue.explains
def why(jobs: list[queue.Job]) -> list[list[queue.Why]]:
    """Why agents do not take these jobs of their queues."""
    names = {job.queue.removeprefix("agent:") for job in jobs if job.queue.startswith("agent:")}
    said = {f"agent:{name}": _why(name, seek(name)) for name in names}
    return [said.get(job.queue, []) for job in jobs]


def _why(name: str, agent: Agent | None) -> list[queue.Why]:
    if agent is None:
        return [queue.Why("agent_unknown", f"There is no agent {name}; create it, or assign the task to another")]
    if agent.wanted == "stopped":
        return [queue.Why("agent_stopped", f"Agent {name} is stopped; start it" + (f" ({agent.note})" if agent.note else ""))]
    if agent.wanted == "paused":
        return [queue.Why("agent_paused", f"Agent {name} is paused; resume it" + (f" ({agent.note})" if agent.note else ""))]
    if agent.away:
        return [queue.Why("agent_offline", f"Agent {name} is {agent.reported}, as was said through the public API; give it another status at "
                                           f"PATCH /api/v1/public/agents/{agent.id}")]
    return _brainless(agent) if agent.local else []


# ── what its program lacks ──
# Looked at by a thread of its own: a task is made in the writer and shown by the loop, which wait for no disk.

_lacks: dict[str, str] = {}


def _brainless(agent: Agent) -> list[queue.Why]:
    return [queue.Why("agent_brainless", _lacks[agent.name])] if agent.name in _lacks else []


def lacking(agent: Agent) -> list[str]:
    """What an agent of this machine lacks to do anything, and what to do about it."""
    return [one.sentence for one in _brainless(agent)] if agent.local else []


def look_for_program(agent: Agent) -> None:
    """See whether an agent of this machine has something to run."""
    workspace = folder_of(agent.name) / "workspace"
    if agent.adapter and agent.adapter != "shell":
        program = ADAPTERS[agent.adapter].program
        if agent.local and program and not shutil.which(program, path=search_path()):
            _lacks[agent.name] = advice(agent.name, agent.adapter)
        else:
            _lacks.pop(agent.name, None)
        return
    program = agent.command[0] if agent.command else str(workspace / "brain")
    if not agent.local or (os.access(workspace / program, os.X_OK) if "/" in program else shutil.which(program, path=search_path())):
        _lacks.pop(agent.name, None)
    elif agent.command:
        _lacks[agent.name] = f"Agent {agent.name}: its command {program} is not on its PATH; install it, or change the command"
    else:
        _lacks[agent.name] = f"Agent {agent.name} has no program: put an executable `brain` into its workspace, or give it a command"


@plugin.service
def look_for_programs(stop: threading.Event) -> None:
    """See every few seconds whether the agents of this machine have something to run."""
    while not stop.is_set():
        for agent in everyone():
            look_for_program(agent)
        stop.wait(5)


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Another data folder has its own agents."""
    _lacks.clear()
