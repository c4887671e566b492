"""Keys: API keys, how they are made, and who they speak for.

Owns api_keys. A key speaks for its tenant, within its scopes, and never beyond what the person
who made it may do at that moment; an agent's own key is bound to that agent by name.
Surprise: `last_used_at` is written by a timer from memory, not by the request that used the key.
"""
import secrets

from orkosi import RANKS, Actor, Plugin, Request, Struct, across_tenants, db, now, writes
from plugins import users
from plugins.users import tokens

plugin = Plugin("API keys", layer="ground", needs=("users",))

SCOPES = ("tasks:read", "tasks:write", "agents:read", "agents:write", "agents:control", "templates:read", "templates:write",
          "products:read", "products:write", "files:read", "files:write", "logs:write", "queue:submit", "queue:work",
          "tokens:consume")
DEFAULT_SCOPES = ("tasks:read", "agents:read", "templates:read")
AGENT_SCOPES = ("queue:work", "tasks:read", "tasks:write", "logs:write", "tokens:consume")


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
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    created_at: str
    updated_at: str


@writes
@across_tenants
def issue(tenant: int, name: str, scopes: tuple[str, ...], *, agent: str | None = None, org_id: str | None = None,
          by: int | None = None, description: str = "", expires_at: str | None = None) -> tuple[Key, str]:
    """Make a key; the row and the raw key, which is nowhere else from then on. An agent's older key ends."""
    if agent:
        db.run("UPDATE api_keys SET deleted_at = :now, is_active = 0 WHERE tenant_id = :home AND agent = :agent AND deleted_at IS NULL",
               home=tenant, agent=agent, now=now())
    raw = tokens.mint("agt" if agent else "live")
    key = db.insert(Key, "api_keys", id=f"key_{secrets.token_hex(8)}", tenant_id=tenant, org_id=org_id, agent=agent, name=name,
                    description=description, hash=tokens.digest(raw), masked=tokens.masked(raw), scopes=list(scopes), created_by=by,
                    expires_at=expires_at, created_at=now(), updated_at=now())
    return key, raw


@writes
@across_tenants
def drop_agent_key(tenant: int, agent: str) -> None:
    """End the key of an agent that is no more."""
    db.run("UPDATE api_keys SET deleted_at = :now, is_active = 0 WHERE tenant_id = :home AND agent = :agent AND deleted_at IS NULL",
           home=tenant, agent=agent, now=now())


@plugin.authenticator
@across_tenants
def by_key(request: Request) -> Actor | None:
    """The actor behind an API key, in `Authorization: Bearer` or `X-API-Key`."""
    raw = request.header("X-API-Key").strip() or users.bearer(request)
    if tokens.kind_of(raw) not in ("live", "agt"):
        return None
    row = db.one(dict, """
        SELECT api_keys.id, api_keys.tenant_id, api_keys.scopes, api_keys.agent, api_keys.created_by, users.role, tenants.founder_id
          FROM api_keys LEFT JOIN users ON users.id = api_keys.created_by JOIN tenants ON tenants.id = api_keys.tenant_id
         WHERE (hash = :hash OR (old_hash = :hash AND old_until > :now))
           AND is_active = 1 AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > :now)""",
        hash=tokens.digest(raw), now=now())
    if row is None:
        return None
    _used[row["id"]] = now()
    scopes = frozenset(_decode(row["scopes"]))
    if row["agent"]:
        return Actor(kind="agent", id=row["agent"], name=row["agent"], tenant=row["tenant_id"], rank=RANKS["member"], role="agent",
                     scopes=scopes, credential=row["id"])
    rank = RANKS["editor"] if row["founder_id"] == row["created_by"] else RANKS.get(row["role"], RANKS["member"])
    return Actor(kind="key", id=row["id"], tenant=row["tenant_id"], rank=rank, role=row["role"] or "member", user=row["created_by"],
                 scopes=scopes, credential=row["id"])


def _decode(text: str) -> list[str]:
    return [part.strip(' "') for part in text.strip("[]").split(",") if part.strip(' "')]


_used: dict[str, str] = {}


@plugin.every("1s")
def stamp_keys() -> None:
    """Write down when keys were last used."""
    if _used:
        _stamp([(id, _used.pop(id)) for id in list(_used)])


@writes(durable=False)
@across_tenants
def _stamp(batch: list[tuple[str, str]]) -> None:
    for id, when in batch:
        db.run("UPDATE api_keys SET last_used_at = :when WHERE id = :id", id=id, when=when)


from . import farewell as farewell  # noqa: E402  # the last line: it uses the plugin above
