"""Assignees: agents and people by name, and how they may be spelled.

Owns nothing. Surprise: an agent comes first. Nobody gets its work by choosing a name like its own.
"""
import re

from orkosi import current, db
from plugins import users
from plugins.fields import wrong

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
