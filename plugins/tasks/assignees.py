"""Assignees: agents and people by name, and how they may be spelled.

Owns nothing. Surprise: an agent comes first. Nobody gets its work by choosing a name like its own.
"""
import re
from collections.abc import Callable
from typing import Any

from orkosi import across_tenants, current, db
from plugins import users
from plugins.fields import wrong

from . import plugin

ASSIGNEE = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,60}\Z"


def my_name() -> str:
    """What `assignee=me` means: an agent's name, or a person's."""
    me = current()
    return users.find(me.user).username if me.user else me.name


def spelled(assignee: str | None) -> str | None:
    """A person's name as it is kept, whether they are asked for by another spelling of it or by number."""
    person = None if assignee is None or is_an_agent(assignee) else users.named(assignee)
    return person.username if person else assignee


def assignable(name: str | None) -> str | None:
    """`name` as an assignee: an agent's name, or a person's name or number. Invalid. Whether such an agent exists, `why` says.

    An agent comes first: nobody gets its work by choosing a name like its own. `me` is whoever asks.
    """
    if name == "me":
        name = my_name()
    if name is None or is_an_agent(name):
        return name
    person = users.named(name)
    if person is None and not re.match(ASSIGNEE, name):
        raise wrong("assignee", "There is nobody of that name here; use an agent's name (letters, digits and . _ -, 61 at most), "
                                "or the name or number of a person")
    return person.username if person else name


def is_a_person(assignee: str) -> bool:
    """Whether nobody claims such work: it is a person's, and no agent has that name."""
    return not is_an_agent(assignee) and users.named(assignee) is not None


def is_an_agent(name: str) -> bool:
    """Whether an agent of this tenant has that name."""
    return db.value("SELECT 1 FROM agents WHERE tenant_id = :tenant AND name = :name", name=name) is not None


# ── whoever is called otherwise, or is gone ──

Follow = Callable[[int, str, str | None], None]
_followers: list[Follow] = []


def follows(follow: Follow) -> Follow:
    """Register who keeps people's names, and is told (tenant, name, the new one, or None for one who is gone) inside that write."""
    _followers.append(follow)
    return follow


@plugin.on("user.changed")
def rename(event: str, user: Any, was: str | None = None, **facts: Any) -> None:
    """Somebody may be called otherwise."""
    if was is not None and was != user.username:
        for follow in _followers:
            follow(user.tenant_id, was, user.username)


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """Somebody is gone: their name stands nowhere any more."""
    if name := db.value("SELECT username FROM users WHERE id = :id", id=gone.id):
        for follow in _followers:
            follow(gone.tenant_id, name, None)
