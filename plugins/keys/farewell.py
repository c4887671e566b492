"""Farewell: keys end with the account of who made them, and with their organization."""
from typing import Any

from orkosi import across_tenants, db, now

from . import ENDED, plugin


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """A key may do what its maker may; of a maker who is gone, nothing."""
    db.run("DELETE FROM api_key_uses WHERE key_id IN (SELECT id FROM api_keys WHERE created_by = :id)", id=gone.id)  # they have addresses
    db.run(f"UPDATE api_keys SET {ENDED}, created_by = NULL WHERE created_by = :id", id=gone.id, now=now())


@plugin.on("organization.deleted")
@across_tenants
def close(event: str, shut: Any, **facts: Any) -> None:
    """An organization that is gone has no keys."""
    db.run(f"UPDATE api_keys SET {ENDED} WHERE org_id = :id", id=shut.id, now=now())


@plugin.on("organization.left")
@across_tenants
def leave(event: str, org: Any, **facts: Any) -> None:
    """The keys that somebody made in an organization end when they leave it, and do not come back with them."""
    db.run(f"""UPDATE api_keys SET {ENDED}
                WHERE org_id = :id AND created_by NOT IN (SELECT user_id FROM org_members WHERE org_id = :id)""", id=org.id, now=now())
