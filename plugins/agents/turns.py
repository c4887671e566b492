"""Turns: what is done with an agent's files and processes is done one after the other, for each agent by itself.

A verb writes the row first, then files, then processes; two at once could each write the row and then do the other's half. Surprise: a turn is never
taken inside a write, for whoever has it waits for the writer.
"""
import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from orkosi import current

P = ParamSpec("P")
R = TypeVar("R")

_turns: dict[tuple[int | None, str], threading.RLock] = {}


def turn_of(name: str) -> threading.RLock:
    """The turn of an agent of this tenant; who has it may take it again."""
    return _turns.setdefault((current().tenant, name), threading.RLock())


def in_turn(verb: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
    """Mark a verb that names an agent and waits until no other is at it."""
    @wraps(verb)
    def waits(name: str, *arguments: P.args, **named: P.kwargs) -> R:
        with turn_of(name):
            return verb(name, *arguments, **named)
    return waits
