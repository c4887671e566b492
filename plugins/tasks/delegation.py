"""Delegation: an agent that may gives parts of the task it works on to other agents, and goes on with what came of them.

Owns nothing; writes `tasks` and `task_links` as the face does. A task waits for its subtasks: whatever its attempt came to, it is
done only in one that began with their results, or was told them while it ran. Agents that feed each other are stopped by two bounds, on
how deep a task stands below the one that people gave, and on how many there are below that one.
Surprise: what an agent makes for itself while it works stands where its work stands, so that no bound is escaped that way. And who was
told what is kept in memory alone: a server that was started anew has an attempt made once more, which is better than a result nobody saw.
"""
from collections import OrderedDict
from collections.abc import Sequence

from orkosi import Denied, Struct, Unprocessable, acting, current, db, now, settings, system
from plugins.fields import wrong
from plugins.queue import Job, Why

from . import COLUMNS, OVER, NewTask, Subtask, Task, links, plugin
from .assignees import is_an_agent
from .jobs import _follow

plugin.setting("delegation_depth", int, 5, "How deep below a task agents may delegate parts of it")
plugin.setting("delegation_tasks", int, 50, "How many tasks agents may make below one task, all told")

SCOPE = "agents:delegate"
SHOWN = 2000  # characters of a subtask's result that are shown with the task above it


class Bound(Unprocessable):
    """Agents delegate no further here: the task stands too deep, or too many were made below the first one."""
    code = "delegation_bound"


class Place(Struct, frozen=True):
    """Where a task stands: below which one, below which first one, how deep."""
    parent_id: int | None = None
    root_id: int | None = None
    depth: int = 0


TOP = Place()


# ── where a new task stands ──


def place(new: NewTask, assignee: str | None) -> Place:
    """Where a task that is being made stands. Denied, Invalid, or Bound, where an agent may not give it to `assignee`."""
    me = current()
    if me.kind != "agent":
        return TOP if new.parent_id is None else _below(_parent(new.parent_id))
    if new.parent_id is None and assignee == me.name:
        work = held_by(me.name)
        return Place(None, work.root_id, work.depth) if work else TOP
    if assignee != me.name:
        _may_delegate(assignee)
    parent = held_by(me.name) if new.parent_id is None else _parent(new.parent_id)
    if parent is None:
        raise Unprocessable(f"Agent {me.name} works on nothing of which this could be a part; claim a task, then delegate from it")
    found = _below(parent)
    if found.depth > settings.delegation_depth:
        raise Bound(f"Task {parent.id} stands {parent.depth} below task {found.root_id}, as deep as agents may delegate (delegation_depth)")
    if (made := _made_below([found.root_id])[found.root_id]) >= settings.delegation_tasks:
        raise Bound(f"There are {made} tasks below task {found.root_id}, and agents make no more (delegation_tasks)")
    return found


def _may_delegate(assignee: str | None) -> None:
    me = current()
    if SCOPE not in (me.scopes or ()):
        raise Denied(f"assignee: The key of agent {me.name} makes tasks for itself alone; send \"assignee\": \"{me.name}\", "
                     f"or let it delegate: PATCH /api/agents/{me.name} {{\"delegates\": true}}")
    if assignee is None or not is_an_agent(assignee):
        raise wrong("assignee", "An agent delegates to agents, and there is none of that name")


def held_by(agent: str) -> Task | None:
    """The task that an agent holds, the one it claimed last where it holds several."""
    return db.one(Task, f"""
        SELECT {COLUMNS} FROM jobs JOIN tasks ON tasks.job_id = jobs.id AND tasks.tenant_id = :tenant
         WHERE jobs.tenant_id = :tenant AND jobs.state = 'active' AND jobs.lease_expires_at > ''
           AND jobs.queue = :queue ORDER BY jobs.claimed_at DESC, jobs.id DESC LIMIT 1""",
        queue=f"agent:{agent}")


def _parent(id: int) -> Task:
    """An open task of one's own that another may stand below. Invalid."""
    me = current()
    found = db.one(Task, f"SELECT {COLUMNS} FROM tasks WHERE id = :id AND tenant_id = :tenant", id=id)
    if found is None or (me.kind == "agent" and found.assignee != me.name):
        raise wrong("parent_id", f"There is no task {id}")
    if found.status in ("done", "archived"):
        raise wrong("parent_id", f"Task {id} is {found.status}; nothing more can be a part of it")
    return found


def _below(parent: Task) -> Place:
    return Place(parent.id, parent.root_id or parent.id, parent.depth + 1)


def _made_below(roots: list[int | None]) -> dict[int | None, int]:
    """How many tasks stand below each of these first ones."""
    count = "SELECT count(*) FROM tasks WHERE root_id = :root AND depth > 0 AND tenant_id = :tenant"
    return {root: db.value(count, root=root) or 0 for root in set(roots)}


# ── a task and its subtasks ──


def put_below(task: Task) -> None:
    """Inside a write: have the task above wait for this one. Invalid where this one waits for that."""
    parent = _parent(task.parent_id or 0)
    links.refuse_circle(parent.id, [task.id])
    db.run("INSERT INTO task_links (tenant_id, task_id, blocked_by) VALUES (:tenant, :parent, :child)", parent=parent.id, child=task.id)
    if parent.status == "todo":
        _follow(parent)


def subtasks(id: int) -> list[Subtask]:
    """What was given away of a task, and what came of it."""
    return db.all(Subtask, f"""
        SELECT id, title, assignee, status, substr(resolution, 1, {SHOWN}) AS resolution, substr(last_error, 1, {SHOWN}) AS last_error
          FROM tasks WHERE parent_id = :id AND tenant_id = :tenant ORDER BY id LIMIT 200""", id=id)


def still_open(found: list[Subtask]) -> int:
    """How many of these are not over yet."""
    return sum(one.status not in OVER for one in found)


_told: OrderedDict[tuple[int | None, str, int], str] = OrderedDict()  # (tenant, agent, part that is over) → when it was told so
MOST_TOLD = 10_000


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Another data folder has its own tasks."""
    _told.clear()


def tell(parts: Sequence[Subtask | Task]) -> None:
    """An agent is told of these parts: of those that are over, it knows what came of them."""
    me = current()
    for part in parts if me.kind == "agent" else ():
        if part.status in OVER:
            _told[me.tenant, me.name, part.id] = now()
    while len(_told) > MOST_TOLD:
        _told.popitem(last=False)


def waits_for_parts(task: Task, job: Job) -> bool:
    """Whether a part of a task is not over yet, or was over only while its agent was at it, in `job`, and the agent was not told so.

    What an agent ended of its own by hand, it knows.
    """
    for id, status, ended in db.all(tuple, """
            SELECT tasks.id, status, tasks.finished_at FROM tasks LEFT JOIN jobs ON jobs.id = tasks.job_id AND jobs.tenant_id = :tenant
             WHERE parent_id = :id AND tasks.tenant_id = :tenant AND (status NOT IN ('done', 'archived') OR (
                   tasks.finished_at > :since AND (assignee IS DISTINCT FROM :mine OR jobs.state = 'completed')))""",
            id=task.id, since=job.claimed_at, mine=task.assignee):
        if status not in OVER or ended > _told.get((current().tenant, task.assignee or "", id), ""):
            return True
    return False


def gave_away(task: Task) -> bool:
    """Whether a task is a part of one of whoever asks."""
    return task.parent_id is not None and db.value("SELECT 1 FROM tasks WHERE id = :id AND tenant_id = :tenant AND assignee = :me",
                                                   id=task.parent_id, me=current().name) is not None


def archive_parts(id: int) -> None:
    """Inside a write: with a task, the open parts of it are archived, whoever is at them."""
    from . import TaskPatch, change
    with acting(system(current().tenant)):
        for part, in db.all(tuple, """SELECT id FROM tasks WHERE parent_id = :id AND tenant_id = :tenant
                                         AND status NOT IN ('done', 'archived') ORDER BY id""", id=id):
            change(part, TaskPatch(status="archived"))


def let_parts_go(id: int) -> None:
    """Inside a write: the parts of a task that is deleted stand alone."""
    db.run("UPDATE tasks SET parent_id = NULL WHERE parent_id = :id AND tenant_id = :tenant", id=id)


# ── why ──


def bounds(tasks: list[Task]) -> dict[int, Why]:
    """Of those tasks that are blocked, by their places, the ones whose agents may give nothing away any more, and why."""
    stuck = [(at, task) for at, task in enumerate(tasks) if task.depth and task.status == "blocked"]
    made = _made_below([task.root_id for _, task in stuck])
    return {at: why for at, task in stuck if (why := _bound(task, made[task.root_id]))}


def _bound(task: Task, made: int) -> Why | None:
    if task.depth >= settings.delegation_depth:
        return Why("delegation_bound", f"It stands {task.depth} below task {task.root_id}, as deep as agents may delegate (delegation_depth): "
                                       "what its agent cannot do, it gives to nobody")
    if made >= settings.delegation_tasks:
        return Why("delegation_bound", f"There are {made} tasks below task {task.root_id}, and agents make no more (delegation_tasks): "
                                       "what its agent cannot do, it gives to nobody")
    return None
