"""Keys: API keys, how they are made and taken back, and who they speak for.

Owns api_keys and api_key_uses. A key speaks for its organization's tenant, within its scopes, and never
beyond what the person who made it may do there at that moment: whoever is demoted weakens their keys, whoever
leaves ends them. An agent's own key is bound to that agent by name.
Surprise: `last_used_at` and the usage log (uses.py) are written by a timer from memory, not by the request.
"""
import re
import secrets
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from orkosi import (
    RANKS,
    UNSET,
    Actor,
    Conflict,
    Denied,
    Invalid,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Request,
    Struct,
    UnsetType,
    across_tenants,
    current,
    db,
    emit,
    jsoned,
    now,
    writes,
)
from plugins import lists, orgs, users
from plugins.lists import Listing
from plugins.users import tokens

plugin = Plugin("API keys", layer="ground", needs=("users", "orgs", "storage", "fields", "lists"))
plugin.setting("limit_key_management", str, "20/hour", "Keys that one person may make or change; taking one back is never limited")

# What a key may be given, and from which role on its maker has it, too.
LEAST = {
    "tasks:read": "demo", "tasks:write": "member", "agents:read": "viewer", "agents:write": "editor", "agents:control": "editor",
    "templates:read": "viewer", "templates:write": "member", "products:read": "viewer", "products:write": "member",
    "files:read": "member", "files:write": "member", "logs:write": "member", "queue:submit": "member", "queue:work": "viewer",
    "tokens:consume": "member", "activity:read": "editor", "activity:write": "member", "logs:read": "editor",
    "notifications:read": "viewer", "notifications:write": "viewer", "rules:read": "viewer", "rules:write": "editor",
    "automations:read": "editor", "teams:read": "viewer", "orgs:read": "viewer", "users:read": "demo", "tasks:delete": "admin",
    "schedules:read": "viewer", "schedules:write": "editor", "costs:read": "viewer", "events:read": "editor",
    "webhooks:read": "editor", "webhooks:write": "editor"}
SCOPES = tuple(LEAST)
CREDENTIAL = re.compile(r"credentials:read:[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # one named credential; administrators alone
DEFAULT_SCOPES = ("tasks:read", "agents:read", "templates:read")
AGENT_SCOPES = ("queue:work", "tasks:read", "tasks:write", "logs:write", "tokens:consume")
DELEGATE_SCOPES = ("agents:delegate", "agents:read")  # of an agent that gives work to others: it must know who there is

# The most that a role in an organization lets somebody do in its tenant. A guest, who is at home in
# another tenant, has no role here beside it, and never an editor's powers.
MOST = {"owner": "admin", "admin": "admin", "member": "member", "viewer": "viewer"}
MOST_OF_GUESTS = MOST | {"owner": "member", "admin": "member"}


Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*\Z")]
About = Annotated[str, Meta(max_length=2000)]
Scopes = Annotated[list[str], Meta(min_length=1, max_length=100, description="Default: tasks:read agents:read templates:read")]


class KeyPatch(Struct, forbid_unknown_fields=True):
    """A change to a key: what is set, is changed."""
    name: Name | UnsetType = UNSET
    description: About | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: str | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class Key(Struct):
    """A key as it may be shown."""
    id: str
    name: str
    description: str
    masked: str
    scopes: list[str]
    org_id: str | None
    agent: str | None
    is_active: bool
    version: int
    created_by: int | None
    old_until: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    created_at: str
    updated_at: str


KEYS = Listing(of=Key, source="api_keys", base="tenant_id = :tenant AND org_id = :org AND deleted_at IS NULL",
               order="created_at DESC, id DESC")


# What ends a key, both its secrets, for good.
ENDED = "revoked_at = ifnull(revoked_at, :now), is_active = 0, old_hash = NULL, old_until = NULL, updated_at = :now"


# ── who may, and how much ──


@across_tenants
def administrator(org_id: str) -> Actor:
    """Whoever acts, as they stand in the tenant of an organization whose keys they manage. NotFound for outsiders, Denied below admin."""
    me = current()
    org = orgs.require(org_id, "admin")
    home, role, founder = db.all(tuple, """
        SELECT users.tenant_id, users.role, tenants.founder_id FROM users, tenants WHERE users.id = :user AND tenants.id = :there""",
        user=me.user, there=org.tenant_id)[0]
    role = _role(role, org.role, at_home=home == org.tenant_id, founder=founder == me.user)
    return msgspec.structs.replace(me, tenant=org.tenant_id, role=role, rank=RANKS.get(role, 0))


def _role(role: str, org_role: str | None, *, at_home: bool, founder: bool) -> str:
    """What somebody is in a tenant, by their role there and, where a key is an organization's, their role in that."""
    if founder and RANKS.get(role, 0) < RANKS["editor"]:
        role = "editor"
    if org_role is None:
        return role
    if not at_home:
        return MOST_OF_GUESTS[org_role]
    return min(role, MOST[org_role], key=lambda one: RANKS.get(one, 0))


def beyond(scopes: list[str] | tuple[str, ...], rank: int) -> list[str]:
    """Those of `scopes` that somebody of this rank does not have themselves."""
    return [scope for scope in scopes if rank < RANKS[LEAST.get(scope, "admin")]]


def scopes_of(asked: list[str] | None, rank: int) -> list[str]:
    """The scopes a new key gets. Invalid names an unknown one and all there are, Denied one that its maker has not."""
    wanted = list(dict.fromkeys(DEFAULT_SCOPES if asked is None else asked))
    if unknown := [scope for scope in wanted if scope not in SCOPES and not CREDENTIAL.fullmatch(scope)]:
        raise Invalid(f"scopes: There is no scope {unknown[0][:100]!r}; known: {', '.join(SCOPES)}, credentials:read:<name>",
                      [{"field": "scopes", "message": f"unknown: {one[:100]}"} for one in unknown])
    _not_beyond(wanted, rank, "A key cannot do what its maker may not")
    return wanted


def _not_beyond(scopes: list[str], rank: int, why: str) -> None:
    if missing := beyond(scopes, rank):
        raise Denied(f"scopes: {why}: {missing[0]} needs the role {LEAST.get(missing[0], 'admin')}",
                     [{"field": "scopes", "message": f"beyond your role: {one}"} for one in missing])


# ── making ──


@writes
@across_tenants
def issue(tenant: int, name: str, scopes: tuple[str, ...] | list[str], *, agent: str | None = None, org_id: str | None = None,
          by: int | None = None, description: str = "", expires_at: str | None = None) -> tuple[Key, str]:
    """Make a key; the row and the raw key, which is nowhere else from then on. An agent's older key ends."""
    if agent:
        drop_agent_key(tenant, agent)
    raw = tokens.mint("agt" if agent else "live")
    key = db.insert(Key, "api_keys", id=f"key_{secrets.token_hex(8)}", tenant_id=tenant, org_id=org_id, agent=agent, name=name,
                    description=description, hash=tokens.digest(raw), masked=tokens.masked(raw), scopes=list(scopes), created_by=by,
                    expires_at=expires_at, created_at=now(), updated_at=now())
    if agent is None:  # of an agent's key, the agent's own events tell
        emit("key.created", key)
    return key, raw


def scopes_of_agent(delegates: bool) -> tuple[str, ...]:
    """What an agent's own key may do."""
    return AGENT_SCOPES + (DELEGATE_SCOPES if delegates else ())


@writes
@across_tenants
def rescope_agent(tenant: int, agent: str, scopes: tuple[str, ...]) -> None:
    """Have an agent's key be good for other things; it is the same key."""
    for key in db.all(Key, "SELECT * FROM api_keys WHERE tenant_id = :home AND agent = :agent AND deleted_at IS NULL AND revoked_at IS NULL",
                      home=tenant, agent=agent):
        db.run("UPDATE api_keys SET scopes = :scopes, updated_at = :now WHERE id = :id", id=key.id, scopes=jsoned(scopes), now=now())
        emit("key.updated", msgspec.structs.replace(key, scopes=list(scopes)))


@writes
@across_tenants
def drop_agent_key(tenant: int, agent: str) -> None:
    """End the key of an agent that is no more."""
    db.run("UPDATE api_keys SET deleted_at = :now, is_active = 0 WHERE tenant_id = :home AND agent = :agent AND deleted_at IS NULL",
           home=tenant, agent=agent, now=now())


# ── an organization's keys: these work in the tenant of `administrator` ──


def page(org_id: str, query: Paging) -> Page[Key]:
    """An organization's keys, newest first."""
    return lists.page(KEYS, query, org=org_id)


def find(org_id: str, id: str) -> Key:
    """One key of an organization. NotFound."""
    key = db.one(Key, """SELECT * FROM api_keys WHERE id = :id AND org_id = :org AND tenant_id = :tenant
                            AND deleted_at IS NULL""", id=id, org=org_id)
    if key is None:
        raise NotFound(f"There is no key {id}")
    return key


@writes
def change(org_id: str, id: str, patch: KeyPatch) -> Key:
    """Change what is sent. Scopes may only be added by who has them. Conflict where a revoked key should live again."""
    key = find(org_id, id)
    values = {name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not UNSET}
    if key.revoked_at and values.get("is_active"):
        raise Conflict(f"Key {id} is revoked for good; make a new one")
    if "scopes" in values:
        added = [scope for scope in values["scopes"] if scope not in key.scopes]
        scopes_of(added, current().rank)
        values["scopes"] = list(dict.fromkeys(values["scopes"]))
    key = db.patch(Key, "api_keys", id, **values)
    emit("key.updated", key)
    return key


@writes
def revoke(org_id: str, id: str) -> Key:
    """End a key, both its secrets, for good; again changes nothing."""
    key = find(org_id, id)
    if key.revoked_at is None:
        key = db.patch(Key, "api_keys", id, revoked_at=now(), is_active=False, old_hash=None, old_until=None)
        emit("key.revoked", key)
    return key


@writes
def delete(org_id: str, id: str) -> None:
    """Take a key off the list; both its secrets are dead. NotFound."""
    key = find(org_id, id)
    db.patch(Key, "api_keys", id, deleted_at=now(), is_active=False, old_hash=None, old_until=None)
    emit("key.deleted", key)


def rotate(org_id: str, id: str, grace_hours: int, version: int | None = None) -> tuple[Key, str]:
    """Give a key a new secret; the old one is good for `grace_hours` more. Conflict where somebody else was faster.

    Agents re-read keys on their next run, which may be an hour away: hence the grace. One secret before the
    present one is kept at most, so a second rotation ends the first one's grace.
    """
    key = find(org_id, id)
    if key.revoked_at or (key.expires_at and key.expires_at <= now()):
        raise Conflict(f"Key {id} is {'revoked' if key.revoked_at else 'expired'}; make a new one")
    # Whoever gets the new secret can do what the key can.
    _not_beyond(key.scopes, current().rank, "Its new secret would let you do what you may not")
    return _exchange(org_id, id, key.version if version is None else version, tokens.mint("live"), grace_hours)


@writes
def _exchange(org_id: str, id: str, version: int, raw: str, grace_hours: int) -> tuple[Key, str]:
    key = db.one(Key, """
        UPDATE api_keys SET old_hash = CASE WHEN :grace > 0 THEN hash END, old_until = CASE WHEN :grace > 0 THEN :until END,
               hash = :hash, masked = :masked, version = version + 1, updated_at = :now
         WHERE id = :id AND org_id = :org AND tenant_id = :tenant AND version = :version AND revoked_at IS NULL AND deleted_at IS NULL
        RETURNING *""", id=id, org=org_id, version=version, grace=grace_hours, until=now(grace_hours * 3600), hash=tokens.digest(raw),
        masked=tokens.masked(raw), now=now())
    if key is None:
        raise Conflict(f"Key {id} was changed at the same moment, or has another version; look at it, then decide again")
    emit("key.rotated", key)
    return key, raw


# ── every key, for the commands ──


@across_tenants
def everywhere() -> list[dict[str, Any]]:
    """Every key of this server that is not deleted, oldest first."""
    return db.all(dict, """
        SELECT id, tenant_id, org_id, agent, name, masked, scopes, is_active, revoked_at, expires_at, last_used_at
          FROM api_keys WHERE deleted_at IS NULL ORDER BY created_at, id""")


@writes
@across_tenants
def end(id: str) -> None:
    """Revoke any key of this server, an agent's too. NotFound."""
    if not db.run(f"UPDATE api_keys SET {ENDED} WHERE id = :id AND deleted_at IS NULL", id=id, now=now()):
        raise NotFound(f"There is no key {id}; 'key list' has them all")


# ── speaking for somebody ──


@plugin.authenticator
def by_key(request: Request) -> Actor | None:
    """The actor behind an API key, in `Authorization: Bearer` or `X-API-Key`."""
    actor = of(request.header("X-API-Key").strip() or users.bearer(request))
    if actor:
        uses.stamp(actor.credential)
    return actor


_known: dict[bytes, tuple[Any, str, Actor | None]] = {}  # digest of a key → the stamp at which it was looked up, until when that holds, whose it is


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Know no key of another data folder."""
    _known.clear()


def of(raw: str) -> Actor | None:
    """Who a raw key is at this moment; None where it is none, or is good for nothing any more. Looked up anew after every commit, whoever's."""
    digest, moment = tokens.digest(raw), now()
    if (found := _known.get(digest)) and moment < found[1] and found[0] == db.stamp():
        return found[2]
    if not tokens.is_one(raw, "live", "agt"):  # whoever shows no key costs the database nothing
        return None
    stamp = db.stamp()  # before the row: what is committed in between is looked up anew
    if (row := _row(digest, moment)) is None:
        return None
    ends, old_ends, *facts = row
    if len(_known) >= 1000:
        _known.clear()
    actor = _actor(*facts)
    _known[digest] = stamp, min(ends or "9", old_ends or "9"), actor
    return actor


@across_tenants
def _row(digest: bytes, moment: str) -> Any:
    return db.one(tuple, """
        SELECT expires_at, CASE WHEN hash = :hash THEN NULL ELSE old_until END AS old_ends,
               api_keys.id, api_keys.tenant_id, api_keys.scopes, api_keys.agent, api_keys.org_id, api_keys.created_by,
               users.role, users.tenant_id AS home, tenants.founder_id, org_members.role AS org_role
          FROM api_keys JOIN tenants ON tenants.id = api_keys.tenant_id
          LEFT JOIN users ON users.id = api_keys.created_by
          LEFT JOIN organizations ON organizations.id = api_keys.org_id AND organizations.deleted_at IS NULL
          LEFT JOIN org_members ON org_members.org_id = organizations.id AND org_members.user_id = users.id
         WHERE (hash = :hash OR (old_hash = :hash AND old_until > :now))
           AND is_active = 1 AND api_keys.deleted_at IS NULL AND (expires_at IS NULL OR expires_at > :now)""",
        hash=digest, now=moment)


@lru_cache(maxsize=1024)
def _actor(id: str, tenant_id: int, scopes_json: str, agent: str | None, org_id: str | None, created_by: int | None,
           role: str | None, home: int | None, founder_id: int | None, org_role: str | None) -> Actor | None:
    """Who a key is, with its maker's rights of this moment; None where the maker has left.

    Remembered by all that it depends on, which is read anew after every commit.
    """
    scopes = msgspec.json.decode(scopes_json, type=list[str])
    if agent:
        return Actor(kind="agent", id=agent, name=agent, tenant=tenant_id, rank=RANKS["member"], role="agent",
                     scopes=frozenset(scopes), credential=id)
    at_home = home == tenant_id
    if role is None or (org_role is None if org_id else not at_home):
        return None
    role = _role(role, org_role, at_home=at_home, founder=founder_id == created_by)
    rank = RANKS.get(role, 0)
    return Actor(kind="key", id=id, tenant=tenant_id, rank=rank, role=role, user=created_by,
                 scopes=frozenset(scopes) - set(beyond(scopes, rank)), credential=id)


from . import commands as commands  # noqa: E402  # the last lines: they use the verbs above
from . import farewell as farewell  # noqa: E402
from . import uses  # noqa: E402
