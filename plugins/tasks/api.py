"""The wire of tasks."""
from typing import get_args

from orkosi import Actor, Deleted, Page, Paging, Reply, may
from plugins import fields, tasks
from plugins.fields import wrong
from plugins.tasks import NewTask, Priority, Status, Task, TaskPatch, Type, plugin

READ, WRITE = may("demo", "tasks:read"), may("member", "tasks:write")


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
    values = fields.words(text, name, known)
    if not values:
        return {}
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
            raise wrong("assignee", "next=true needs to know whose")
        task = tasks.following(assignee)
        return Page([task] if task else [], 1 if task else 0, query.limit, query.offset)
    filters = several("status", query.status, get_args(Status)) | several("priority", query.priority, get_args(Priority))
    plain = {"assignee": assignee, "product": query.product, "type": query.type}
    paging = Paging(limit=query.limit, offset=query.offset)
    return tasks.page(paging, query.q, **filters, **{name: value for name, value in plain.items() if value is not None})


@plugin.post("/api/tasks", quick=True, auth=WRITE, status=201, statuses=(200,), raises=(400, 404, 409, 429), limit="task_create")
def create(body: NewTask) -> Reply[Task]:
    """Create a task

    With an assignee, its job is in that agent's queue in the same transaction. An open task with the same title and
    product is answered instead, with 200 and `meta.duplicate`."""
    task, duplicate = tasks.create(body)
    return Reply(task, 200, {"duplicate": True}) if duplicate else Reply(task)


@plugin.get("/api/tasks/{id}", quick=True, auth=READ, raises=(404,))
def show(id: int) -> Task:
    """Show a task: what it waits for, what waits for it, and `why` it is not being worked on"""
    task = tasks.find(id)
    task.why = tasks.why(task)
    return task


@plugin.patch("/api/tasks/{id}", quick=True, auth=WRITE, raises=(404, 409))
def update(id: int, body: TaskPatch) -> Task:
    """Change a task

    Its job follows: done, review and archived end it, a new assignee gets a new one, `todo` brings it back."""
    return tasks.change(id, body)


@plugin.delete("/api/tasks/{id}", auth=may("admin"), raises=(400, 404))
def delete(id: int) -> Deleted:
    """Delete a task for good, its job with it"""
    tasks.delete(id)
    return Deleted(id)

