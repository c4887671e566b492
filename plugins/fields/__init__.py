"""Fields: what people may write into them, and how they are told what is wrong.

Owns no table. Names, slugs, printable text and words to search are the same everywhere, and so are their
refusals: one 400 that names the field and says what to write instead.
"""
import re
import unicodedata
from datetime import datetime
from typing import Annotated

from orkosi import Invalid, Meta, Paging, Plugin

plugin = Plugin("Fields", layer="ground")

MOST_OF_A_SEARCH = 200
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of characters that are not seen, or make others look different


Many = Annotated[int, Meta(ge=1, le=1000, description="Items a page; without it, all up to 1,000")]


class OfAgent(Paging):
    """Base of the queries of lists that may be narrowed to an agent: `agent` and `agent_name` mean the same."""
    agent: str | None = None
    agent_name: str | None = None

    def whose(self) -> str | None:
        """The agent that is asked for. Invalid where two are."""
        if None not in (self.agent, self.agent_name) and self.agent != self.agent_name:
            raise wrong("agent_name", "Name one agent, as `agent` or as `agent_name`: they mean the same")
        return self.agent if self.agent_name is None else self.agent_name


def wrong(field: str, message: str) -> Invalid:
    """What to raise where one field is not acceptable: `message` says what to write instead."""
    return Invalid(f"{field}: {message}", [{"field": field, "message": message}])


def printable(text: str, field: str, most: int) -> str:
    """`text` as a name: trimmed, composed, 1 to `most` characters that can be seen. Invalid."""
    text = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(text) <= most or any(unicodedata.category(char) in UNSEEN for char in text):
        raise wrong(field, f"Use 1 to {most} printable characters")
    return text


def line(text: str, field: str, most: int) -> str:
    """`text` on one line: runs of blanks become one, and something must be left. Emoji of several signs are welcome. Invalid."""
    text = " ".join(text.split())
    if not text or len(text) > most or any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise wrong(field, f"Use 1 to {most} printable characters")
    return text


def required(text: str, field: str, message: str) -> str:
    """`text` where it says something. Invalid with `message`."""
    if not text.strip():
        raise wrong(field, message)
    return text


def instant(text: str, field: str) -> datetime:
    """The day, or the time, that a text of ISO 8601 means. Invalid where there is none such, as on 30 February."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong(field, "Send a day, such as 2026-08-31, or a time, such as 2026-08-31T17:00:00Z") from None


def slug(text: str) -> str:
    """`text` if it is a slug: small letters, digits and single hyphens, 60 at most. Invalid."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) or len(text) > 60:
        raise wrong("slug", "Use small letters, digits and single hyphens, at most 60")
    return text


def folded(text: str) -> str:
    """`text` as it is compared where case and the spelling of characters do not count, in any script."""
    return unicodedata.normalize("NFKC", text).casefold()


def terms(q: str) -> str | None:
    """`q` as a full-text query in which nothing is an operator, each word once; None where no usable term is left. Invalid."""
    found = {re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFD", word)).casefold(): word for word in re.findall(r"\w+", q[:1000])}
    if len(q) > MOST_OF_A_SEARCH or len(found) > 8:
        raise wrong("q", f"Search for at most 8 different words, in at most {MOST_OF_A_SEARCH} characters")
    return " ".join(f'"{word}"*' for word in found.values()) or None
