"""Reasons: why open tasks are not being worked on, and what would change that.

Owns nothing. Surprise: they are asked for by the page, so that a list costs as many questions as one task.
"""
from typing import Any

from plugins import queue
from plugins.queue import Why

from . import ASKS, OVER, Task, delegation, links

NONE: list[Any] = []


def why(task: Task) -> list[Why]:
    """Why one task is not being worked on; empty while it is, or once it is over."""
    return whys([task])[0]


def whys(tasks: list[Task]) -> list[list[Why]]:
    """The same for each of some tasks of this tenant."""
    waiting = [task.id for task in tasks if task.blocked_by != [] and task.status not in OVER]
    waits = links.open_of(waiting) if waiting else {}
    jobs = {task.id: queue.id_of(task.job_id) for task in tasks if task.job_id and task.status in ("todo", "in_progress")}
    said = queue.whys_of(list(jobs.values())) if jobs else {}
    found = [_why(task, waits.get(task.id, NONE), said.get(jobs.get(task.id, 0), NONE)) for task in tasks]
    for place, bound in delegation.bounds(tasks).items():
        found[place].append(bound)
    return found


def _why(task: Task, waits: list[int], of_job: list[Why]) -> list[Why]:
    if task.status in OVER:
        return []
    if task.status == "review":
        if task.reason == ASKS:
            return [Why(ASKS, f"It asks: {task.last_error}"), Why("review", f"Send it back with the answer: POST /api/tasks/{task.id}/reject")]
        found = [Why("review", "It waits for a person to look at it; set its status to done or todo")]
        return [Why(task.reason, task.last_error or ""), *found] if task.reason else found
    if task.assignee is None:
        return [Why("unassigned", "Nobody is assigned; set an assignee")]
    if task.status == "todo" and task.job_id is None and not waits:  # an agent's work is in its queue
        return [Why("person", f"{task.assignee} is to do it: it is in no agent's queue")]
    found = [Why("waits_for_task", f"Waits for task {id}") for id in waits] if task.status != "in_progress" else []
    if task.status == "blocked":
        return [*found, Why("blocked", f"It is blocked: {task.last_error or 'no reason given'}; set its status to todo to try again")]
    return found + [one for one in of_job if one.code != "held"] if found else of_job
