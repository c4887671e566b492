"""The job behind a task: a task's job is made what the task asks for, and the task follows what becomes of its job.

Owns nothing; writes `tasks` as the face does. Surprise: a job knows no task. Here `job.*` is heard, and the task found by its job.
"""
from typing import Any

from orkosi import Conflict, NotFound, across_tenants, current, db, jsoned, now
from plugins import notifications, queue
from plugins.queue import Job

from . import ASKS, ATTEMPTS, COLUMNS, LEASE, OVER, RANK, Task, _tell, delegation, find, links, plugin
from .assignees import follows, is_a_person


def _follow(task: Task, new: bool = False) -> None:
    """Make a task's job what the task now asks for: there, gone, held, or of another priority.

    A `new` one that is said to be in progress has a job, too, but where its agent itself says so, and is at it.
    """
    job = _job(task)
    wanted = task.assignee is not None and task.status in ("todo", "in_progress") and not is_a_person(task.assignee)
    if not wanted:
        _drop_job(task, keep=task.assignee is not None and not is_a_person(task.assignee))
        return None
    blockers = [] if task.blocked_by == [] else links.still_open(task.id)
    held = f"Waits for task {', '.join(map(str, blockers))}" if blockers else None
    if job is None:
        if task.status == "todo" or (new and not (current().kind == "agent" and current().name == task.assignee)):
            job, _ = queue.submit(f"agent:{task.assignee}", "task", {"task_id": task.id}, priority=RANK[task.priority],
                                  max_attempts=ATTEMPTS, timeout=LEASE, held_for=held)
            db.run("UPDATE tasks SET job_id = :job WHERE id = :id AND tenant_id = :tenant", id=task.id, job=job.id)
            task.job_id = f"job_{job.id}"
        return None
    if job.priority != RANK[task.priority]:
        queue.reprioritize(job.id, RANK[task.priority])
    if held and job.held_for != held:
        queue.hold(job.id, held)
    elif not held and job.held_for:
        queue.unhold(job.id)
    return None


@follows
@across_tenants
def follow(home: int, was: str, name: str | None) -> None:
    """A person's tasks follow them to another name, and are nobody's once they are gone. Conflict where an agent is called so, and would get them."""
    mine = """tenant_id = :home AND assignee = :was
               AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.tenant_id = :home AND agents.name = tasks.assignee)"""
    if db.value("SELECT 1 FROM agents WHERE tenant_id = :home AND name = :name", home=home, name=name) and db.value(
            f"SELECT 1 FROM tasks WHERE {mine} LIMIT 1", home=home, was=was):
        raise Conflict(f"username: An agent is called {name}, and would get the tasks of {was}; choose another name")
    db.run(f"UPDATE tasks SET assignee = :name WHERE {mine}", home=home, was=was, name=name)


def _job(task: Task) -> Job | None:
    """The task's unfinished job."""
    if task.job_id is None:
        return None
    try:
        job = queue.find(queue.id_of(task.job_id))
    except NotFound:  # what is over is forgotten after some days
        return None
    return job if job.state in queue.UNFINISHED else None


def _drop_job(task: Task, keep: bool = False) -> None:
    """Cancel a task's job; `keep` its number, so that one can see what became of it."""
    job = _job(task)
    if not keep:
        db.run("UPDATE tasks SET job_id = NULL WHERE id = :id AND tenant_id = :tenant", id=task.id)
        task.job_id = None
    if job:
        queue.cancel(job.id)


def _of(job: Job) -> Task | None:
    if job.task_type != "task":
        return None
    return db.one(Task, f"SELECT {COLUMNS} FROM tasks WHERE job_id = :job AND tenant_id = :tenant", job=job.id)


@plugin.on("job.claimed")
def started(event: str, job: Job) -> None:
    """A claimed task is in progress."""
    if job.task_type == "task":
        _move(job, "in_progress")


@plugin.on("job.completed")
def completed(event: str, job: Job) -> None:
    """What the worker reported becomes of the task: done, or what `status` in its result says; review where its report could not be used.

    One that has given parts away is to do again, until they are over and its agent knows what came of them.
    """
    if job.task_type != "task":
        return
    told = job.result if isinstance(job.result, dict) else {"resolution": job.result}
    status = str(told.get("status", "done"))
    if status not in ("review", "blocked"):
        status = "done"
    resolution = told.get("resolution")
    unusable = told.get("unusable")
    if unusable:
        status = "review"
    before = _of(job)
    if asks(before):
        db.run("UPDATE tasks SET resolution = ifnull(:said, resolution) WHERE id = :id AND tenant_id = :tenant", id=before and before.id,
               said=resolution if isinstance(resolution, str) else None)
        return
    if status == "done" and before and delegation.waits_for_parts(before, job):
        status = "todo"  # once more, with what came of them
    _move(job, status, resolution=resolution if isinstance(resolution, str) or resolution is None else jsoned(resolution),
          error=unusable or (told.get("note") if status == "blocked" else None), reason="report_unusable" if unusable else None)


@plugin.on("job.retrying")
def retrying(event: str, job: Job) -> None:
    """A failed attempt: to do again, with the error to see."""
    _move(job, "todo", error=job.error)


@plugin.on("job.deferred")
def deferred(event: str, job: Job) -> None:
    """Put off: to do, with what it waits for to see."""
    _move(job, "todo", error=job.error)


@plugin.on("job.cancelled")
def cancelled(event: str, job: Job) -> None:
    """Cancelled by its number: nobody is at it any more."""
    task = _of(job)
    if task and task.status == "in_progress":
        _move(job, "todo")


@plugin.on("job.released")
def released(event: str, job: Job) -> None:
    """Given back untouched: to do."""
    _move(job, "todo")


@plugin.on("job.revived")
def revived(event: str, job: Job) -> None:
    """Brought back: to do. Where its task is over, or has another job by now, nobody is to do it, and the task stays as it is."""
    task = _meant(job)
    if task and (task.status in OVER or _has_another(task, job)):
        queue.cancel(job.id)
    else:
        _move(job, "todo")


def _meant(job: Job) -> Task | None:
    """The task that a job was made for, though it may have another by now, or none."""
    id = job.payload.get("task_id") if job.task_type == "task" and isinstance(job.payload, dict) else None
    if type(id) is not int or not 0 < id < 1 << 63:
        return None
    return db.one(Task, f"SELECT {COLUMNS} FROM tasks WHERE id = :id AND tenant_id = :tenant", id=id)


def _has_another(task: Task, job: Job) -> bool:
    """Whether a task has an unfinished job that is not this one."""
    now_its = queue.of_ids([queue.id_of(task.job_id)]) if task.job_id else []
    return any(one.id != job.id and one.state in queue.UNFINISHED for one in now_its)


@plugin.on("job.failed")
def failed(event: str, job: Job) -> None:
    """No attempt is left: blocked, and somebody must look."""
    task = _move(job, "blocked", error=job.error)
    if task:
        notifications.notify(f"Task {task.id} is blocked", f"{task.title}: {(job.error or '')[:500]}", type="error", source="tasks",
                             link=f"/api/tasks/{task.id}")


def asks(task: Task | None) -> bool:
    """Whether a task waits for a person's answer."""
    return task is not None and task.status == "review" and task.reason == ASKS


def _move(job: Job, status: str, *, resolution: str | None = None, error: Any = None, reason: str | None = None) -> Task | None:
    before = _of(job)
    if before is None:
        return None
    if asks(before):  # until it is answered, nobody tries again
        if job.state in queue.UNFINISHED:
            queue.cancel(job.id)
        return None
    db.run("""
        UPDATE tasks SET status = :status, resolution = ifnull(:resolution, resolution), last_error = CASE WHEN :status = 'done' THEN NULL
               ELSE ifnull(:error, last_error) END, updated_at = :now, finished_at = CASE WHEN :status = 'done' THEN :now END,
               reason = :reason, note = CASE WHEN :status <> 'done' THEN note END
         WHERE id = :id AND tenant_id = :tenant""",
        id=before.id, status=status, resolution=resolution, error=None if error is None else str(error)[:8192], reason=reason, now=now())
    task = find(before.id)
    if status == "todo" and task.blocked_by:
        _follow(task)  # it waits for its parts before it is tried again
    if task.status != before.status:
        _tell(before, task)
    return task
