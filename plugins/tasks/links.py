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
    return [row[0] for row in db.all(tuple, """
        SELECT other.id FROM task_links JOIN tasks AS other ON other.id = task_links.blocked_by
         WHERE task_links.task_id = :id AND task_links.tenant_id = :tenant AND other.status NOT IN ('done', 'archived')
         ORDER BY other.id""", id=id)]


def put(id: int, blocked_by: list[int]) -> None:
    """Make `blocked_by` exactly what task `id` waits for. NotFound for unknown tasks."""
    others = jsoned(sorted(set(blocked_by)))
    missing = db.value("""SELECT value FROM json_each(:others) WHERE NOT EXISTS (
                            SELECT 1 FROM tasks WHERE id = value AND tenant_id = :tenant AND (:agent IS NULL OR assignee = :agent))""",
                       others=others, agent=current().name if current().kind == "agent" else None)
    if missing:
        raise NotFound(f"blocked_by: There is no task {missing}", [{"field": "blocked_by", "message": f"there is no task {missing}"}])
    db.run("DELETE FROM task_links WHERE task_id = :id AND tenant_id = :tenant", id=id)
    db.run("INSERT INTO task_links (tenant_id, task_id, blocked_by) SELECT :tenant, :id, value FROM json_each(:others)", id=id, others=others)


def refuse_circle(id: int, blocked_by: list[int]) -> None:
    """Invalid where one of these waits for task `id` itself, by whatever way; one walk, however many they are."""
    circle = db.value("""
        WITH RECURSIVE ahead (id) AS (
          SELECT value FROM json_each(:others)
          UNION SELECT task_links.blocked_by FROM task_links JOIN ahead ON task_links.task_id = ahead.id)
        SELECT 1 FROM ahead WHERE id = :id AND :tenant IS NOT NULL LIMIT 1""", others=jsoned(blocked_by), id=id)
    if circle:
        raise wrong("blocked_by", f"One of these waits for task {id} itself; that would be a circle")
