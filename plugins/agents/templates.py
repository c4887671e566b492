"""Templates: what an agent may be made from - its identity, its tools, how often it looks for work.

Owns agent_templates, as part of agents. An agent that is made from one gets its model, interval and icon, of its `config` what an agent
has a setting for, and by `agents:delegate` among its tools or capabilities the right to delegate; its identity and its other tools and
capabilities, which are free words, stand in its SOUL.md. Surprise: an archived template stays on record and is shown nowhere, so its slug
is free for another. And a template names no program: who may write one is not always who may say what runs here.
"""
from typing import Annotated, Any

import msgspec

from orkosi import UNSET, Conflict, Meta, NotFound, Page, Paging, Struct, UnsetType, db, emit, jsoned, now, writes
from plugins import fields, keys, lists
from plugins.lists import Listing
from plugins.tenants import shares

from .rows import AgentFields

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


SETTINGS = ("display_name", "role", "color", "delegates")  # of `config`: what an agent has, too
PROGRAMS = ("command", "adapter", "base_url")
DELEGATES = "agents:delegate"
POSSIBLE = (*keys.AGENT_SCOPES, DELEGATES)


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


def settings_of(one: Template) -> dict[str, Any]:
    """What an agent that is made from a template has from it. Invalid where an earlier version took what it cannot have."""
    _acceptable(one)
    delegates = {"delegates": True} if DELEGATES in one.tools + one.capabilities else {}
    return {"model": one.model, "interval_sec": one.interval_sec, "emoji": one.icon, "template": one.slug} | delegates | {
        name: one.config[name] for name in SETTINGS if name in one.config}


def soul_of(one: Template) -> str:
    """What the SOUL.md of an agent that is made from a template says; "" where it has no identity."""
    lists_of = {"Tools": one.tools, "Capabilities": one.capabilities}
    said = [f"{title}: {', '.join(words)}" for title, named in lists_of.items() if (words := [word for word in named if not _is_scope(word)])]
    return one.identity and "\n\n".join([one.identity.rstrip("\n"), *said]) + "\n" if said else one.identity


def _is_scope(word: str) -> bool:
    return word in keys.SCOPES or word == DELEGATES or keys.CREDENTIAL.fullmatch(word) is not None


def _acceptable(one: NewTemplate | TemplatePatch | Template) -> None:
    """Invalid where an agent could not have what a template says."""
    for name, words in (("tools", one.tools), ("capabilities", one.capabilities)):
        refused = None if isinstance(words, UnsetType) else next((word for word in words if _is_scope(word) and word not in POSSIBLE), None)
        if refused:
            raise fields.wrong(name, f"An agent's key is never good for {refused}; of scopes, name {DELEGATES} alone")
    if isinstance(one.config, UnsetType):
        return
    if named := next((name for name in PROGRAMS if name in one.config), None):
        raise fields.wrong("config", f"A template names no program; leave {named} out, and send it with POST /api/agents")
    try:
        msgspec.convert({name: one.config[name] for name in SETTINGS if name in one.config}, AgentFields)
    except msgspec.ValidationError as error:
        raise fields.wrong("config", f"{error}; it is what an agent gets") from None


@writes
def create(new: NewTemplate) -> Template:
    """Add a template. Conflict where its slug is taken."""
    slug = fields.slug(new.slug)
    _acceptable(new)
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
    _acceptable(patch)
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
