"""Findings: what a look at the company turns up, and who knows how to look.

Owns no table. A plugin registers a look at its own matter under the name of a layer; discovery engines of that layer take it.
So a layer is there as soon as the plugin is that knows the matter, and neither imports the other.
"""
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from orkosi import Meta, Plugin, Struct

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
