"""Hooks: addresses at which other systems deliver what happened there, and what each delivery makes: a task, or a job.

Owns hooks, hook_deliveries and hook_bodies. The token in a hook's address is shown once and kept as its hash; the secret by which
the sender proves itself lies in the vault. Surprise: what comes in is text from outside. It is kept beside the task as quoted data, and
whoever works on the task is told so; it never chooses who works, nor in which queue.
"""
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec

from orkosi import (
    UNSET,
    Conflict,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    across_tenants,
    current,
    db,
    emit,
    now,
    settings,
    writes,
)
from plugins import fields, lists, queue, vault
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.queue import Name
from plugins.tasks import Priority, Type, assignable, assignees
from plugins.users import tokens
from plugins.vault import Envelope, Unreadable, canaries

plugin = Plugin("Hooks", layer="domain", needs=("tasks",))
plugin.setting("limit_hook", str, "600/minute", "Deliveries to one hook; beyond, its sender is asked to come again")
plugin.setting("hooks_most", int, 200, "How many hooks one tenant may have")

Kind = Literal["github", "stripe", "slack", "standard", "token", "none"]
Makes = Literal["task", "job"]
Header = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9-]{0,99}\Z", description="the name of a header: letters, digits and -")]
Pointer = Annotated[str, Meta(pattern=r"\A(/([^~/]|~[01])*){0,32}\Z", max_length=500, description="A JSON pointer, such as /issue/title")]
Secret = Annotated[str, Meta(min_length=8, max_length=1000, description="8 to 1,000 characters")]


class Taken(Struct, forbid_unknown_fields=True):
    """Where a field comes from: what `pointer` finds in the body, else `text`."""
    pointer: Pointer | None = None
    text: Annotated[str, Meta(max_length=65536)] = ""


class Filter(Struct, forbid_unknown_fields=True):
    """Which deliveries make something: those whose header, or what a pointer finds in their body, is one of `values`."""
    values: Annotated[list[Annotated[str, Meta(min_length=1, max_length=300)]], Meta(min_length=1, max_length=100)]
    header: Header | None = None
    pointer: Pointer | None = None


class HookPatch(Struct, forbid_unknown_fields=True):
    """A change to a hook: what is set, is changed."""
    name: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    secret: Secret | UnsetType = UNSET
    header: Header | UnsetType = UNSET
    delivery_header: Header | None | UnsetType = UNSET
    title: Taken | UnsetType = UNSET
    description: Taken | UnsetType = UNSET
    product: Taken | UnsetType = UNSET
    assignee: str | None | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    queue_name: Name | UnsetType = UNSET
    task_type: Name | UnsetType = UNSET
    filter: Filter | None | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Hook(Struct):
    """A row of `hooks`, without its secret."""
    id: int
    tenant_id: int
    name: str
    masked: str
    kind: Kind
    header: str | None
    delivery_header: str | None
    makes: Makes
    title: Taken
    description: Taken
    product: Taken
    assignee: str | None
    priority: Priority
    type: Type
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


HOOKS = Listing(of=Hook, source="hooks", order="name", few=True)
OF_TASKS = ("title", "description", "product", "assignee", "type")
OF_JOBS = ("queue_name", "task_type")


# ── reading ──


def page(query: Paging) -> Page[Hook]:
    """The hooks of a tenant, by name."""
    return lists.page(HOOKS, query)


def find(id: int) -> Hook:
    """One hook. NotFound."""
    found: Hook | None = db.one(Hook, "SELECT * FROM hooks WHERE tenant_id = :tenant AND id = :id", id=id)
    if found is None:
        raise NotFound(f"There is no hook {id}")
    return found


@across_tenants
def by_token(token: str) -> Hook | None:
    """The hook whose address has this token, of whatever tenant; None also where it is turned off."""
    if not tokens.is_one(token, "hook"):
        return None
    found: Hook | None = db.one(Hook, "SELECT * FROM hooks WHERE token_hash = :hash AND enabled = 1", hash=tokens.digest(token))
    return found


def secret_of(id: int) -> str | None:
    """The secret of a hook's sender; None where it has none. Sealed, Unreadable."""
    row = db.one(tuple, "SELECT vault_key_id, nonce, sealed FROM hooks WHERE tenant_id = :tenant AND id = :id", id=id)
    return vault.open_(Envelope(*row), *_about(current().tenant or 0, id)).decode() if row and row[0] else None


def _about(tenant: int, id: int) -> tuple[int, str, int]:
    return tenant, "hook", id


# ── writing ──


@writes
def make(kind: Kind, makes: Makes, given: HookPatch) -> tuple[Hook, str]:
    """Make a hook; it, and the token of its address, which is nowhere else from then on. Invalid, Conflict, Sealed."""
    if db.value("SELECT count(*) FROM hooks WHERE tenant_id = :tenant") >= settings.hooks_most:
        raise Conflict(f"There are {settings.hooks_most} hooks already, which is the most (hooks_most); delete some")
    raw, moment = tokens.mint("hook"), now()
    values = _checked(kind, makes, given)
    if kind != "none" and given.secret is UNSET:
        raise wrong("secret", f"Give the secret by which the sender proves itself (kind {kind})")
    if kind == "token" and not values.get("header"):
        raise wrong("header", "Name the header in which the sender sends its token, such as X-Gitlab-Token")
    if makes == "job" and not values.get("queue_name"):
        raise wrong("queue_name", "Name the queue into which the jobs go")
    if makes == "task" and "title" not in values:
        raise wrong("title", 'Say what the tasks are called, such as {"pointer": "/issue/title", "text": "An issue"}')
    values = {"title": Taken(), "description": Taken(), "product": Taken()} | values
    if makes == "job":
        values.setdefault("task_type", kind if kind != "none" else "hook")
    made: Hook = db.insert(Hook, "hooks", kind=kind, makes=makes, token_hash=tokens.digest(raw), masked=tokens.masked(raw),
                           created_by=current().ref, created_at=moment, updated_at=moment, **values)
    _keep_secret(made.id, given.secret)
    emit("hook.created", made)
    return made, raw


@writes
def change(id: int, given: HookPatch) -> Hook:
    """Change what is set. NotFound, Invalid, Conflict, Sealed."""
    before = find(id)
    bare = db.value("SELECT sealed IS NULL FROM hooks WHERE tenant_id = :tenant AND id = :id", id=id)  # it came from elsewhere, without its secret
    if given.enabled is True and before.kind != "none" and given.secret is UNSET and bare:
        raise wrong("secret", f"Give the secret by which the sender proves itself (kind {before.kind}); this hook has none")
    made: Hook = db.patch(Hook, "hooks", id, **_checked(before.kind, before.makes, given))
    _keep_secret(id, given.secret)
    emit("hook.updated", made)
    return made


@writes
def delete(id: int) -> None:
    """End a hook; what it has made stays. NotFound."""
    gone = find(id)
    db.delete("hooks", id)
    emit("hook.deleted", gone)
    db.after_commit(canaries.forget)


def _checked(kind: Kind, makes: Makes, given: HookPatch) -> dict[str, Any]:
    """The columns that `given` sets. Invalid where a field would do nothing, or could never be used."""
    values = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) is not UNSET and name != "secret"}
    for name in OF_TASKS if makes == "job" else OF_JOBS:
        if name in values:
            raise wrong(name, f"This hook makes {makes}s, which have none")
    if "header" in values and kind != "token":
        raise wrong("header", "Only the kind token has its proof in a header of your choice")
    if given.secret is not UNSET and kind == "none":
        raise wrong("secret", "The kind none proves nothing, and has no secret")
    if values.get("delivery_header") and kind not in ("token", "none"):
        raise wrong("delivery_header", f"Deliveries of the kind {kind} say themselves which they are")
    if kind == "standard" and given.secret is not UNSET:
        senders.standard_key(given.secret)
    if "name" in values:
        values["name"] = fields.line(values["name"], "name", 100)
    if "title" in values:
        text = fields.line(values["title"].text, "title.text", 300)
        values["title"] = msgspec.structs.replace(values["title"], text=text)
    if "queue_name" in values:
        queue.named(values["queue_name"])
    if "assignee" in values:
        values["assignee"] = assignable(values["assignee"])
    if (only := values.get("filter")) and (only.header is None) == (only.pointer is None):
        raise wrong("filter", "Give `header` or `pointer`, one of the two, and the `values` that make something")
    return values


def _keep_secret(id: int, secret: str | UnsetType) -> None:
    if secret is not UNSET:
        sealed = vault.seal(secret.encode(), *_about(current().tenant or 0, id))
        db.run("UPDATE hooks SET vault_key_id = :key, nonce = :nonce, sealed = :sealed WHERE tenant_id = :tenant AND id = :id",
               id=id, key=sealed.data_key_id, nonce=sealed.nonce, sealed=sealed.sealed)
        db.after_commit(canaries.forget)


# ── people ──


@assignees.follows
@across_tenants
def follow(home: int, was: str, name: str | None) -> None:
    """What is made for a person is made for them under another name, and for nobody once they are gone."""
    db.run("""UPDATE hooks SET assignee = :name WHERE tenant_id = :home AND assignee = :was
               AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.tenant_id = :home AND agents.name = hooks.assignee)""",
           home=home, was=was, name=name)


# ── the vault ──


@canaries.tells
def values() -> dict[str, str]:
    """Every secret of a sender, for those who search texts for it; what cannot be read is left out. Sealed."""
    found = {}
    for id, name in db.all(tuple, "SELECT id, name FROM hooks WHERE tenant_id = :tenant AND sealed IS NOT NULL"):
        with suppress(Unreadable):
            found[f"secret of hook {name}"] = secret_of(id) or ""
    return found


@vault.keeps
@writes
@across_tenants
def reseal(newest: int, most: int) -> int:
    """Seal up to `most` secrets anew that an older data key sealed, of every tenant; how many."""
    rows = db.all(tuple, "SELECT id, tenant_id, vault_key_id, nonce, sealed FROM hooks WHERE vault_key_id < :newest LIMIT :most",
                  newest=newest, most=most)
    for id, home, data_key, nonce, sealed in rows:
        fresh = vault.seal(vault.open_(Envelope(data_key, nonce, sealed), *_about(home, id)), *_about(home, id))
        db.run("UPDATE hooks SET vault_key_id = :key, nonce = :nonce, sealed = :sealed WHERE id = :id", id=id, key=fresh.data_key_id,
               nonce=fresh.nonce, sealed=fresh.sealed)
    return len(rows)


from . import receiving as receiving  # noqa: E402  # last: these use the verbs above
from . import senders  # noqa: E402
