"""Board: a column a status, the most urgent on top.

Owns no table. Surprise: whoever moves a card may put it where `MOVES` says; what is in progress is decided by a claim alone.
"""
from orkosi import Struct, db

COLUMNS = ("todo", "in_progress", "review", "blocked", "done")
SHOWN = 25
MOVES = {"todo": ("review", "blocked", "done"), "in_progress": ("review", "done"), "review": ("todo", "done"),
         "blocked": ("todo", "done"), "done": ("todo",)}


class Card(Struct):
    """A task on the board; `waits`: for how many others."""
    id: int
    title: str
    status: str
    priority: str
    assignee: str | None
    last_error: str | None
    at: str
    waits: int


def cards(status: str, assignee: str | None, product: str | None) -> list[Card]:
    """The cards of one column: the most urgent, then the newest; of what is done, the last."""
    # Each status, priority by priority, so that an index serves it; only what is done is sorted by when that was.
    narrow = (" AND assignee = :assignee" if assignee else "") + (" AND product_slug = :product" if product else "")
    waits = """(SELECT count(*) FROM task_links JOIN tasks AS other ON other.id = task_links.blocked_by
                 WHERE task_links.task_id = tasks.id AND other.status NOT IN ('done', 'archived'))"""
    columns = f"id, title, status, priority, assignee, last_error, ifnull(finished_at, updated_at) AS at, {waits} AS waits"
    if status == "done":
        return db.all(Card, f"""SELECT {columns} FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at IS NOT NULL{narrow}
                                 ORDER BY finished_at DESC LIMIT :shown""", assignee=assignee, product=product, shown=SHOWN)
    return db.all(Card, f"""SELECT {columns} FROM tasks WHERE tenant_id = :tenant AND status = :status{narrow}
                             ORDER BY priority, id DESC LIMIT :shown""", status=status, assignee=assignee, product=product, shown=SHOWN)
