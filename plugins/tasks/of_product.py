"""The tasks of a product: what becomes of them with it, and whose they are.

Owns nothing; writes `tasks` as the face does.
"""
from msgspec.structs import replace

from orkosi import HOST_TENANT, across_tenants, db, now, writes

from . import COLUMNS, Task, _tell
from .jobs import _drop_job


@writes
def archive(slug: str) -> int:
    """Archive a product's open tasks, whoever is to do them, and end their work; how many there were."""
    found = db.all(Task, f"""SELECT {COLUMNS} FROM tasks WHERE tenant_id = :tenant AND product_slug = :slug
                              AND status IN ('todo', 'in_progress', 'review', 'blocked') ORDER BY id""", slug=slug)
    for task in found:
        over = now()
        if not db.run("""UPDATE tasks SET status = 'archived', finished_at = :now, updated_at = :now
                          WHERE id = :id AND tenant_id = :tenant AND status <> 'archived'""", id=task.id, now=over):
            continue  # it went with the task that it is a part of
        _drop_job(task)
        _tell(task, replace(task, status="archived", finished_at=over, updated_at=over))
    return len(found)


def is_one(slug: str) -> bool:
    """Whether this tenant has a product of that slug."""
    return bool(db.value("SELECT 1 FROM products WHERE tenant_id = :tenant AND slug = :slug", slug=slug))


@across_tenants
def at_work() -> list[tuple[str, str]]:
    """(agent, product) of the host's open tasks, each once."""
    # Were they made different here, SQLite would read every task, also those that are over, to have them in order.
    return list(set(db.all(tuple, """
        SELECT tasks.assignee, tasks.product_slug FROM tasks
          JOIN agents ON agents.tenant_id = tasks.tenant_id AND agents.name = tasks.assignee
          JOIN products ON products.tenant_id = tasks.tenant_id AND products.slug = tasks.product_slug
         WHERE tasks.tenant_id = :host AND tasks.status IN ('todo', 'in_progress', 'review', 'blocked')""",
        host=HOST_TENANT)))
