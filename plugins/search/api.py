"""The wire of the search over everything."""
from typing import Annotated

from orkosi import SIGNED_IN, Meta, Struct
from plugins import search
from plugins.fields import wrong
from plugins.search import Found, plugin


class Question(Struct, forbid_unknown_fields=True):
    q: Annotated[str, Meta(description="1 to 100 characters: words, or a number, a job's id or a slug")]


@plugin.get("/api/search", auth=SIGNED_IN, raises=(400,), tool="search")
def everything(query: Question) -> Found:
    """Look for something in tasks, products, agents, files and logs at once

    Each group is there, also where it is empty, or what is in it is not for whoever asks: everybody finds what they may list. A task is found
    by its number (`53430`, `#53430`), and by the id of its job; all else by words, or words that begin so."""
    if len(query.q) > 100:
        raise wrong("q", "At most 100 characters")
    return search.everywhere(query.q.strip())
