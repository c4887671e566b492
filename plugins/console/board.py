"""Board: a column a status, the most urgent on top.

Owns no table. Surprise: whoever moves a card may put it where `MOVES` says; what is in progress is decided by a claim alone.
"""
from orkosi import COUNTED, Struct, db

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


# The status as a literal: only then does SQLite see that the partial index holds the rows.
URGENT = "SELECT id FROM tasks WHERE tenant_id = :tenant AND status = 'todo' ORDER BY priority, id LIMIT :shown"
LAST = """SELECT id FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at IS NOT NULL
           ORDER BY finished_at DESC LIMIT :shown"""


def counts(assignee: str | None, product: str | None) -> dict[str, int]:
    """How many tasks each column has of an agent, or of a product, counted to 10,000."""
    narrow = _narrow(assignee, product)
    few = narrow.replace("AND ", "AND +")  # of these there are few at any time: found by their status, and not in all that somebody ever did
    return {status: db.value(f"""SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND status = '{status}'
                                                          {narrow if status in ("todo", "done") else few} LIMIT :most) AS counted""",
                             assignee=assignee, product=product, most=COUNTED) for status in COLUMNS}


def _narrow(assignee: str | None, product: str | None) -> str:
    return ("AND assignee = :assignee " if assignee else "") + ("AND product_slug = :product " if product else "")


def cards(status: str, assignee: str | None, product: str | None) -> list[Card]:
    """The cards of one column: the most urgent, then the oldest, as they are claimed; of what is done, the last."""
    narrow = _narrow(assignee, product)
    chosen = (LAST if status == "done" else URGENT.replace("'todo'", f"'{status}'")).replace("ORDER BY", narrow + "ORDER BY")
    order = "tasks.finished_at DESC" if status == "done" else "tasks.priority, tasks.id"
    return db.all(Card, f"""
        SELECT tasks.id, title, status, priority, assignee, last_error, ifnull(finished_at, updated_at) AS at,
               (SELECT count(*) FROM task_links JOIN tasks AS other ON other.id = task_links.blocked_by
                 WHERE task_links.task_id = tasks.id AND other.status NOT IN ('done', 'archived')) AS waits
          FROM ({chosen}) AS top CROSS JOIN tasks ON tasks.id = top.id WHERE tenant_id = :tenant ORDER BY {order}""",
                  assignee=assignee, product=product, shown=SHOWN)
