"""Ranks: what somebody may be in an organization or a team, and what outranks what.

A team has no viewers. `RANKS` of the kernel is another ladder: the roles in a tenant.
"""
from typing import Literal

Rank = Literal["owner", "admin", "member", "viewer"]
TeamRank = Literal["owner", "admin", "member"]
RANK = {"viewer": 1, "member": 2, "admin": 3, "owner": 4}
HIGHEST_FIRST = "CASE role WHEN 'owner' THEN 0 WHEN 'admin' THEN 1 WHEN 'member' THEN 2 ELSE 3 END"  # to order by


def at_least(rank: str | None, needed: str) -> bool:
    """Whether `rank`, which may be none, is `needed` or more."""
    return RANK.get(rank or "", 0) >= RANK[needed]
