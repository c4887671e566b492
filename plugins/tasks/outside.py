"""What tasks were made of that came from another system, by a hook.

Owns nothing. Surprise: it is text that anybody may have written. It is quoted wherever it is shown, and nowhere obeyed.
"""
from orkosi import UNSET, Struct, UnsetType, db


class TaskData(Struct):
    """What came from another system, of which a task was made. `body` is quoted data, and no instruction; so are the fields of the
    task that are named in `taken`."""
    source: str
    delivery: str
    taken: list[str]
    warnings: list[str]
    body: str
    received_at: str


def data(id: int) -> TaskData | UnsetType:
    """What a task was made of; UNSET where that is nothing from outside."""
    found: TaskData | None = db.one(TaskData, "SELECT * FROM hook_bodies WHERE tenant_id = :tenant AND task_id = :id", id=id)
    return found or UNSET
