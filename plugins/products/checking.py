"""What the health of the company asks of products."""
from orkosi import db
from plugins.findings import Point

from . import plugin


@plugin.health("products.unknown")
def unknown() -> Point:
    """Whether every open task is of a product that there is."""
    found = db.all(tuple, """SELECT id, product_slug FROM tasks WHERE tenant_id = :tenant AND status IN ('todo', 'in_progress', 'review', 'blocked')
                              AND product_slug IS NOT NULL AND NOT EXISTS (SELECT 1 FROM products WHERE products.tenant_id = :tenant
                                                                              AND products.slug = tasks.product_slug)
                             ORDER BY status, id LIMIT 100""")
    said = f"Task {found[0][0]} is of {found[0][1]}, which is no product" if found else "Every open task is of a product that there is"
    return Point(not found, said[:300], "Create the product, or correct the task's product_slug" if found else "")


@plugin.health("products.archived")
def archived() -> Point:
    """Whether nobody works on what is archived."""
    found = db.all(tuple, """SELECT tasks.id, products.slug FROM products
                               JOIN tasks ON tasks.tenant_id = :tenant AND tasks.product_slug = products.slug
                              WHERE products.tenant_id = :tenant AND products.status = 'archived'
                                AND tasks.status IN ('todo', 'in_progress', 'review', 'blocked') ORDER BY tasks.status, tasks.id LIMIT 100""")
    said = f"Task {found[0][0]} is open, and its product {found[0][1]} is archived" if found else "Nobody works on what is archived"
    return Point(not found, said[:300], "Archive the task, or bring the product back" if found else "")


@plugin.health("products.described")
def described() -> Point:
    """Whether what is live says what it is."""
    found = db.all(tuple, """SELECT slug FROM products WHERE tenant_id = :tenant AND status IN ('live', 'launched') AND ifnull(tagline, '') = ''
                              ORDER BY slug LIMIT 100""")
    said = f"{found[0][0]} is live, and has no tagline" if found else "What is live says what it is"
    return Point(not found, said, f"PATCH /api/products/{found[0][0]} with a tagline" if found else "")
