"""The wire of automations. Sessions only: no key may make this machine run something."""
from typing import Annotated

from orkosi import Deleted, Meta, Page, Problem, may
from plugins import automations
from plugins.automations import Automation, AutomationPatch, AutomationStatus, NewAutomation, plugin
from plugins.automations.live import Live, follow, let_go, look
from plugins.fields import Many, OfAgent

READ, WRITE = may("editor", "automations:read", host=True), may("admin", host=True)


class AutomationQuery(OfAgent, kw_only=True):
    limit: Many = 1000
    type: str | None = None
    status: AutomationStatus | None = None
    q: Annotated[str, Meta(max_length=100)] | None = None


class SeenAutomation(Automation):
    """An automation with what is true of it now; `live` is null where nobody looked, and `why` says why."""
    live: Live | None = None
    why: str | None = None


def seen(one: Automation) -> SeenAutomation:
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    found, why = look(one)
    return SeenAutomation(**fields, live=found, why=why)


@plugin.get("/api/automations", auth=READ)
def index(query: AutomationQuery) -> Page[SeenAutomation]:
    """List scripts and launch agents with their live state, newest first"""
    page = automations.page(query, query.q, query.whose())
    return page.map(seen)


@plugin.post("/api/automations", auth=WRITE, status=201, raises=(409, 422))
def create(body: NewAutomation) -> SeenAutomation:
    """Put a script or launch agent on record

    An active `launchagent` whose plist is in the data folder's `jobs/` is loaded at once."""
    made = automations.create(body)
    try:
        follow(made)
    except Problem:
        automations.delete(made.id)  # what cannot be loaded is not on record either
        raise
    return seen(made)


@plugin.get("/api/automations/{id}", auth=READ, raises=(404,))
def show(id: int) -> SeenAutomation:
    """Get one automation with its live state"""
    return seen(automations.find(id))


@plugin.patch("/api/automations/{id}", auth=WRITE, raises=(404, 409, 422))
def update(id: int, body: AutomationPatch) -> SeenAutomation:
    """Change an automation; the supervisor follows its status"""
    before = automations.find(id)
    made = automations.change(id, body)
    try:
        follow(made)
    except Problem:
        automations.put_back(before)
        raise
    if (before.path, before.type) != (made.path, made.type):
        let_go(before)
    return seen(made)


@plugin.delete("/api/automations/{id}", auth=WRITE, raises=(404,))
def delete(id: int) -> Deleted:
    """Take an automation off the record, and unload it; its file stays"""
    let_go(automations.delete(id))
    return Deleted(id)
