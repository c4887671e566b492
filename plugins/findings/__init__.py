"""Findings: what a look at the company turns up, and who knows how to look.

Owns no table. A plugin registers a look at its own matter under the name of a layer; discovery engines of that layer take it.
So a layer is there as soon as the plugin is that knows the matter, and neither imports the other.
"""
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from orkosi import Check, Meta, Plugin, Struct

plugin = Plugin("Findings", layer="ground")

Priority = Literal["P0", "P1", "P2", "P3"]


class Finding(Struct):
    """Something to be done. `fingerprint` says which finding it is, however its title is worded; default: made of layer and title."""
    title: Annotated[str, Meta(min_length=1, max_length=300)]
    fingerprint: Annotated[str, Meta(min_length=1, max_length=300)] | None = None
    description: Annotated[str, Meta(max_length=65536)] = ""
    priority: Priority = "P2"
    assignee: Annotated[str, Meta(max_length=100)] | None = None
    product_slug: Annotated[str, Meta(min_length=1, max_length=500)] | None = None


Look = Callable[[], Iterator[Finding]]
looks: dict[str, Look] = {}


def finds(layer: str) -> Callable[[Look], Look]:
    """Register the look at a layer; it runs in the host's name, outside of any write."""
    def keep(look: Look) -> Look:
        looks[layer] = look
        return look
    return keep


class Point(Check):
    """What a check found, and how to mend it; one of the points that the health of the company is made of."""
    fix: str = ""


def checks(plugin: Plugin, layer: str, **kinds: str) -> None:
    """Make a health check of each kind of finding of a layer: it is well where nothing of that kind is found, and says so in these words."""
    for kind, fine in kinds.items():
        plugin.health(f"{layer}.{kind}")(functools.partial(_check, layer, kind, fine))


def _check(layer: str, kind: str, fine: str) -> Point:
    found = [one for one in looks[layer]() if (one.fingerprint or "").split(":")[1:2] == [kind]]
    if not found:
        return Point(True, fine)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Point(False, f"{found[0].title}{more}", found[0].description)
