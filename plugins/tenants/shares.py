"""Shares: how much of the machine one tenant may fill, so that none takes it from the others.

Owns tenant_shares: how many jobs a tenant has, and about how many bytes of text in all. Triggers keep it, in
the transaction of each row, so that it is exact whoever writes. Surprise: the host has no share; the disk is
its own, and what is left of it is watched (`min_free_mb`).
"""
from collections.abc import Callable

from orkosi import HOST_TENANT, NoSpace, current, db, settings

from . import plugin

plugin.setting("tenant_jobs", int, 5_000_000, "Jobs that one tenant may have, finished ones that are still kept included; the host has no limit")
plugin.setting("tenant_bytes", int, 8 << 30, "Bytes of jobs, tasks, files and records that one tenant may have; the host has no limit")


class ShareUsed(NoSpace):
    """A tenant has used its share of this server; the message names the limit."""
    code = "share_used"


_bounds: list[Callable[[], tuple[int | None, str]]] = []


def bounds(bound: Callable[[], tuple[int | None, str]]) -> Callable[[], tuple[int | None, str]]:
    """Register who may say that the tenant has fewer bytes, and what to do where they are full, as the end of a sentence."""
    _bounds.append(bound)
    return bound


ROW = 200  # bytes that a row is taken for, beside its texts, as the triggers do


def require(*, jobs: int = 0, rows: int = 0, bytes: int = 0) -> None:
    """See to it that the tenant has room for so much more; inside the write, so that two at once cannot both have the last place. ShareUsed.

    Of what is replaced, tell the difference: what grows no larger always goes.
    """
    tenant = current().tenant
    if tenant in (None, HOST_TENANT):
        return
    has = db.one(tuple, "SELECT jobs, bytes FROM tenant_shares WHERE tenant_id = :tenant") or (0, 0)
    for limit, used, more in (("tenant_jobs", has[0], jobs), ("tenant_bytes", has[1], bytes + ROW * rows)):
        most, way_out = getattr(settings, limit), "; delete something, or ask the operator for more"
        for bound in _bounds if limit == "tenant_bytes" and more > 0 else ():
            lower, instead = bound()
            if lower is not None and lower < most:
                most, way_out = lower, f"; delete something{instead}"
        if more > 0 and used + more > most:
            raise ShareUsed(f"{limit}: This tenant has {used:,} of {most:,}{way_out}",
                            [{"field": limit, "message": f"{used} of {most} are used"}])
