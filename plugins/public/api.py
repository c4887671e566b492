"""The wire of the public API: /v1/public, for sessions and for keys with the scope that each operation names.

Creates take an `Idempotency-Key`. Agents made here are rows, driven from outside; one that lives on the server's
own machine shows its status here and takes none.
"""
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec

from orkosi import (
    PUBLIC,
    UNSET,
    VERSION,
    Actor,
    Conflict,
    Deleted,
    Denied,
    Meta,
    Page,
    Paging,
    Reply,
    Struct,
    UnsetType,
    db,
    may,
)
from plugins import agents, public, tasks
from plugins.agents import templates
from plugins.agents.templates import Long, NewTemplate, Short, Template, TemplatePatch
from plugins.fields import wrong
from plugins.public import AgentStatus, Priority, PublicAgent, PublicTask, TaskStatus, plugin
from plugins.tasks import Type

SAME = {"duplicate": True, "message": "There is an open task like this one, which is answered instead; another title or description makes another"}

Title = Annotated[str, Meta(min_length=1, max_length=300)]
Name = Annotated[str, Meta(pattern=agents.NAME, description="2 to 31 lower-case letters, digits and -, a letter first")]
Path = Annotated[str, Meta(min_length=1, max_length=300, description="Relative, without ..")]
Length = Annotated[int, Meta(ge=1, le=7 * 86400, description="Seconds one attempt may take")]
Assignee = Annotated[str, Meta(pattern=tasks.ASSIGNEE, description="letters, digits and . _ -, 61 at most")]
Id = Annotated[int, Meta(ge=-2**63, le=2**63 - 1)]

READ_TASKS, WRITE_TASKS = may("demo", "tasks:read"), may("member", "tasks:write")
READ_AGENTS, WRITE_AGENTS = may("viewer", "agents:read"), may("editor", "agents:write")
READ_TEMPLATES, WRITE_TEMPLATES = may("viewer", "templates:read"), may("member", "templates:write")


class Alive(Struct):
    status: str
    version: str


class NewPublicTask(Struct, forbid_unknown_fields=True):
    title: Title
    description: Long = ""
    type: Type = "other"
    priority: Priority = "medium"
    status: TaskStatus = "todo"
    assigned_to: Assignee | None = None
    product_id: Id | None = None
    max_duration_seconds: Length = 3600


class PublicTaskPatch(Struct, forbid_unknown_fields=True):
    title: Title | UnsetType = UNSET
    description: Long | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    status: TaskStatus | UnsetType = UNSET
    assigned_to: Assignee | None | UnsetType = UNSET
    product_id: Id | None | UnsetType = UNSET
    resolution: Long | None | UnsetType = UNSET
    max_duration_seconds: Length | UnsetType = UNSET


class TaskQuery(Paging):
    status: list[TaskStatus] = []
    priority: list[Priority] = []
    assigned_to: str | None = None
    product_id: Id | None = None


class NewPublicAgent(Struct, forbid_unknown_fields=True):
    name: Name
    role: Short
    emoji: Short | None = None
    status: AgentStatus = "idle"
    workspace_path: Path | None = None


class PublicAgentPatch(Struct, forbid_unknown_fields=True):
    emoji: Short | None | UnsetType = UNSET
    role: Short | UnsetType = UNSET
    status: AgentStatus | UnsetType = UNSET
    current_task: Title | None | UnsetType = UNSET
    workspace_path: Path | None | UnsetType = UNSET


class AgentQuery(Paging):
    status: list[AgentStatus] = []
    role: str | None = None


class TemplateQuery(Paging):
    category: str | None = None
    featured: Annotated[bool, Meta(description="true: featured ones alone")] = False


@plugin.get("/api/v1/public/health", quick=True, auth=PUBLIC)
def health() -> Alive:
    """Whether the public API answers"""
    db.value("SELECT 1")
    return Alive("ok", VERSION)


# ── tasks ──


@plugin.get("/api/v1/public/tasks", quick=True, auth=READ_TASKS, raises=(400, 401, 403, 404))
def list_tasks(query: TaskQuery) -> Page[PublicTask]:
    """List tasks, newest first

    `status` and `priority` take several values, separated by commas."""
    found = tasks.page(tasks.TaskQuery(
        limit=query.limit, offset=query.offset, after=query.after, assignee=query.assigned_to,
        status=[public.TASK_STATUSES[word] for word in query.status],
        priority=[public.PRIORITIES[word] for word in query.priority],
        product=None if query.product_id is None else public.slug_of(query.product_id)))
    known = public.product_ids(found.items)
    return found.map(lambda task: public.outward(task, known))


@plugin.post("/api/v1/public/tasks", quick=True, auth=WRITE_TASKS, status=201, statuses=(200,), raises=(400, 401, 402, 403, 404, 409),
             limit="task_create", once=True)
def create_task(body: NewPublicTask) -> Reply[PublicTask]:
    """Create a task

    With `assigned_to`, that agent gets it as a job. An open task with the same title, product
    and assignee, and no other description, is answered instead, with 200 and `meta.duplicate`. `meta.warnings` says where the assignee is
    unknown, or has nothing to run."""
    task, duplicate = tasks.create(tasks.NewTask(**public.inward(body)))
    return Reply(public.outward(task), 200 if duplicate else 0, said(task, duplicate))


@plugin.get("/api/v1/public/tasks/{id}", quick=True, auth=READ_TASKS, raises=(404,))
def show_task(id: int) -> PublicTask:
    """Get a task"""
    return public.outward(tasks.find(id))


@plugin.patch("/api/v1/public/tasks/{id}", quick=True, auth=WRITE_TASKS, raises=(404, 409))
def update_task(id: int, body: PublicTaskPatch) -> Reply[PublicTask]:
    """Change a task; its job follows

    `meta.warnings` as in creation."""
    task = tasks.change(id, tasks.TaskPatch(**public.inward(body)))
    return Reply(public.outward(task), meta=said(task))


def said(task: tasks.Task, duplicate: bool = False) -> dict[str, Any] | None:
    """What stands beside a task: that it was there already, and what its maker should know."""
    warnings = tasks.warnings(task)
    return ((SAME if duplicate else {}) | ({"warnings": warnings} if warnings else {})) or None


@plugin.delete("/api/v1/public/tasks/{id}", quick=True, auth=WRITE_TASKS, raises=(404,))
def archive_task(id: int) -> Deleted:
    """Archive a task: its status becomes `cancelled`, and its job ends"""
    return Deleted(tasks.change(id, tasks.TaskPatch(status="archived")).id)


# ── agents ──


@plugin.get("/api/v1/public/agents", auth=READ_AGENTS, raises=(400,))
def list_agents(query: AgentQuery) -> Page[PublicAgent]:
    """List agents by name

    `status` takes several values, separated by commas."""
    chosen = {one for word in query.status for one in public.AGENT_STATUSES[word]}
    found = agents.state.page(query, chosen or None, query.role)
    return found.map(public.seen)


@plugin.post("/api/v1/public/agents", auth=WRITE_AGENTS, status=201, raises=(400, 402, 409), once=True)
def create_agent(body: NewPublicAgent) -> PublicAgent:
    """Put an agent on record, to be driven from outside"""
    return shown(agents.register(body.name, role=body.role, emoji=body.emoji, reported=public.AGENT_STATUSES[body.status][0],
                                 workspace_path=relative(body.workspace_path)))


@plugin.get("/api/v1/public/agents/{id}", auth=READ_AGENTS, raises=(404,))
def show_agent(id: int) -> PublicAgent:
    """Get an agent"""
    return shown(agents.find_id(id))


@plugin.patch("/api/v1/public/agents/{id}", auth=WRITE_AGENTS, raises=(404, 409))
def update_agent(id: int, body: PublicAgentPatch) -> PublicAgent:
    """Change an agent, or say how it is: a status or a task is a sign of life

    Of an agent on the server's own machine, status, task and workspace are what is seen there: 409."""
    agent = agents.find_id(id)
    given = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if agent.local and (told := {"status", "current_task", "workspace_path"} & set(given)):
        raise Conflict(f"{sorted(told)[0]}: {agent.name} lives on the server's machine, where this is seen, not told; "
                       f"use /api/agents/{agent.name}/stop, start or pause")
    lives = {"status", "current_task"} & set(given)
    if "status" in given:
        given["reported"] = public.AGENT_STATUSES[given.pop("status")][0]
    if "workspace_path" in given:
        given["workspace_path"] = relative(given["workspace_path"])
    return shown(agents.report(id, **given) if lives else agents.change(agent.name, **given))


@plugin.delete("/api/v1/public/agents/{id}", auth=WRITE_AGENTS, raises=(404,))
def deactivate_agent(id: int, me: Actor) -> Deleted:
    """Deactivate an agent: its status becomes `offline`

    One on the server's own machine is stopped, and a key needs agents:control for that."""
    agent = agents.find_id(id)
    if not agent.local:
        agents.report(id, reported=public.AGENT_STATUSES["offline"][0], current_task=None)
        return Deleted(id)
    if me.scopes is not None and "agents:control" not in me.scopes:
        raise Denied(f"Insufficient scope: stopping {agent.name} needs agents:control")
    agents.stop(agent.name)
    return Deleted(id)


def shown(agent: agents.Agent) -> PublicAgent:
    return public.seen(agents.state.look([agent])[0])


def relative(path: str | None) -> str | None:
    """`path` if it stays where it begins; Invalid."""
    if path is not None and (path.startswith("/") or "\\" in path or ".." in PurePosixPath(path).parts or not path.isprintable()):
        raise wrong("workspace_path", "Write a relative path without '..'")
    return path


# ── templates ──


@plugin.get("/api/v1/public/templates", quick=True, auth=READ_TEMPLATES)
def list_templates(query: TemplateQuery) -> Page[Template]:
    """List agent templates by `sort_order`, then by name"""
    filters: dict[str, Any] = {"category": query.category} if query.category is not None else {}
    at = Paging(limit=query.limit, offset=query.offset, after=query.after)
    return templates.page(at, **filters | ({"featured": True} if query.featured else {}))


@plugin.post("/api/v1/public/templates", auth=WRITE_TEMPLATES, status=201, raises=(400, 409), once=True)
def create_template(body: NewTemplate) -> Template:
    """Add an agent template

    An agent that is made from it gets its model, interval and icon, and from `config` a `display_name`, `role`, `color` and `delegates`.
    `agents:delegate` among its tools or capabilities lets it delegate; the others are words, which stand in its SOUL.md below the `identity`.
    What runs it - `command`, `adapter`, `base_url` - is for whoever makes the agent to say."""
    small(body.config)
    return templates.create(body)


@plugin.get("/api/v1/public/templates/{id}", quick=True, auth=READ_TEMPLATES, raises=(404,))
def show_template(id: int) -> Template:
    """Get an agent template"""
    return templates.find(id)


@plugin.patch("/api/v1/public/templates/{id}", auth=WRITE_TEMPLATES, raises=(404,))
def update_template(id: int, body: TemplatePatch) -> Template:
    """Change an agent template; its slug stays"""
    if body.config is not UNSET:
        small(body.config)
    return templates.change(id, body)


@plugin.delete("/api/v1/public/templates/{id}", auth=WRITE_TEMPLATES, raises=(404,))
def archive_template(id: int) -> Deleted:
    """Archive an agent template; it is shown nowhere any more, and its slug is free"""
    templates.archive(id)
    return Deleted(id)


def small(config: dict[str, Any]) -> None:
    """Invalid where a template's config is more than a template's."""
    if len(msgspec.json.encode(config)) > 65536:
        raise wrong("config", "At most 64 KiB of JSON")
