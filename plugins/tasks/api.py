"""The wire of tasks."""
from typing import Any

from orkosi import Deleted, Page, Reply, may
from plugins import tasks
from plugins.tasks import NewTask, Task, TaskPatch, TaskQuery, plugin

READ, WRITE = may("demo", "tasks:read"), may("member", "tasks:write")


@plugin.get("/api/tasks", quick=True, auth=READ, raises=(400, 503))
def index(query: TaskQuery) -> Page[Task]:
    """List tasks, newest first

    `status` and `priority` take several values, separated by commas; `assignee=me` is oneself; `q` searches title and
    description; `next=true` answers the one task the assignee should take now, or none."""
    if query.assignee == "me":
        query.assignee = tasks.my_name()
    return tasks.page(query)


@plugin.post("/api/tasks", quick=True, auth=WRITE, status=201, statuses=(200,), raises=(400, 404, 409, 422, 429), limit="task_create", once=True)
def create(body: NewTask) -> Reply[Task]:
    """Create a task

    With an assignee, its job is in that agent's queue in the same transaction. An open task with the same title, product
    and assignee, and no other description, is answered instead, with 200 and `meta.duplicate`; `dedupe: false` makes one
    anyway. An `Idempotency-Key` makes it happen once, however often it is sent. `meta.warnings` says where
    the assignee is unknown, or an agent without a program.

    An agent that may delegate (`delegates`) gives parts of the task it works on to other agents. That task waits for them, and its next
    attempt finds what came of them in `subtasks`. They stand `depth` below the first one, `root_id`; how deep, and how many, is bounded."""
    task, duplicate = tasks.create(body)
    return Reply(task, 200 if duplicate else 0, noted(task, duplicate))


@plugin.get("/api/tasks/{id}", quick=True, auth=READ, raises=(404,))
def show(id: int) -> Task:
    """Show a task: what it waits for, what waits for it, its parts, and `why` it is not being worked on"""
    task = tasks.find(id)
    task.why, task.subtasks = tasks.why(task), tasks.delegation.subtasks(id)
    return task


@plugin.patch("/api/tasks/{id}", quick=True, auth=WRITE, raises=(404,))
def update(id: int, body: TaskPatch) -> Reply[Task]:
    """Change a task

    Its job follows: done, review and archived end it, a new assignee gets a new one, `todo` brings it back. `meta.warnings` as in creation."""
    task = tasks.change(id, body)
    return Reply(task, meta=noted(task))


def noted(task: Task, duplicate: bool = False) -> dict[str, Any] | None:
    said = tasks.warnings(task)
    return ((tasks.SAME if duplicate else {}) | ({"warnings": said} if said else {})) or None


@plugin.delete("/api/tasks/{id}", auth=may("admin", "tasks:delete"), raises=(400, 404))
def delete(id: int) -> Deleted:
    """Delete a task for good, its job with it"""
    tasks.delete(id)
    return Deleted(id)

