"""The wire of agents and their runs."""
from typing import Annotated, Literal

from orkosi import HOST_TENANT, PUBLIC, UNSET, Actor, Deleted, Denied, Meta, Page, Paging, Reply, Struct, may
from plugins import agents
from plugins.agents import Agent, AgentName, AgentPatch, NewAgent, Note, Short, Status, idle, kept, plugin, runs, state
from plugins.agents.runs import Run, RunPatch, RunStatus
from plugins.agents.state import SeenAgent
from plugins.fields import OfAgent, wrong

READ, WRITE, CONTROL = may("viewer", "agents:read"), may("editor", "agents:write"), may("editor", "agents:control")
PROCESS = may("editor", "agents:control", host=True)
OUTPUT, REPLAY = may("editor", "logs:read", host=True), may("editor", "queue:submit", host=True)
RUNS, WORK = may("viewer", "tasks:read"), may("member", "queue:work")


class AgentQuery(Paging, kw_only=True):
    status: list[Status] = []


class Reason(Struct, forbid_unknown_fields=True):
    note: Note | None = None


class Created(SeenAgent, kw_only=True):
    """A new agent. `key` is set in a tenant whose agents are driven from outside, and shown only here."""
    key: str | None = None


class IdleQuery(Struct, forbid_unknown_fields=True):
    agent_name: Annotated[str, Meta(min_length=1, max_length=200)]
    run_mode: Literal["task", "discovery"] = "task"


class NewRun(Struct, forbid_unknown_fields=True):
    agent: AgentName | None = None
    task_id: int | None = None
    job_id: int | Short | None = None
    mode: Short = "task"
    replay_of: int | None = None


class OutputQuery(Struct, forbid_unknown_fields=True):
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: Annotated[int, Meta(ge=0, le=2**53, description="Bytes from the beginning")] = 0
    limit: Annotated[int, Meta(ge=4, le=kept.MOST_READ, description="Bytes at most")] = kept.MOST_READ


class Replayed(Struct):
    job_id: str


class RunQuery(OfAgent, kw_only=True):
    status: RunStatus | None = None
    task_id: int | None = None


def programs_only_by_admins(body: NewAgent | AgentPatch, me: Actor) -> None:
    """A program runs on this machine as the server's user, and an address is given keys: only an administrator's session names them."""
    named = next((name for name in ("command", "adapter", "base_url") if getattr(body, name) is not UNSET), None)
    if named and (me.role != "admin" or me.scopes is not None):
        raise Denied(f"{named}: Only an administrator, signed in, may name the program an agent runs, and where its model is")


def seen(agent: Agent) -> SeenAgent:
    return state.look([agent])[0]


@plugin.post("/api/agents", auth=CONTROL, raises=(400, 402, 409))
def create(body: NewAgent, me: Actor) -> Reply[Created]:
    """Create an agent in ten steps

    `steps` says how each went; where one failed, the later ones are skipped, and the same request again goes on from
    there. It is 409 once all ten stand, and for an agent that is driven from outside, unless `adopt`
    says to take it over. In another tenant than the host's an agent is a row, driven from outside by `key`. `meta.warnings` says
    where its program is not on this machine, and how to get it."""
    programs_only_by_admins(body, me)
    agent, key = agents.create(body)
    shown = seen(agent)
    warnings = state.lacking(agent) if agent.adapter or agent.command else []
    made = Created(**{name: getattr(shown, name) for name in shown.__struct_fields__}, key=key)
    return Reply(made, meta={"warnings": warnings} if warnings else None)


@plugin.get("/api/agents", auth=READ, tool="agent_list")
def index(query: AgentQuery) -> Page[SeenAgent]:
    """List agents by name, with what each is doing, its automations and its completion rate"""
    return state.page(query, set(query.status) or None)


@plugin.get("/api/agents/{name}", auth=READ, raises=(400, 404))
def show(name: AgentName) -> SeenAgent:
    """Get one agent, with what it is doing"""
    return seen(agents.find(name))


@plugin.patch("/api/agents/{name}", auth=WRITE, raises=(400, 404, 422))
def update(name: AgentName, body: AgentPatch, me: Actor) -> SeenAgent:
    """Change an agent; a new interval or command holds from its next cycle"""
    programs_only_by_admins(body, me)
    return seen(agents.retune(name, body))


@plugin.delete("/api/agents/{name}", auth=CONTROL, raises=(400, 404))
def delete(name: AgentName) -> Deleted:
    """Delete an agent: its process, key and automations

    Its folder with the workspace stays on the disk, and its tasks and runs stay on record."""
    return Deleted(agents.delete(name).id)


@plugin.post("/api/agents/{name}/stop", auth=PROCESS, raises=(400, 404))
def stop(name: AgentName, body: Reason) -> SeenAgent:
    """Stop an agent: its brain is ended, and its job waits again at no cost of an attempt"""
    return seen(agents.stop(name, body.note))


@plugin.post("/api/agents/{name}/start", auth=PROCESS, raises=(400, 404, 409, 422))
def start(name: AgentName, body: Reason) -> SeenAgent:
    """Start an agent that is stopped or paused

    Its files are laid where they are missing. 409 where its launch agent is disabled."""
    return seen(agents.start(name, body.note))


@plugin.post("/api/agents/{name}/restart", auth=PROCESS, raises=(400, 404, 409, 422))
def restart(name: AgentName, body: Reason) -> SeenAgent:
    """End what runs of an agent, and start it anew

    With its plist as it is on the disk now. 409 where its launch agent is disabled."""
    return seen(agents.restart(name, body.note))


@plugin.post("/api/agents/{name}/pause", auth=CONTROL, raises=(400, 404, 409))
def pause(name: AgentName, body: Reason) -> SeenAgent:
    """Let an agent finish what it has, and take no more"""
    return seen(agents.pause(name, body.note))


@plugin.post("/api/agents/{name}/resume", auth=CONTROL, raises=(400, 404, 409))
def resume(name: AgentName, body: Reason) -> SeenAgent:
    """Let a paused agent take jobs again"""
    return seen(agents.resume(name, body.note))


# ── runs ──


@plugin.get("/api/agent-runs/idle-check", quick=True, auth=PUBLIC)
def idle_check(query: IdleQuery, me: Actor) -> idle.Idle:
    """Ask whether an agent may skip this cycle

    Made for a shell before it starts anything: one indexed read. An unknown agent looks like one with nothing to do.
    `task` looks at its queue, `discovery` at what it is to look for anew. With a key, it is an agent of the key's tenant."""
    return idle.check(query.agent_name, query.run_mode, me.tenant or HOST_TENANT)


@plugin.get("/api/agent-runs", quick=True, auth=RUNS, tool="run_list")
def list_runs(query: RunQuery, me: Actor) -> Page[Run]:
    """List runs, newest first; an agent's key sees its own"""
    return runs.page(query, agent=me.name if me.kind == "agent" else query.whose())


@plugin.post("/api/agent-runs", quick=True, auth=WORK, status=201, raises=(400, 404, 409))
def start_run(body: NewRun, me: Actor) -> Run:
    """Begin a run; an agent's key begins its own

    409 where it has no job, and the budget of its agent is used up."""
    agent = me.name if me.kind == "agent" else body.agent
    if agent is None:
        raise wrong("agent", "Required, except with an agent's own key")
    job = agents.queue.id_of(body.job_id) if isinstance(body.job_id, str) else body.job_id
    return runs.start(agent, task_id=body.task_id, job_id=job, mode=body.mode, replay_of=body.replay_of)


@plugin.get("/api/agent-runs/{id}", quick=True, auth=RUNS, raises=(404,))
def show_run(id: int, me: Actor) -> Run:
    """Get one run; an agent's key sees its own"""
    return runs.find(id, me.name if me.kind == "agent" else None)


@plugin.patch("/api/agent-runs/{id}", quick=True, auth=WORK, raises=(404, 409), tool="run_note")
def update_run(id: int, body: RunPatch, me: Actor) -> Run:
    """Report on a run; a status other than running ends it

    What is over may be reported on otherwise, but runs no more."""
    return runs.change(id, body, me.name if me.kind == "agent" else None)


@plugin.get("/api/agent-runs/{id}/output", auth=OUTPUT, raises=(404,))
def run_output(id: int, query: OutputQuery) -> kept.Output:
    """Read what a run's program wrote, also while it writes

    From `offset` on, whole characters; go on at `next_offset`, which is null at the end of a run that is over. Secrets are blotted out."""
    return kept.output(id, query.stream, query.offset, query.limit)


@plugin.post("/api/agent-runs/{id}/replay", auth=REPLAY, status=201, raises=(404, 409))
def replay(id: int) -> Replayed:
    """Let a run's agent do it again, told the same

    Its job comes before no other. The run's task does not move; 409 where what the run was told is not kept any more."""
    job = kept.replay(id)
    return Replayed(f"job_{job.id}")
