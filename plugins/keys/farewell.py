"""Farewell: the keys of somebody whose account is erased end with it."""
from typing import Any

from orkosi import across_tenants, db, now

from . import plugin


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """A key may do what its maker may; of a maker who is gone, nothing."""
    db.run("""UPDATE api_keys SET is_active = 0, revoked_at = ifnull(revoked_at, :now), old_hash = NULL, old_until = NULL, created_by = NULL,
                     updated_at = :now WHERE created_by = :id""", id=gone.id, now=now())
