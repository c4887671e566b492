"""Filing: schedules whose slots make tasks, such as "every morning at eight, this for felix".

What is filed stands in the schedule's payload, as it is when the slot comes. Surprise: `overlap` is about the task here, not the job
that files it: with `skip`, a slot that finds the last task still open files none, and counts as missed.
"""
from typing import Annotated, Any

import msgspec

from orkosi import Meta, Struct, across_tenants, db, jsoned, writes
from plugins import tasks
from plugins.tasks import Body, Length, Line, Minutes, NewTask, Priority, Title, Type, assignees

from . import Due, numbered, plugin

FILES = "schedules.file"


class ScheduledTask(Struct, forbid_unknown_fields=True):
    """The task that each slot files."""
    title: Title
    description: Body = ""
    priority: Priority = "P2"
    assignee: Annotated[str, Meta(max_length=100)] | None = None
    product_slug: Line | None = None
    type: Type = "other"
    category: Line | None = None
    tags: Line | None = None
    estimated_minutes: Minutes | None = None
    max_duration_seconds: Length = 3600


@plugin.job(FILES)
@writes
def file(due: Due) -> dict[str, Any]:
    """File the task of one slot; what was filed for it already is not filed again. NotFound where the schedule is gone."""
    one = numbered(due.schedule)
    if one.filed_slot == due.slot:
        return {"task_id": one.task_id}
    if one.overlap == "skip" and one.task_id and _open(one.task_id):
        db.run("UPDATE schedules SET missed = missed + 1, filed_slot = :slot WHERE tenant_id = :tenant AND id = :id", slot=due.slot, id=one.id)
        return {"task_id": None, "still_open": one.task_id}
    wanted = msgspec.convert(one.payload, ScheduledTask)
    task, _ = tasks.create(NewTask(dedupe=False, **{name: getattr(wanted, name) for name in wanted.__struct_fields__}))
    db.run("UPDATE schedules SET task_id = :task, filed_slot = :slot WHERE tenant_id = :tenant AND id = :id", task=task.id, slot=due.slot, id=one.id)
    return {"task_id": task.id}


# ── people ──


@assignees.follows
@across_tenants
def follow(home: int, was: str, name: str | None) -> None:
    """What is made for a person is made for them under another name, and for nobody once they are gone."""
    if db.value("SELECT 1 FROM agents WHERE tenant_id = :home AND name = :was", home=home, was=was):
        return
    for id, payload in db.all(tuple, "SELECT id, payload FROM schedules WHERE tenant_id = :home AND task_type = :files", home=home, files=FILES):
        given = msgspec.json.decode(payload)
        if given.get("assignee") == was:
            db.run("UPDATE schedules SET payload = :payload WHERE id = :id", id=id, payload=jsoned(given | {"assignee": name}))


def _open(id: int) -> bool:
    return db.value("SELECT 1 FROM tasks WHERE tenant_id = :tenant AND id = :id AND status NOT IN ('done', 'archived')", id=id) is not None
