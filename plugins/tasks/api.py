"""The wire of tasks."""
from typing import Annotated, get_args

from orkosi import UNSET, Actor, Deleted, Invalid, Meta, Page, Paging, Reply, Struct, UnsetType, may
from plugins import tasks
from plugins.tasks import Priority, Status, Task, Type, plugin

Title = Annotated[str, Meta(min_length=1, max_length=300)]
Body = Annotated[str, Meta(max_length=65536)]
Line = Annotated[str, Meta(max_length=500)]
Day = Annotated[str, Meta(pattern=r"\A\d{4}-\d{2}-\d{2}(T[0-9:.]+(Z|[+-]\d\d:\d\d)?)?\Z", description="ISO date")]
Minutes = Annotated[int, Meta(ge=0, le=10_000_000)]
Length = Annotated[int, Meta(ge=1, le=7 * 86400, description="Seconds one attempt may take")]
Ids = Annotated[list[Annotated[int, Meta(ge=1, le=2**53)]], Meta(max_length=100)]

READ, WRITE = may("demo", "tasks:read"), may("member", "tasks:write")


class NewTask(Struct, forbid_unknown_fields=True):
    title: Title
    description: Body = ""
    status: Status = "todo"
    priority: Priority = "P2"
    assignee: str | None = None
    product_slug: Line | None = None
    type: Type = "other"
    category: Line | None = None
    tags: Line | None = None
    estimated_minutes: Minutes | None = None
    due_date: Day | None = None
    max_duration_seconds: Length = 3600
    blocked_by: Ids = []


class TaskPatch(Struct, forbid_unknown_fields=True):
    title: Title | UnsetType = UNSET
    description: Body | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    assignee: str | None | UnsetType = UNSET
    product_slug: Line | None | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    category: Line | None | UnsetType = UNSET
    tags: Line | None | UnsetType = UNSET
    estimated_minutes: Minutes | None | UnsetType = UNSET
    due_date: Day | None | UnsetType = UNSET
    max_duration_seconds: Length | UnsetType = UNSET
    resolution: Body | None | UnsetType = UNSET
    blocked_by: Ids | None | UnsetType = UNSET


class TaskQuery(Paging):
    status: str | None = None
    q: str | None = None
    assignee: str | None = None
    next: bool = False
    product: str | None = None
    priority: str | None = None
    type: Type | None = None


def several(name: str, text: str | None, known: tuple[str, ...]) -> dict[str, object]:
    """A comma-separated filter: one value by its index, several together."""
    if text is None:
        return {}
    values = [value.strip() for value in text.split(",")]
    for value in values:
        if value not in known:
            raise Invalid(f"{name}: {value[:40]!r} is none of {', '.join(known)}", [{"field": name, "message": f"one of {', '.join(known)}"}])
    if len(values) == 1:
        return {name: values[0]}
    return {{"status": "statuses", "priority": "priorities"}[name]: tasks.jsoned(values)}


@plugin.get("/api/tasks", quick=True, auth=READ, raises=(400, 503))
def index(query: TaskQuery, me: Actor) -> Page[Task]:
    """List tasks, newest first

    `status` and `priority` take several values, separated by commas; `assignee=me` is oneself; `q` searches title and
    description; `next=true` answers the one task the assignee should take now, or none."""
    assignee = tasks.me(me) if query.assignee == "me" else query.assignee
    if query.next:
        if not assignee:
            raise Invalid("assignee: next=true needs to know whose", [{"field": "assignee", "message": "Required with next"}])
        task = tasks.following(assignee)
        return Page([task] if task else [], 1 if task else 0, query.limit, query.offset)
    filters = several("status", query.status, get_args(Status)) | several("priority", query.priority, get_args(Priority))
    plain = {"assignee": assignee, "product": query.product, "type": query.type}
    paging = Paging(limit=query.limit, offset=query.offset)
    return tasks.listed(paging, query.q, **filters, **{name: value for name, value in plain.items() if value is not None})


@plugin.post("/api/tasks", quick=True, auth=WRITE, status=201, statuses=(200,), raises=(400, 404, 409, 429), limit="task_create")
def create(body: NewTask, me: Actor) -> Reply[Task]:
    """Create a task

    With an assignee, its job is in that agent's queue in the same transaction. An open task with the same title and
    product is answered instead, with 200 and `meta.duplicate`."""
    task, duplicate = tasks.create(body, me, body.blocked_by)
    return Reply(task, 200, {"duplicate": True}) if duplicate else Reply(task)


@plugin.get("/api/tasks/{id}", quick=True, auth=READ, raises=(404,))
def show(id: int) -> Task:
    """Show a task: what it waits for, what waits for it, and `why` it is not being worked on"""
    task = tasks.find(id)
    task.why = tasks.why(task)
    return task


@plugin.patch("/api/tasks/{id}", quick=True, auth=WRITE, raises=(404, 409))
def update(id: int, body: TaskPatch, me: Actor) -> Task:
    """Change a task

    Its job follows: done, review and archived end it, a new assignee gets a new one, `todo` brings it back."""
    return tasks.change(id, body, me)


@plugin.delete("/api/tasks/{id}", auth=may("admin"), raises=(400, 404))
def delete(id: int) -> Deleted:
    """Delete a task for good, its job with it"""
    tasks.delete(id)
    return Deleted(id)

