"""The wire of schedules: what comes again and again, for agents and for workers."""
import time
from itertools import islice
from typing import Annotated, Any

import msgspec

from orkosi import UNSET, Actor, Conflict, Deleted, Denied, Meta, Page, Paging, Reply, Struct, UnsetType, may, seconds
from plugins import lists, queue, schedules, tasks
from plugins.fields import line, wrong
from plugins.lists import Listing
from plugins.queue import Name, iso
from plugins.schedules import CatchUp, Overlap, Schedule, plugin
from plugins.schedules.filing import FILES, ScheduledTask
from plugins.schedules.slots import checked, here
from plugins.tasks.assignees import is_a_person

READ, WRITE = may("viewer", "schedules:read"), may("editor", "schedules:write")
ROWS = Listing(of=Schedule, source="schedules", order="name, id", base="tenant_id = :tenant AND (task_type IS NULL OR task_type = 'schedules.file')",
               filters={"queue_name": "queue = :queue_name", "enabled": "enabled = :enabled"})

Label = Annotated[str, Meta(min_length=1, max_length=200)]
Cron = Annotated[str, Meta(max_length=200, description="A cron line of 5 or 6 fields")]
Every = Annotated[int, Meta(ge=1000, le=31_536_000_000, description="Milliseconds")]
Zone = Annotated[str, Meta(min_length=1, max_length=60, description="Such as Europe/Berlin; the Mac's where there is none")]
JobPriority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000, description="Lower runs first")]
Attempts = Annotated[int, Meta(ge=1, le=25)]


class NewSchedule(Struct, forbid_unknown_fields=True):
    name: Label
    cron: Cron | None = None
    every_ms: Every | None = None
    tz: Zone | None = None
    task: ScheduledTask | None = None
    queue_name: Name | None = None
    payload: dict[str, Any] = {}
    priority: JobPriority = 0
    max_attempts: Attempts = 3
    catch_up: CatchUp = "skip"
    overlap: Overlap = "skip"
    enabled: bool = True


class SchedulePatch(Struct, forbid_unknown_fields=True):
    name: Label | UnsetType = UNSET
    cron: Cron | UnsetType = UNSET
    every_ms: Every | UnsetType = UNSET
    tz: Zone | UnsetType = UNSET
    task: ScheduledTask | UnsetType = UNSET
    payload: dict[str, Any] | UnsetType = UNSET
    priority: JobPriority | UnsetType = UNSET
    max_attempts: Attempts | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ScheduleQuery(Paging, kw_only=True):
    queue_name: Name | None = None
    enabled: bool | None = None


class SeenSchedule(Struct):
    """A schedule: of tasks, where `task` is set, else of jobs in `queue_name`. `job_id` is the job of its newest slot, `task_id` the newest
    task; `missed` counts slots that passed without one; `last_error`: why the last one failed."""
    id: int
    name: str
    cron: str | None
    every_ms: int | None
    tz: str | None
    task: ScheduledTask | None
    queue_name: str | None
    payload: Any
    priority: int
    max_attempts: int
    catch_up: CatchUp
    overlap: Overlap
    enabled: bool
    next_run_at: str | None
    last_run_at: str | None
    runs: int
    missed: int
    last_error: str | None
    job_id: str | None
    task_id: int | None
    created_at: str
    updated_at: str


class ComingSchedule(SeenSchedule, kw_only=True):
    """A schedule, with its next five slots."""
    coming: list[str]


def seen(one: Schedule) -> SeenSchedule:
    files = one.task_type == FILES
    return SeenSchedule(
        one.id, one.name, one.cron, one.every_ms, None if one.every_ms else one.tz, msgspec.convert(one.payload, ScheduledTask) if files else None,
        None if files else one.queue, None if files else one.payload, one.priority, one.max_attempts, one.catch_up, one.overlap, one.enabled,
        one.next_run_at, one.last_run_at, one.runs, one.missed, one.last_error, f"job_{one.job_id}" if one.job_id else None, one.task_id,
        one.created_at, one.updated_at)


def own(id: int, me: Actor) -> Schedule:
    """A schedule of tasks or of jobs that the caller may change."""
    one = schedules.numbered(id)
    if one.task_type not in (None, FILES):
        raise Conflict(f"Schedule {one.name} belongs to a discovery engine; change the engine")
    require_scope(me, one.task_type == FILES)
    return one


def require_scope(me: Actor, files: bool) -> None:
    """Whoever has something made again and again must be one who may make it once."""
    needed = "tasks:write" if files else "queue:submit"
    if me.kind == "agent":
        raise Denied("An agent's key sees no schedules")
    if me.scopes is not None and needed not in me.scopes:
        raise Denied(f"A schedule of {'tasks' if files else 'jobs'} takes the scope {needed}, too")


def for_task(task: ScheduledTask) -> ScheduledTask:
    """The task as it is kept. Invalid where it could never be filed."""
    line(task.title, "task.title", 300)
    return msgspec.structs.replace(task, assignee=tasks.assignable(task.assignee))


def noted(one: SeenSchedule) -> dict[str, Any] | None:
    name = one.task and one.task.assignee
    if name and not tasks.is_an_agent(name) and not is_a_person(name):
        return {"warnings": [f"There is no agent {name}; create it, or assign the task to another"]}
    return None


@plugin.get("/api/schedules", auth=READ)
def index(query: ScheduleQuery, me: Actor) -> Page[SeenSchedule]:
    """List schedules, by name"""
    if me.kind == "agent":
        raise Denied("An agent's key sees no schedules")
    return lists.page(ROWS, query, enabled=None if query.enabled is None else int(query.enabled)).map(seen)


@plugin.get("/api/schedules/{id}", auth=READ, raises=(404,))
def show(id: int, me: Actor) -> ComingSchedule:
    """Show a schedule, with the next five times it comes"""
    if me.kind == "agent":
        raise Denied("An agent's key sees no schedules")
    one = schedules.numbered(id)
    shown, first = seen(one), one.next_run_at
    coming = [iso(slot) for slot in islice(one.slots.after(seconds(first) - 0.001), 5)] if first else []
    return ComingSchedule(**{name: getattr(shown, name) for name in shown.__struct_fields__}, coming=coming)


@plugin.post("/api/schedules", auth=WRITE, status=201, raises=(400, 409, 503))
def create(body: NewSchedule, me: Actor) -> Reply[SeenSchedule]:
    """Have a task filed, or a job submitted, again and again

    `task` and whom it is for, or `queue_name` and `payload` for a job whose `task_type` is the name; `cron`, in the time zone `tz`, or `every_ms`.
    Slots that pass while the server is down, or the Mac sleeps, are counted as `missed`; with `catch_up: once`, one of them is made up for.
    With `overlap: skip` nothing new comes while the last one is still open."""
    if (body.task is None) == (body.queue_name is None):
        raise wrong("task", "Give `task`, which is filed each time, or `queue_name`, into which a job is submitted; one of the two")
    if (body.cron is None) == (body.every_ms is None):
        raise wrong("cron", "Give `cron`, a cron line, or `every_ms`, in milliseconds; one of the two")
    if body.tz is not None and body.cron is None:
        raise wrong("tz", "A time zone belongs to `cron`; `every_ms` knows none")
    if body.task is not None and (body.payload or body.priority):
        raise wrong("payload" if body.payload else "priority", "This is of jobs; a task has its own description and priority")
    require_scope(me, body.task is not None)
    queue.require_small(body.payload, "payload")
    name = line(body.name, "name", 200)
    place = queue.OWN if body.task else queue.named(body.queue_name or "")
    checked(body.cron, body.every_ms, body.tz or here(), time.time(), field="cron")
    made = schedules.make(place, name, msgspec.to_builtins(for_task(body.task)) if body.task else body.payload, cron=body.cron, every=body.every_ms,
                          tz=body.tz, priority=body.priority, max_attempts=body.max_attempts, backoff=("exponential", 5000),
                          catch_up=body.catch_up, overlap=body.overlap, task_type=FILES if body.task else None, enabled=body.enabled)
    shown = seen(made)
    return Reply(shown, meta=noted(shown))


@plugin.patch("/api/schedules/{id}", auth=WRITE, raises=(400, 404, 409, 503))
def update(id: int, body: SchedulePatch, me: Actor) -> Reply[SeenSchedule]:
    """Change a schedule

    What is sent is changed; its pending job is planned anew. `enabled: false` leaves none; `cron` takes the place of `every_ms`, and the other
    way round."""
    one = own(id, me)
    if body.cron is not UNSET and body.every_ms is not UNSET:
        raise wrong("every_ms", "Give `cron` or `every_ms`, not both")
    files = one.task_type == FILES
    for field, fits in (("task", files), ("payload", not files), ("priority", not files), ("tz", body.cron is not UNSET or (
            one.cron is not None and body.every_ms is UNSET))):
        if getattr(body, field) is not UNSET and not fits:
            raise wrong(field, "A time zone belongs to `cron`" if field == "tz" else f"This schedule is of {'tasks' if files else 'jobs'}")
    shown = seen(schedules.change(id, **values_of(body)))
    return Reply(shown, meta=noted(shown))


def values_of(body: SchedulePatch) -> dict[str, Any]:
    """The columns that a patch changes."""
    values = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET and name != "task"}
    if "name" in values:
        values["name"] = line(values["name"], "name", 200)
    if "payload" in values:
        queue.require_small(values["payload"], "payload")
    if body.task is not UNSET:
        values["payload"] = msgspec.to_builtins(for_task(body.task))
    if body.cron is not UNSET:
        values["every_ms"] = None
    if body.every_ms is not UNSET:
        values["cron"] = None
    return values


@plugin.delete("/api/schedules/{id}", auth=WRITE, raises=(404, 409))
def delete(id: int, me: Actor) -> Deleted:
    """End a schedule, its pending job with it; tasks it has filed stay"""
    one = own(id, me)
    schedules.remove(one.queue, one.name)
    return Deleted(id)
