"""Templates: what an agent may be made from - its identity, its tools, how often it looks for work.

Owns agent_templates, as part of agents. Surprise: an archived template stays on record and is shown nowhere,
so its slug is free for another.
"""
from typing import Annotated, Any

from orkosi import UNSET, Conflict, Meta, NotFound, Page, Paging, Struct, UnsetType, db, emit, jsoned, now, writes
from plugins import fields, lists
from plugins.lists import Listing
from plugins.tenants import shares

Long = Annotated[str, Meta(max_length=65536)]
Short = Annotated[str, Meta(min_length=1, max_length=200)]
Interval = Annotated[int, Meta(ge=1, le=31_536_000, description="Seconds from one cycle to the next")]
Order = Annotated[int, Meta(ge=-2**31, le=2**31)]
Names = Annotated[list[Short], Meta(max_length=200)]


class NewTemplate(Struct, forbid_unknown_fields=True):
    """A template to add."""
    name: Short
    slug: Annotated[str, Meta(min_length=1, max_length=60)]
    description: Long = ""
    icon: Short | None = None
    category: Short = "general"
    model: Short | None = None
    interval_sec: Interval = 60
    identity: Long = ""
    tools: Names = []
    capabilities: Names = []
    config: dict[str, Any] = {}
    is_featured: bool = False
    sort_order: Order = 0


class TemplatePatch(Struct, forbid_unknown_fields=True):
    """A change to a template: what is set, is changed."""
    name: Short | UnsetType = UNSET
    description: Long | UnsetType = UNSET
    icon: Short | None | UnsetType = UNSET
    category: Short | UnsetType = UNSET
    model: Short | None | UnsetType = UNSET
    interval_sec: Interval | UnsetType = UNSET
    identity: Long | UnsetType = UNSET
    tools: Names | UnsetType = UNSET
    capabilities: Names | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET
    is_featured: bool | UnsetType = UNSET
    sort_order: Order | UnsetType = UNSET



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
                    order="sort_order, name, id", heavy="octet_length(identity) + octet_length(config)", light=20,
                    filters={"category": "category = :category", "featured": "is_featured = 1"})


def page(query: Paging, **filters: Any) -> Page[Template]:
    """Templates by `sort_order`, then by name."""
    return lists.page(TEMPLATES, query, **filters)


def find(id: int) -> Template:
    """One template of this tenant. NotFound, also where it is archived."""
    found = db.one(Template, "SELECT * FROM agent_templates WHERE id = :id AND tenant_id = :tenant AND archived_at IS NULL", id=id)
    if found is None:
        raise NotFound(f"There is no template {id}")
    return found


def seek_slug(slug: str) -> Template | None:
    """The live template of this tenant with that slug."""
    return db.one(Template, "SELECT * FROM agent_templates WHERE slug = :slug AND tenant_id = :tenant AND archived_at IS NULL", slug=slug)


def find_slug(slug: str) -> Template:
    """The same. Invalid where there is none."""
    found = seek_slug(slug)
    if found is None:
        raise fields.wrong("template", f"There is no template {slug!r}; GET /api/v1/public/templates lists them")
    return found


@writes
def create(new: NewTemplate) -> Template:
    """Add a template. Conflict where its slug is taken."""
    slug = fields.slug(new.slug)
    shares.require(rows=1, bytes=len(jsoned(new)))
    if db.value("SELECT 1 FROM agent_templates WHERE slug = :slug AND tenant_id = :tenant AND archived_at IS NULL", slug=slug):
        raise Conflict(f"The slug {slug!r} is taken; choose another")
    made = db.insert(Template, "agent_templates", new, created_at=now(), updated_at=now())
    emit("template.created", made)
    return made


@writes
def change(id: int, patch: TemplatePatch) -> Template:
    """Change what is sent. NotFound."""
    before = find(id)
    given = {name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not UNSET}
    shares.require(bytes=len(jsoned(given)) - len(jsoned({name: getattr(before, name) for name in given})))
    made = db.patch(Template, "agent_templates", id, patch)
    emit("template.updated", made)
    return made


@writes
def archive(id: int) -> None:
    """Put a template away; its slug is free again. NotFound."""
    found = find(id)
    db.patch(dict, "agent_templates", id, archived_at=now())
    emit("template.archived", found)
