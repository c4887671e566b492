"""The wire of hooks: how they are kept, and where other systems deliver."""
from typing import Annotated, Any

import msgspec

from orkosi import PUBLIC, Actor, Deleted, Denied, Document, Meta, Page, Paging, Reply, Request, Struct, may
from plugins import hooks, server, tasks
from plugins.hooks import Filter, Header, Hook, HookPatch, Kind, Makes, Secret, Taken, plugin, receiving
from plugins.hooks.receiving import Delivery
from plugins.queue import Name
from plugins.tasks import Priority, Type
from plugins.tasks.assignees import is_a_person

READ, WRITE = may("editor", "webhooks:read"), may("editor", "webhooks:write")
LARGEST = 256 << 10  # bytes, as much as the tunnel lets in


class NewHook(Struct, forbid_unknown_fields=True):
    """A hook to make: `title`, `description`, `product`, `assignee` and `type` are of tasks, `queue_name` and `task_type` of jobs."""
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    kind: Kind
    makes: Makes = "task"
    secret: Secret | None = None
    header: Header | None = None
    delivery_header: Header | None = None
    title: Taken | None = None
    description: Taken | None = None
    product: Taken | None = None
    assignee: str | None = None
    priority: Priority = "P2"
    type: Type | None = None
    queue_name: Name | None = None
    task_type: Name | None = None
    filter: Filter | None = None
    enabled: bool = True


class SeenHook(Struct):
    """A hook; its secret is never shown. `repeated`: deliveries that had come before; `skipped`: those that its filter left out;
    `refused`: those that were not proven, or found no room; `last_error` says why the last of these was."""
    id: int
    name: str
    masked: str
    kind: Kind
    header: str | None
    delivery_header: str | None
    makes: Makes
    title: Taken | None
    description: Taken | None
    product: Taken | None
    assignee: str | None
    priority: Priority
    type: Type | None
    queue_name: str | None
    task_type: str | None
    filter: Filter | None
    enabled: bool
    received: int
    made: int
    skipped: int
    repeated: int
    refused: int
    last_at: str | None
    last_error: str | None
    created_by: str
    created_at: str
    updated_at: str


class MadeHook(SeenHook, kw_only=True):
    """A hook that was just made, and its address, which is shown this once."""
    url: str


def seen(one: Hook) -> SeenHook:
    of_task = one.makes == "task"
    values = {name: getattr(one, name) for name in SeenHook.__struct_fields__}
    return SeenHook(**values | ({} if of_task else dict.fromkeys(("title", "description", "product", "type"))))


def require_scope(me: Actor, makes: Makes) -> None:
    """Whoever has something made by others must be one who may make it."""
    needed = "tasks:write" if makes == "task" else "queue:submit"
    if me.kind == "agent":
        raise Denied("An agent's key sees no hooks")
    if me.scopes is not None and needed not in me.scopes:
        raise Denied(f"A hook that makes {makes}s takes the scope {needed}, too")


def noted(one: SeenHook) -> dict[str, Any] | None:
    name = one.assignee
    said = [] if name is None or tasks.is_an_agent(name) or is_a_person(name) else [
        f"There is no agent {name}; create it, or assign the tasks to another"]
    if one.kind == "none":
        said.append("Whoever learns this hook's address can make what it makes: its deliveries prove nothing")
    return {"warnings": said} if said else None


@plugin.get("/api/hooks", auth=READ)
def index(query: Paging, me: Actor) -> Page[SeenHook]:
    """List hooks, by name"""
    if me.kind == "agent":
        raise Denied("An agent's key sees no hooks")
    return hooks.page(query).map(seen)


@plugin.post("/api/hooks", auth=WRITE, status=201, raises=(400, 409, 503))
def create(body: NewHook, me: Actor) -> Reply[MadeHook]:
    """Make an address at which another system delivers, and say what each delivery makes

    `url` is shown this once: give it, and the `secret`, to the sender. `kind` says how that proves itself: `github`, `stripe`, `slack`,
    `standard` (Standard Webhooks), `token` (the secret as it is, in the `header` that you name), or `none`. `title`, `description` and `product`
    are each what a JSON `pointer` finds in the body, else `text`. The body is kept with the task, and whoever works on it is
    told that it is data from outside. `filter`: only deliveries with one of `values` in a `header`, or where a `pointer` leads, make something.
    A delivery that comes again, by its sender's number for it, or else by its body within ten minutes, makes nothing more."""
    require_scope(me, body.makes)
    given = {name: value for name in HookPatch.__struct_fields__ if (value := getattr(body, name)) is not None}
    made, token = hooks.make(body.kind, body.makes, HookPatch(**given))
    shown = seen(made)
    whole = MadeHook(**msgspec.structs.asdict(shown), url=f"{server.url()}/hooks/{token}")
    return Reply(whole, meta=noted(shown))


@plugin.patch("/api/hooks/{id}", auth=WRITE, raises=(400, 404, 409, 503))
def update(id: int, body: HookPatch, me: Actor) -> Reply[SeenHook]:
    """Change a hook

    What is sent is changed; its address and its kind stay. `enabled: false`: its address answers as if it were not there."""
    require_scope(me, hooks.find(id).makes)
    shown = seen(hooks.change(id, body))
    return Reply(shown, meta=noted(shown))


@plugin.delete("/api/hooks/{id}", auth=WRITE, raises=(404,))
def delete(id: int, me: Actor) -> Deleted:
    """End a hook; what it has made stays"""
    require_scope(me, hooks.find(id).makes)
    hooks.delete(id)
    return Deleted(id)


@plugin.post("/hooks/{token}", auth=PUBLIC, status=201, statuses=(200, 202), raises=(400, 401, 404, 413, 429, 503), max_body=LARGEST)
def deliver(token: str, request: Request) -> Reply[Delivery]:
    """Take in a delivery of another system, and make a task or a job of it

    201 where it made something, 200 where it had come before, 202 where the hook's filter leaves it out. 401, and nothing made, where it is not
    signed with the hook's secret; 503 where there is no room: send it again."""
    came = receiving.receive(token, request.body(LARGEST), request)
    if isinstance(came, str):  # Slack asks whether the address is ours
        return Document(msgspec.json.encode({"challenge": came}), "application/json")  # type: ignore[return-value]
    return Reply(came, {"made": 201, "repeated": 200, "skipped": 202}[came.outcome])
