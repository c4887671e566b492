"""Prices: what there is to buy, and what running this costs, as data.

Read from `prices.toml` beside this file, or from `billing.toml` in the data folder where there is one; once in a process, and Invalid where it makes
no sense. Surprise: the order of the tiers is their rank: whoever goes to a later one goes up.
"""
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from orkosi import Invalid, Meta, Struct, settings
from plugins.fields import wrong

Cents = Annotated[int, Meta(ge=0, le=10**9)]
Slug = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,39}\Z")]


class Limits(Struct, forbid_unknown_fields=True):
    """What a tenant may have; null where there is no limit."""
    agents: int | None = None
    tasks_per_month: int | None = None
    api_keys: int | None = None
    storage_bytes: int | None = None


class PricedTier(Struct, forbid_unknown_fields=True):
    """A tier as the file has it."""
    tier: Slug
    name: str
    price_cents: Cents
    limits: Limits
    features: list[str] = []


class TokenPackage(Struct, forbid_unknown_fields=True):
    """Tokens for a price."""
    slug: Slug
    tokens: Annotated[int, Meta(ge=1, le=10**9)]
    price_cents: Annotated[int, Meta(ge=50, le=10**8)]


class CreditPackage(Struct, forbid_unknown_fields=True):
    """Credits for a price; a credit is a cent that pays the cost of runs."""
    slug: Slug
    credit_cents: Annotated[int, Meta(ge=1, le=10**8)]
    price_cents: Annotated[int, Meta(ge=50, le=10**8)]


class Infrastructure(Struct, forbid_unknown_fields=True):
    """What running this costs beside the models."""
    name: str
    cents_per_month: Cents


class Prices(Struct, forbid_unknown_fields=True):
    """All of it."""
    tiers: Annotated[list[PricedTier], Meta(min_length=1)]
    token_packages: list[TokenPackage] = []
    credit_packages: list[CreditPackage] = []
    infrastructure: list[Infrastructure] = []


def prices() -> Prices:
    """What there is to buy. Invalid, naming the file, where it makes no sense."""
    own = settings.data / "billing.toml"
    return read(own if own.is_file() else Path(__file__).with_name("prices.toml"))


@cache
def read(path: Path) -> Prices:
    """A file of prices. Invalid."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=Prices)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    slugs = [one.slug for one in found.token_packages] + [one.slug for one in found.credit_packages]
    for names in ([one.tier for one in found.tiers], slugs):
        if twice := {name for name in names if names.count(name) > 1}:
            raise Invalid(f"{path}: {min(twice)} stands twice")
    if found.tiers[0].price_cents:
        raise Invalid(f"{path}: the first tier is what everybody has, and costs nothing")
    return found


def find(tier: str, field: str = "tier") -> PricedTier:
    """A tier by its name. Invalid, naming all there are."""
    found = next((one for one in prices().tiers if one.tier == tier), None)
    if found is None:
        raise wrong(field, f"There is no tier {tier[:60]!r}; there are {', '.join(one.tier for one in prices().tiers)}")
    return found


def seek(tier: str) -> PricedTier | None:
    """A tier by its name, if there is one now."""
    return next((one for one in prices().tiers if one.tier == tier), None)


def rank(tier: str) -> int:
    """Where a tier stands; -1 for one that is no more."""
    return next((at for at, one in enumerate(prices().tiers) if one.tier == tier), -1)


def package(kind: str, slug: str, field: str) -> Any:
    """A package of tokens or credits. Invalid, naming all there are."""
    there = {one.slug: one for one in (prices().token_packages if kind == "tokens" else prices().credit_packages)}
    if slug not in there:
        raise wrong(field, f"There is no package {slug[:60]!r} of {kind}; there are {', '.join(there) or 'none'}")
    return there[slug]


def units(one: Any) -> int:
    """What a package is of: tokens, or millionths of a dollar of credits."""
    return int(one.tokens if isinstance(one, TokenPackage) else one.credit_cents * 10_000)
