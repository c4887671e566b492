"""Tasks: what is to be done, by whom, and what became of it.

Owns tasks and task_links. A task with an assignee has a job in that agent's queue, submitted in
the same transaction; from then on the queue moves it, and this file follows by listening.
Surprise: nobody sets `in_progress` by hand in the main job. A claim does, a completion makes it
`done`, a failed attempt `todo` again, the last one `blocked`.
"""
import re
from typing import Annotated, Any, Literal

import msgspec

from orkosi import UNSET, Denied, Hit, Meta, NotFound, Page, Paging, Plugin, Struct, UnsetType, acting, current, db, emit, now, system, writes
from plugins import fields, lists, queue
from plugins.fields import terms, wrong
from plugins.lists import Listing
from plugins.queue import Why
from plugins.tenants import shares

from . import links
from .outside import TaskData

plugin = Plugin("Tasks", layer="domain", needs=("files",))
plugin.setting("limit_task_create", str, "300/minute", "Tasks that one principal may create")

Status = Literal["todo", "in_progress", "review", "done", "blocked", "archived"]
Priority = Literal["P0", "P1", "P2", "P3"]
Type = Literal["feature", "bug", "research", "ops", "infra", "content", "other"]
OVER = ("done", "archived")
ASKS = "question"  # the reason of a task in review that waits for a person's answer; the question is its last_error
SAME = {"duplicate": True, "message": "There is an open task like this one, which is answered instead; send \"dedupe\": false to make another"}
RANK = {"P0": 0, "P1": 1, "P2": 2, "P3": 3}  # the job's priority: lower runs first
LEASE, ATTEMPTS = 300, 3


Title = Annotated[str, Meta(min_length=1, max_length=300)]
Body = Annotated[str, Meta(max_length=65536)]
Line = Annotated[str, Meta(min_length=1, max_length=500)]
Day = Annotated[str, Meta(pattern=r"\A\d{4}-\d{2}-\d{2}(T[0-9:.]+(Z|[+-]\d\d:\d\d)?)?\Z", description="ISO date")]
Minutes = Annotated[int, Meta(ge=0, le=10_000_000)]
Length = Annotated[int, Meta(ge=1, le=7 * 86400, description="Seconds one attempt may take")]
Ids = Annotated[list[Annotated[int, Meta(ge=1, le=2**53)]], Meta(max_length=100)]


class NewTask(Struct, forbid_unknown_fields=True):
    """A task to create."""
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
    parent_id: Annotated[int, Meta(ge=1, le=2**53, description="The task that this one is a part of, which then waits for it")] | None = None
    dedupe: Annotated[bool, Meta(description="false: make one even where an open task is the same")] = True


class TaskQuery(Paging):
    """What a list of tasks may be narrowed by; `next` asks for the one task to take now."""
    status: list[Status] = []
    q: str | None = None
    assignee: str | None = None
    next: bool = False
    product: str | None = None
    priority: list[Priority] = []
    type: Type | None = None


class TaskPatch(Struct, forbid_unknown_fields=True):
    """A change to a task: what is set, is changed."""
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
    note: Annotated[str, Meta(max_length=4000, description="What to know when doing it next, e.g. why it is sent back")] | None | UnsetType = UNSET
    blocked_by: Ids | None | UnsetType = UNSET


class Subtask(Struct):
    """A part of a task that was given to somebody. `resolution` is its beginning, where it is long; GET /tasks/{id} has it whole."""
    id: int
    title: str
    assignee: str | None
    status: str
    resolution: str | None
    last_error: str | None


class Task(Struct):
    """A task as it is shown."""
    id: int
    title: str
    description: str
    type: Type
    status: Status
    priority: Priority
    assignee: str | None
    product_slug: str | None
    product: str | None
    category: str | None
    tags: str | None
    estimated_minutes: int | None
    due_date: str | None
    max_duration_seconds: int
    resolution: str | None
    last_error: str | None
    reason: str | None
    note: str | None
    job_id: str | None
    parent_id: int | None
    root_id: int | None
    depth: int
    created_by: str
    created_at: str
    updated_at: str
    finished_at: str | None
    blocked_by: list[int] | None = None
    blocks: list[int] | None = None
    why: list[Why] | None = None
    subtasks: list[Subtask] | UnsetType = UNSET
    data: TaskData | UnsetType = UNSET


# By name, and as the fields stand: to read a column that nobody sees costs as much as one that is shown.
COLUMNS = """
    tasks.id, tasks.title, tasks.description, tasks.type, tasks.status, tasks.priority, tasks.assignee, tasks.product_slug,
    tasks.product_slug AS product, tasks.category, tasks.tags, tasks.estimated_minutes, tasks.due_date, tasks.max_duration_seconds,
    tasks.resolution, tasks.last_error, tasks.reason, tasks.note, CASE WHEN tasks.job_id IS NOT NULL THEN 'job_' || tasks.job_id END AS job_id,
    tasks.parent_id, tasks.root_id, tasks.depth, tasks.created_by, tasks.created_at, tasks.updated_at, tasks.finished_at"""
# Most tasks have no links, and to see that costs half of making an empty list. They come in the order of the indexes.
LINKED = COLUMNS + """,
    CASE WHEN EXISTS (SELECT 1 FROM task_links WHERE task_id = tasks.id)
         THEN (SELECT json_group_array(blocked_by) FROM task_links WHERE task_id = tasks.id) END AS blocked_by,
    CASE WHEN EXISTS (SELECT 1 FROM task_links WHERE blocked_by = tasks.id)
         THEN (SELECT json_group_array(task_id) FROM task_links WHERE blocked_by = tasks.id) END AS blocks"""
HEAVY = "octet_length(tasks.description) + ifnull(octet_length(tasks.resolution), 0) + ifnull(octet_length(tasks.last_error), 0)"
TASKS = Listing(of=Task, columns=LINKED, source="tasks", heavy=HEAVY, light=20, filters={
    "status": "status = :status", "assignee": "assignee = :assignee", "product": "product_slug = :product",
    "priority": "priority = :priority", "type": "+type = :type"})
# Where few tasks have a status, they are walked: not all that an agent ever did, in search of the two under review.
RARE = msgspec.structs.replace(TASKS, filters={name: predicate if name == "status" else "+" + predicate.removeprefix("+")
                                               for name, predicate in TASKS.filters.items()})
FEW = 2000
FOUND = Listing(of=Task, columns=LINKED, heavy=HEAVY, light=20, source="tasks_fts CROSS JOIN tasks ON tasks.id = tasks_fts.rowid",
                base="tasks_fts MATCH :terms AND tenant_id = :tenant", filters={
                    name: predicate.replace("+", "") for name, predicate in TASKS.filters.items()},
                order="tasks_fts.rowid DESC")
# What an assignee should take next: todo, waiting for nothing, highest priority, oldest.
NEXT = Listing(of=Task, columns=LINKED, source="tasks", order="priority, id", base="""tenant_id = :tenant AND assignee = :assignee
               AND status = 'todo' AND NOT EXISTS (SELECT 1 FROM task_links JOIN tasks AS other ON other.id = task_links.blocked_by
                                                    WHERE task_links.task_id = tasks.id AND other.status NOT IN ('done', 'archived'))""",
               filters={"product": "+product_slug = :product", "priority": "+priority = :priority", "type": "+type = :type",
                        "terms": "+tasks.id IN (SELECT rowid FROM tasks_fts WHERE tasks_fts MATCH :terms)"})


ADD = """
    INSERT INTO tasks (tenant_id, title, title_key, description, type, status, priority, assignee, product_slug, category, tags,
                       estimated_minutes, due_date, max_duration_seconds, parent_id, root_id, depth, created_by, created_at, updated_at, finished_at)
    VALUES (:tenant, :title, :title_key, :description, :type, :status, :priority, :assignee, :product_slug, :category, :tags,
            :estimated_minutes, :due_date, :max_duration_seconds, :parent_id, :root_id, :depth, :created_by, :created_at, :updated_at,
            :finished_at)"""


# ── reading ──


def find(id: int) -> Task:
    """One task of this tenant that whoever asks may see, with what it waits for and what waits for it. NotFound."""
    task = _row(id)
    if not (task.parent_id and delegation.gave_away(task)):
        _own(task)
    task.blocked_by, task.blocks = links.of(id)
    return task


def _row(id: int) -> Task:
    """A task without its links, which take two more questions."""
    task = db.one(Task, f"SELECT {COLUMNS} FROM tasks WHERE id = :id AND tenant_id = :tenant", id=id)
    if task is None:
        raise NotFound(f"There is no task {id}")
    return task


def page(query: TaskQuery) -> Page[Task]:
    """Tasks, newest first; with `q`, those whose title or description has every term. An agent's key sees the agent's own."""
    me = current()
    asked = spelled(query.assignee)
    assignee = me.name if me.kind == "agent" else asked
    if asked not in (None, assignee):
        return Page.empty(query)
    if query.next:
        return _following(assignee, query)
    if query.q is None:
        return _linked(lists.page(RARE if _rare(query.status) else TASKS, query, assignee=assignee))
    words = terms(query.q)
    return Page.empty(query) if words is None else _linked(lists.page(FOUND, query, terms=words, assignee=assignee))


def _rare(status: list[Status]) -> bool:
    many = "SELECT sum(n) FROM task_sums WHERE tenant_id = :tenant AND status = :status"
    return len(status) == 1 and (db.value(many, status=status[0]) or 0) <= FEW


def _linked(found: Page[Task]) -> Page[Task]:
    for task in found.items:
        task.blocked_by, task.blocks = task.blocked_by or [], task.blocks or []
    for task, said in zip(found.items, whys(found.items), strict=True):
        task.why = said
    return found


def _following(assignee: str | None, query: TaskQuery) -> Page[Task]:
    """The one task that `assignee` should take next, of those that the other filters fit."""
    if assignee is None:
        raise wrong("assignee", "next=true needs to know whose")
    words = None if query.q is None else terms(query.q)
    if (query.q is not None and words is None) or (query.status and "todo" not in query.status) or query.offset:
        return Page.empty(query)
    found = _linked(lists.page(NEXT, Paging(limit=1), assignee=assignee, terms=words, product=query.product, priority=query.priority,
                               type=query.type))
    return Page(found.items, len(found.items), query.limit, query.offset)


def warnings(task: Task) -> list[str]:
    """What a person who just made or changed a task should know of whom it is assigned to, and of its product."""
    known = task.product_slug is None or of_product.is_one(task.product_slug)
    said = [] if known else [f"There is no product {task.product_slug}; create it, or correct the slug"]
    if task.job_id is None:
        return said
    about = next(iter(queue.explained(queue.of_ids([queue.id_of(task.job_id)]))), [])
    return said + [one.sentence for one in about if one.code in ("agent_unknown", "agent_brainless", "agent_offline")]


# ── writing ──


@writes
def create(new: NewTask) -> tuple[Task, bool]:
    """Create a task and, where it has an assignee, its job; the task, and whether it was there already.

    Two open tasks are the same with the same title, product and assignee, and with no other description: the first is
    returned. `dedupe=False` makes one anyway.
    """
    title, assignee = fields.line(new.title, "title", 300), assignable(new.assignee)
    if new.due_date:
        fields.instant(new.due_date, "due_date")
    at = delegation.place(new, assignee)
    if new.dedupe and new.status not in OVER and (same := _the_same(fields.folded(title), assignee, new, at.parent_id)):
        return find(same), True
    shares.require(rows=1, bytes=len(new.description.encode()))
    made = now()
    row: dict[str, Any] = {name: getattr(new, name) for name in new.__struct_fields__ if name not in ("blocked_by", "dedupe")}
    row |= {"title": title, "assignee": assignee, "parent_id": at.parent_id, "root_id": at.root_id, "depth": at.depth}
    row |= {"created_by": current().ref, "created_at": made, "updated_at": made, "finished_at": made if new.status in OVER else None}
    # The row is known: reading it again would cost more than writing it.
    task = Task(id=db.add(ADD, title_key=fields.folded(title), **row) or 0, product=new.product_slug, job_id=None, resolution=None, last_error=None,
                reason=None, note=None, blocked_by=sorted(set(new.blocked_by)), blocks=[], **row)
    if task.blocked_by:
        links.put(task.id, task.blocked_by, at.parent_id)  # nothing can wait for what was not there: no circle
    if at.parent_id:
        delegation.put_below(task)
    if assignee:
        _follow(task, new=True)
    emit("task.created", task)
    return task, False


@writes
def change(id: int, patch: TaskPatch) -> Task:
    """Change a task; its job follows. NotFound."""
    before = _row(id)
    _own(before)
    values = {name: value for name in patch.__struct_fields__
              if (value := getattr(patch, name)) is not UNSET and name != "blocked_by"}
    if "title" in values:
        values["title"] = fields.line(values["title"], "title", 300)
        values["title_key"] = fields.folded(values["title"])
    if "assignee" in values:
        values["assignee"] = assignable(values["assignee"])
        _for_oneself(values["assignee"])
    if values.get("due_date"):
        fields.instant(values["due_date"], "due_date")
    shares.require(bytes=sum(len((values[name] or "").encode()) - len((getattr(before, name) or "").encode())
                             for name in ("description", "resolution") if name in values))
    status = values.get("status", before.status)
    if status in OVER and before.status not in OVER:
        values["finished_at"] = now()
    elif status not in OVER and before.status in OVER:
        values["finished_at"] = None
    if status == "in_progress" and "status" not in values and values.get("assignee", before.assignee) != before.assignee:
        values["status"] = status = "todo"
    if status != before.status:
        values["reason"] = None
    db.patch(dict, "tasks", id, **values)
    if patch.blocked_by is not UNSET:
        links.refuse_circle(id, patch.blocked_by or [])
        links.put(id, patch.blocked_by or [])
    again = status == "todo" and (before.status == "blocked" or before.reason == ASKS)  # whoever asked may still be at it, without the answer
    if values.get("assignee", before.assignee) != before.assignee or again:
        _drop_job(before)
    task = find(id)
    _follow(task)
    _tell(before, task)
    return task


def _the_same(key: str, assignee: str | None, new: NewTask, parent: int | None) -> int | None:
    return db.value("""
        SELECT id FROM tasks WHERE tenant_id = :tenant AND title_key = :key AND status IN ('todo', 'in_progress', 'review', 'blocked')
           AND coalesce(product_slug, '') = coalesce(:product, '') AND coalesce(assignee, '') = coalesce(:assignee, '')
           AND (description = :description OR :description = '') AND parent_id IS NOT DISTINCT FROM :parent ORDER BY id LIMIT 1""",
        parent=parent, key=key, product=new.product_slug, assignee=assignee, description=new.description)


def _own(task: Task) -> None:
    """To an agent's key, the tasks of others are not there."""
    if current().kind == "agent" and task.assignee != current().name:
        raise NotFound(f"There is no task {task.id}")


def _for_oneself(assignee: str | None) -> None:
    """An agent gives none of its work away; a part of it, it may delegate."""
    me = current()
    if me.kind == "agent" and assignee != me.name:
        raise Denied(f"assignee: The key of agent {me.name} gives no task of its own to others; send \"assignee\": \"{me.name}\"")


def _tell(before: Task, task: Task) -> None:
    """One event for what happened to a task: its most important change."""
    if task.status == "done" and before.status != "done":
        _let_go(task.id)
        emit("task.done", task)
    elif task.status == "archived" and before.status != "archived":
        delegation.archive_parts(task.id)
        _let_go(task.id)
        emit("task.archived", task)
    elif task.status != before.status:
        emit({"in_progress": "task.started", "blocked": "task.blocked", "review": "task.review"}.get(task.status, "task.reopened"), task)
    else:
        emit("task.updated", task)


@writes
def delete(id: int) -> None:
    """Delete a task for good, its job and its links with it; those that waited for it go on. NotFound."""
    task = find(id)
    _drop_job(task)
    delegation.let_parts_go(id)
    db.delete("tasks", id)
    for other in task.blocks or ():
        _follow(_row(other))
    emit("task.deleted", task)


# ── when a task is over ──


def _let_go(id: int) -> None:
    """Those that waited for a task that is over may have nothing left to wait for, whoever is to do them."""
    with acting(system(current().tenant)):
        _release(id)


def _release(id: int) -> None:
    for other, in db.all(tuple, "SELECT task_id FROM task_links WHERE blocked_by = :id AND tenant_id = :tenant", id=id):
        _follow(_row(other))


@plugin.search("tasks")
def search(q: str, limit: int) -> list[Hit]:
    """The task of this number, or of this job, and then tasks whose title or description has every term, newest first."""
    agent, words = current().name if current().kind == "agent" else None, terms(q)
    exact = re.fullmatch(r"(#|job_)?(\d{1,18})", q.strip())
    first = db.all(Hit, f"""SELECT id, title, status AS detail FROM tasks WHERE {"job_id" if exact[1] == "job_" else "id"} = :number
                             AND tenant_id = :tenant AND (:agent IS NULL OR assignee = :agent)""", number=int(exact[2]), agent=agent) if exact else []
    return first + [hit for hit in ([] if words is None else db.all(Hit, """
        SELECT tasks.id, tasks.title, status AS detail FROM tasks_fts CROSS JOIN tasks ON tasks.id = tasks_fts.rowid
         WHERE tasks_fts MATCH :words AND tenant_id = :tenant AND (:agent IS NULL OR assignee = :agent)
         ORDER BY tasks_fts.rowid DESC LIMIT :most""", words=words, most=limit, agent=agent)) if hit not in first]


from . import delegation, of_product  # noqa: E402, I001  # last: these use the verbs above
from .assignees import ASSIGNEE as ASSIGNEE, assignable, is_an_agent as is_an_agent, my_name as my_name, spelled  # noqa: E402
from .jobs import _drop_job, _follow  # noqa: E402
from .reasons import why as why, whys  # noqa: E402
