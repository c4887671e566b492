"""Templates: what an agent may be made from - its identity, its tools, how often it looks for work.

Owns agent_templates, as part of agents. Surprise: an archived template stays on record and is shown nowhere,
so its slug is free for another.
"""
import re
from typing import Any

from orkosi import Conflict, Invalid, Listing, NotFound, Page, Paging, Struct, db, emit, jsoned, now, writes
from plugins.users import shares


class Template(Struct):
    """A template of agents."""
    id: int
    name: str
    slug: str
    description: str
    icon: str | None
    category: str
    model: str | None
    interval_sec: int
    identity: str
    tools: list[str]
    capabilities: list[str]
    config: dict[str, Any]
    is_featured: bool
    sort_order: int
    created_at: str
    updated_at: str


TEMPLATES = Listing(of=Template, source="agent_templates", base="tenant_id = :tenant AND archived_at IS NULL",
                    order="sort_order, name, id", heavy="octet_length(identity) + octet_length(config)", light=20, filters={"category": "category = :category", "featured": "is_featured = 1"})


def listed(query: Paging, **filters: Any) -> Page[Template]:
    """Templates by `sort_order`, then by name."""
    return db.page(TEMPLATES, query, **filters)


def find(id: int) -> Template:
    """One template of this tenant. NotFound, also where it is archived."""
    found = db.one(Template, "SELECT * FROM agent_templates WHERE id = :id AND tenant_id = :tenant AND archived_at IS NULL", id=id)
    if found is None:
        raise NotFound(f"There is no template {id}")
    return found


@writes
def create(new: Struct) -> Template:
    """Add a template. Conflict where its slug is taken."""
    slug = checked(getattr(new, "slug"))  # noqa: B009  # any struct that has one
    shares.require(bytes=len(jsoned(new)))
    if db.value("SELECT 1 FROM agent_templates WHERE slug = :slug AND tenant_id = :tenant AND archived_at IS NULL", slug=slug):
        raise Conflict(f"The slug {slug!r} is taken; choose another")
    made = db.insert(Template, "agent_templates", new, created_at=now(), updated_at=now())
    emit("template.created", made)
    return made


@writes
def change(id: int, patch: Struct) -> Template:
    """Change what is sent. NotFound."""
    find(id)
    shares.require(bytes=len(jsoned(patch)))
    made = db.patch(Template, "agent_templates", id, patch)
    emit("template.updated", made)
    return made


@writes
def archive(id: int) -> None:
    """Put a template away; its slug is free again. NotFound."""
    found = find(id)
    db.patch(dict, "agent_templates", id, archived_at=now())
    emit("template.archived", found)


def checked(slug: str) -> str:
    """`slug` if it is one; Invalid."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or len(slug) > 60:
        raise Invalid("slug: Use small letters, digits and single hyphens, at most 60", [{"field": "slug", "message": "not a slug"}])
    return slug
