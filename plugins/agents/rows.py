"""The rows of agents: who they are, what the operator wants of them, and their signs of life.

Owns nothing of its own: it writes the agents table for the face, which is made of this file and the ones beside it.
"""
import logging
from typing import Annotated, Any, Literal

from orkosi import COUNTED, HOST_TENANT, UNSET, Meta, NotFound, Plugin, Struct, UnsetType, db, emit, jsoned, now, writes
from plugins import queue

from .adapters import AdapterName, BaseUrl, acceptable

plugin = Plugin("Agents", layer="domain", needs=("automations",))
log = logging.getLogger("orkosi")

NAME = r"\A[a-z][a-z0-9-]{1,30}\Z"
Wanted = Literal["running", "paused", "stopped"]
Reported = Literal["idle", "working", "blocked", "offline", "paused", "error"]
Status = Literal["active", "idle", "working", "blocked", "paused", "stopped", "offline", "error"]


HOLDING = ("offline", "paused")  # reported of one that is driven from outside, these hold its queue


class Step(Struct):
    """One step of an agent's creation."""
    step: int
    name: str
    ok: bool
    detail: str = ""


Short = Annotated[str, Meta(min_length=1, max_length=200)]
Interval = Annotated[int, Meta(ge=1, le=31_536_000, description="Seconds from one cycle to the next")]
Command = Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(min_length=1, max_length=100)]
Note = Annotated[str, Meta(max_length=4000)]


AgentName = Annotated[str, Meta(pattern=NAME, description="2 to 31 lower-case letters, digits and -, a letter first")]


class AgentFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """What people say of an agent."""
    display_name: Short | UnsetType = UNSET
    role: Short | UnsetType = UNSET
    model: Short | None | UnsetType = UNSET
    interval_sec: Interval | UnsetType = UNSET
    emoji: Short | None | UnsetType = UNSET
    color: Short | None | UnsetType = UNSET
    command: Command | None | UnsetType = UNSET
    adapter: AdapterName | None | UnsetType = UNSET
    base_url: BaseUrl | None | UnsetType = UNSET
    delegates: Annotated[bool, Meta(description="Whether it may give parts of its tasks to other agents")] | UnsetType = UNSET


class NewAgent(AgentFields, kw_only=True):
    """An agent to make."""
    name: AgentName
    template: Annotated[Short, Meta(description="A template's slug: what it says, unless something else is sent")] | None = None
    adopt: Annotated[bool, Meta(description="true: take over an agent that so far was driven from outside")] = False


class AgentPatch(AgentFields, kw_only=True):
    """A change to an agent: what is set, is changed."""
    note: Note | None | UnsetType = UNSET


class Agent(Struct):
    """An agent on record."""
    id: int
    name: str
    display_name: str
    role: str
    model: str | None
    emoji: str | None
    color: str | None
    interval_sec: int
    command: list[str] | None
    adapter: AdapterName | None
    base_url: str | None
    template: str | None
    delegates: bool
    workspace_path: str | None
    wanted: Wanted
    reported: Reported
    note: str | None
    current_task: str | None
    steps: list[Step]
    last_heartbeat: str | None
    idle_skips: int
    created_at: str
    updated_at: str
    tenant_id: int

    @property
    def queue(self) -> str:
        """The queue its jobs are in."""
        return f"agent:{self.name}"

    @property
    def away(self) -> bool:
        """Whether it is driven from outside, and gets nothing to do by what was said of it there."""
        return self.reported in HOLDING and not self.local

    @property
    def local(self) -> bool:
        """Whether it lives on this machine, and has a job of the supervisor."""
        return self.tenant_id == HOST_TENANT and any(step.ok and step.name == "plist" for step in self.steps)


def find(name: str) -> Agent:
    """An agent of this tenant by name. NotFound."""
    agent = seek(name)
    if agent is None:
        raise NotFound(f"There is no agent {name!r}")
    return agent


def seek(name: str) -> Agent | None:
    """An agent of this tenant by name, if there is one."""
    return _row("SELECT * FROM agents WHERE name = :name AND tenant_id = :tenant", name=name)


def find_id(id: int) -> Agent:
    """An agent of this tenant by number. NotFound."""
    agent = _row("SELECT * FROM agents WHERE id = :id AND tenant_id = :tenant", id=id)
    if agent is None:
        raise NotFound(f"There is no agent {id}")
    return agent


def everyone(role: str | None = None) -> list[Agent]:
    """The agents of this tenant, by name."""
    rows = db.all(dict, "SELECT * FROM agents WHERE tenant_id = :tenant AND (role = :role OR :role IS NULL) ORDER BY name", role=role)
    return [_agent(row) for row in rows]


def _row(sql: str, /, **params: Any) -> Agent | None:
    row = db.one(dict, sql, **params)
    return _agent(row) if row else None


def _agent(row: dict[str, Any]) -> Agent:
    import msgspec
    for name in ("command", "steps"):
        row[name] = row[name] and msgspec.json.decode(row[name])
    row["delegates"] = bool(row["delegates"])
    return msgspec.convert(row, Agent)


# ── rows ──


@writes
def register(name: str, *, display_name: str | None = None, role: str = "agent", **more: Any) -> Agent:
    """Put an agent on record: a row, and no more. Conflict where the name is taken, Invalid where it has no brain that way."""
    row = db.insert(dict, "agents", name=name, display_name=display_name or name.capitalize(), role=role, created_at=now(),
                    updated_at=now(), **more)
    agent = _agent(row)
    acceptable(agent.adapter, agent.command, agent.base_url, agent.model)
    emit("agent.created", agent)
    if agent.reported in HOLDING:
        queue.pause(agent.queue)
    return agent


@writes
def change(name: str, patch: AgentPatch | None = None, /, **more: Any) -> Agent:
    """Change what is sent; NotFound, Invalid where it has no brain that way."""
    from plugins import keys
    before = find(name)
    agent = _agent(db.patch(dict, "agents", before.id, *([patch] if patch else []), **more))
    acceptable(agent.adapter, agent.command, agent.base_url, agent.model)
    if agent.delegates != before.delegates:
        keys.rescope_agent(agent.tenant_id, name, keys.scopes_of_agent(agent.delegates))
    emit("agent.updated", agent)
    return agent


@writes
def report(id: int, **more: Any) -> Agent:
    """What a process-less agent says of itself, or is said of it; a sign of life. NotFound.

    One that is offline or paused gets nothing until it is something else; one that is offline gives back what it works on.
    """
    before = find_id(id)
    agent = _agent(db.patch(dict, "agents", id, last_heartbeat=now(), **more))
    emit("agent.updated", agent)
    if agent.reported in HOLDING:
        queue.pause(agent.queue)
        if agent.reported == "offline":
            queue.release_active(agent.queue)
    elif before.reported in HOLDING and agent.wanted == "running":
        queue.resume(agent.queue)
    return agent


@writes
def note_steps(name: str, steps: list[Step], **more: Any) -> Agent:
    """Keep how far an agent's creation came; when all ten stand, `agent.ready` is heard."""
    agent = _agent(db.patch(dict, "agents", find(name).id, steps=steps, **more))
    if len(steps) == 10 and all(step.ok for step in steps):
        emit("agent.ready", agent)
    return agent


@writes
def want(name: str, wanted: Wanted, note: str | None, event: str) -> Agent:
    """Keep what the operator asks for, and say so as `event`. A paused agent's queue is paused with it; so is that of a stopped one that lives
    elsewhere, where no process ends."""
    from plugins import automations
    agent = _agent(db.patch(dict, "agents", find(name).id, wanted=wanted, note=note))
    held = wanted == "paused" or agent.away or (wanted == "stopped" and not agent.local)
    (queue.pause if held else queue.resume)(agent.queue)
    automations.switch(name, "inactive" if wanted == "stopped" else "active")
    emit(event, agent, note=note)
    return agent


@writes
def remove(name: str) -> Agent:
    """Take an agent, its key and its automations off the record; its runs and its tasks stay. NotFound."""
    from plugins import automations, keys
    agent = find(name)
    queue.resume(agent.queue)
    keys.drop_agent_key(agent.tenant_id, name)
    automations.forget_agent(name)
    db.delete("agents", agent.id)
    emit("agent.deleted", agent)
    return agent


def has_key(name: str) -> bool:
    """Whether an agent of this tenant has a key that is good."""
    return db.value("""SELECT 1 FROM api_keys WHERE tenant_id = :tenant AND agent = :name AND is_active = 1
                          AND deleted_at IS NULL""", name=name) is not None


# ── signs of life ──


@plugin.on("job.claimed")
def stamp_claim(event: str, job: queue.Job) -> None:
    """Whoever claims from an agent's queue shows that the agent lives."""
    if job.queue.startswith("agent:"):
        beat(job.queue.removeprefix("agent:"))


@writes(durable=False)
def beat(name: str) -> None:
    """A sign of life; unknown names are none."""
    db.run("UPDATE agents SET last_heartbeat = :now WHERE name = :name AND tenant_id = :tenant", name=name, now=now())


def busy(names: list[str]) -> dict[str, dict[str, Any]]:
    """What each of these agents has under lease, by name: job, task, title, since and until when; where it has several, the first."""
    queues = jsoned([f"agent:{name}" for name in names])
    return {row["queue"].removeprefix("agent:"): row for row in db.all(dict, """
        SELECT jobs.queue, 'job_' || jobs.id AS job_id, jobs.claimed_at, jobs.lease_expires_at, tasks.id AS task_id, tasks.title
          FROM jobs LEFT JOIN tasks ON tasks.job_id = jobs.id AND tasks.tenant_id = :tenant
         WHERE jobs.tenant_id = :tenant AND jobs.state = 'active' AND jobs.lease_expires_at > ''
           AND jobs.queue IN (SELECT value FROM json_each(:queues)) ORDER BY jobs.claimed_at DESC, jobs.id DESC""", queues=queues)}


def completed(names: list[str]) -> dict[str, tuple[int, int]]:
    """(done, all but archived) of each agent's tasks, each counted to 10,000."""
    return {name: (done, total) for name, done, total in db.all(tuple, """
        SELECT name, done, CASE WHEN done = :counted THEN done ELSE
                   (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND assignee = name
                                             AND status <> 'archived' LIMIT :counted)) END
          FROM (SELECT asked.value AS name, (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND assignee = asked.value
                                                                      AND status = 'done' LIMIT :counted)) AS done
                  FROM json_each(:names) AS asked) AS over""", names=jsoned(names), counted=COUNTED)}
