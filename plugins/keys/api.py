"""The wire of API keys: /organizations/{orgId}/api-keys.

Sessions alone: no key manages keys. Every handler steps into the organization's tenant first, by
`keys.administrator`, which is also the gate.
"""
from datetime import UTC, datetime
from typing import Annotated

from orkosi import UNSET, Deleted, Meta, Page, Paging, Struct, acting, may, now
from plugins import keys
from plugins.fields import Many, wrong
from plugins.keys import About, Key, KeyPatch, Name, Scopes, plugin
from plugins.keys.uses import Use
from plugins.keys.uses import page as uses_of

Grace = Annotated[int, Meta(ge=0, le=168, description="Hours for which the old secret stays good")]
MANAGE = may("viewer", within="admin")


class NewKey(Struct, forbid_unknown_fields=True):
    name: Name
    description: About = ""
    scopes: Scopes | None = None
    expires_at: str | None = None


class Rotation(Struct, forbid_unknown_fields=True):
    grace_hours: Grace = 24
    version: Annotated[int, Meta(ge=1, description="The version you saw; another one is 409")] | None = None


class Made(Key, kw_only=True):
    """A key with its secret, which is shown this once."""
    key: str


def made(key: Key, raw: str) -> Made:
    return Made(**{name: getattr(key, name) for name in key.__struct_fields__}, key=raw)


def moment(text: str | None) -> str | None:
    """`text` as a time to come, or Invalid. Without a zone it is taken for UTC."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
        when = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong("expires_at", f"{text[:50]!r} is no time; write one like 2030-01-31T12:00:00Z") from None
    stamp = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if stamp <= now():
        raise wrong("expires_at", "That time is over; choose one to come, or leave it out")
    return stamp


class KeyQuery(Paging):
    limit: Many = 1000


@plugin.get("/api/organizations/{orgId}/api-keys", auth=MANAGE, raises=(404,))
def index(org_id: str, query: KeyQuery) -> Page[Key]:
    """List an organization's API keys, newest first; secrets are masked"""
    with acting(keys.administrator(org_id)):
        return keys.page(org_id, query)


@plugin.post("/api/organizations/{orgId}/api-keys", auth=MANAGE, status=201, raises=(400, 402, 404), limit="key_management")
def create(org_id: str, body: NewKey) -> Made:
    """Make an API key; `key` is its secret, shown this once

    It acts in the organization's tenant, within its scopes, and within what you may do there at the moment it is used."""
    with acting(keys.administrator(org_id)) as mine:
        assert mine.tenant
        return made(*keys.issue(mine.tenant, body.name, keys.scopes_of(body.scopes, mine.rank), org_id=org_id, by=mine.user,
                                description=body.description, expires_at=moment(body.expires_at)))


@plugin.get("/api/organizations/{orgId}/api-keys/{keyId}", auth=MANAGE, raises=(404,))
def show(org_id: str, key_id: str) -> Key:
    """Get an API key, masked"""
    with acting(keys.administrator(org_id)):
        return keys.find(org_id, key_id)


@plugin.patch("/api/organizations/{orgId}/api-keys/{keyId}", auth=MANAGE, raises=(404, 409), limit="key_management")
def update(org_id: str, key_id: str, body: KeyPatch) -> Key:
    """Change a key's name, description, scopes or expiry, or switch it off and on

    A revoked key stays revoked. Scopes that you do not have yourself cannot be added."""
    if body.expires_at is not UNSET:
        body.expires_at = moment(body.expires_at)
    with acting(keys.administrator(org_id)):
        return keys.change(org_id, key_id, body)


@plugin.delete("/api/organizations/{orgId}/api-keys/{keyId}", auth=MANAGE, raises=(404,))
def delete(org_id: str, key_id: str) -> Deleted:
    """Take a key off the list; it ends at once"""
    with acting(keys.administrator(org_id)):
        keys.delete(org_id, key_id)
        return Deleted(key_id)


@plugin.post("/api/organizations/{orgId}/api-keys/{keyId}/revoke", auth=MANAGE, raises=(404,))
def revoke(org_id: str, key_id: str) -> Key:
    """End a key at once, for good; it stays on the list"""
    with acting(keys.administrator(org_id)):
        return keys.revoke(org_id, key_id)


@plugin.post("/api/organizations/{orgId}/api-keys/{keyId}/rotate", auth=MANAGE, raises=(404, 409), limit="key_management")
def rotate(org_id: str, key_id: str, body: Rotation) -> Made:
    """Give a key a new secret; the old one stays good for `grace_hours`

    Of two rotations at once the second is 409. A further rotation ends the grace of the one before."""
    with acting(keys.administrator(org_id)):
        return made(*keys.rotate(org_id, key_id, body.grace_hours, body.version))


@plugin.post("/api/organizations/{orgId}/api-keys/{keyId}/roll", auth=MANAGE, raises=(404, 409), limit="key_management")
def roll(org_id: str, key_id: str) -> Made:
    """Give a key a new secret; the old one ends at once"""
    with acting(keys.administrator(org_id)):
        return made(*keys.rotate(org_id, key_id, 0))


@plugin.get("/api/organizations/{orgId}/api-keys/{keyId}/usage", auth=MANAGE, raises=(404,))
def usage(org_id: str, key_id: str, query: Paging) -> Page[Use]:
    """List what a key was used for, newest first

    Kept for 30 days, and the newest 10,000 of each key."""
    with acting(keys.administrator(org_id)):
        return uses_of(keys.find(org_id, key_id).id, query)
