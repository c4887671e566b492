"""Reviewing: what an agent did for a task, and a person's word on it."""
from orkosi import Conflict, Denied, Struct, current, db, emit, now, seconds, writes
from plugins import logs, notifications
from plugins.files.versions import Change, changes
from plugins.queue import iso

from . import ASKS, OVER, Task, TaskPatch, _tell, change, find

AFTER = 5.0   # seconds after the end of a run within which the sync has seen what it left
LINES = 50    # of the log


class Review(Struct):
    """What there is to review of a task: its last run, what became of its agent's files meanwhile, and the end of its log. `more_changes`: how
    many files are not shown."""
    task_id: int
    status: str
    reason: str | None
    note: str | None
    resolution: str | None
    run_id: int | None
    agent: str | None
    started_at: str | None
    finished_at: str | None
    changes: list[Change]
    more_changes: int
    log: list[str]


def review(id: int) -> Review:
    """What an agent did for a task. NotFound."""
    task = find(id)
    run = db.all(tuple, """SELECT id, agent, started_at, finished_at FROM agent_runs WHERE tenant_id = :tenant AND task_id = :task
                            ORDER BY id DESC LIMIT 1""", task=id)
    if not run:
        return Review(id, task.status, task.reason, task.note, task.resolution, None, None, None, None, [], 0, [])
    number, agent, started, finished = run[0]
    end = iso(seconds(finished) + AFTER) if finished else now()
    found, more = changes(agent, started, end)
    return Review(id, task.status, task.reason, task.note, task.resolution, number, agent, started, finished, found, more,
                  logs.tail(agent, id, LINES))


@writes
def approve(id: int, note: str | None) -> Task:
    """A person has looked at it, and it is done. NotFound, Conflict where it is not in review."""
    _require(id)
    task = change(id, TaskPatch(status="done", note=note))
    emit("task.approved", task, note=note)
    return task


@writes
def reject(id: int, note: str) -> Task:
    """A person has looked at it, and it is to be done again; what they say reaches the next attempt. NotFound, Conflict where it is not in review."""
    _require(id)
    task = change(id, TaskPatch(status="todo", note=note))
    emit("task.rejected", task, note=note)
    return task


@writes
def ask(id: int, question: str) -> Task:
    """Ask a person something that a task cannot go on without: it is in review, with the question, until `reject` sends it back with the answer.

    Whoever works on it may still end in peace: what their attempt comes to changes nothing of that. NotFound, Conflict where it is over.
    """
    before = find(id)
    if before.status in OVER or (current().kind == "agent" and before.assignee != current().name):
        raise Conflict(f"Task {id} is {before.status}, or another's; ask of an open one of your own")
    db.run("""UPDATE tasks SET status = 'review', reason = :reason, last_error = :question, note = NULL, updated_at = :now
               WHERE id = :id AND tenant_id = :tenant""", id=id, reason=ASKS, question=question, now=now())
    task = find(id)
    _tell(before, task)
    emit("task.asked", task, note=question[:300])
    notifications.notify(f"Task {id} asks", f"{task.title}: {question[:500]}", type="warning", source="tasks", link=f"/api/tasks/{id}")
    return task


def _require(id: int) -> None:
    if current().kind == "agent":
        raise Denied("An agent's key judges no work; a person does")
    task = find(id)
    if task.status != "review":
        raise Conflict(f"Task {id} is {task.status.replace('_', ' ')}; only what is in review is approved or rejected")


