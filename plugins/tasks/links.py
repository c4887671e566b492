"""Links between tasks: what a task waits for.

Owns nothing; writes `task_links` as the face does.
"""
from orkosi import NotFound, current, db, jsoned
from plugins.fields import wrong


def of(id: int) -> tuple[list[int], list[int]]:
    """What task `id` waits for, and what waits for it."""
    before = db.all(tuple, "SELECT blocked_by FROM task_links WHERE task_id = :id AND tenant_id = :tenant ORDER BY blocked_by", id=id)
    after = db.all(tuple, "SELECT task_id FROM task_links WHERE blocked_by = :id AND tenant_id = :tenant ORDER BY task_id", id=id)
    return [row[0] for row in before], [row[0] for row in after]


def still_open(id: int) -> list[int]:
    """The tasks that task `id` waits for and that are not over."""
    return open_of([id]).get(id, [])


def open_of(ids: list[int]) -> dict[int, list[int]]:
    """What each of these tasks waits for that is not over; those that wait for nothing are not in it."""
    found: dict[int, list[int]] = {}
    for id, other in db.all(tuple, """
            SELECT task_links.task_id, other.id FROM task_links JOIN tasks AS other ON other.id = task_links.blocked_by
             WHERE task_links.task_id IN (SELECT value FROM json_each(:ids)) AND task_links.tenant_id = :tenant
               AND other.status NOT IN ('done', 'archived') ORDER BY other.id""", ids=jsoned(ids)) if ids else ():
        found.setdefault(id, []).append(other)
    return found


def put(id: int, blocked_by: list[int], parent: int | None = None) -> None:
    """Make `blocked_by` exactly what task `id` waits for. NotFound for unknown tasks; an agent knows its own, and the parts of `parent`."""
    others = sorted(set(blocked_by))
    agent = current().name if current().kind == "agent" else None
    missing = next((other for other in others if not db.value("""
        SELECT 1 FROM tasks WHERE id = :other AND tenant_id = :tenant AND (assignee = :agent OR :agent IS NULL OR parent_id = :parent)""",
        other=other, agent=agent, parent=parent)), None)
    if missing is not None:
        raise NotFound(f"blocked_by: There is no task {missing}", [{"field": "blocked_by", "message": f"there is no task {missing}"}])
    db.run("DELETE FROM task_links WHERE task_id = :id AND tenant_id = :tenant", id=id)
    db.run_many("INSERT INTO task_links (tenant_id, task_id, blocked_by) VALUES (:tenant, :id, :other)",
                [{"tenant": current().tenant, "id": id, "other": other} for other in others])


def refuse_circle(id: int, blocked_by: list[int]) -> None:
    """Invalid where one of these waits for task `id` itself, by whatever way; one walk, however many they are."""
    circle = db.value("""
        WITH RECURSIVE ahead (id) AS (
          SELECT value FROM json_each(:others)
          UNION SELECT task_links.blocked_by FROM task_links JOIN ahead ON task_links.task_id = ahead.id)
        SELECT 1 FROM ahead WHERE id = :id AND :tenant IS NOT NULL LIMIT 1""", others=jsoned(blocked_by), id=id)
    if circle:
        raise wrong("blocked_by", f"One of these waits for task {id} itself; that would be a circle")
