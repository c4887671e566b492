"""Following: log lines, told as they come in.

Surprise: a line is told a moment after it was read from its file, not written to it; `tailer` decides when that is.
"""
from typing import Any, NamedTuple

from orkosi import across_tenants, db
from plugins.server.feeds import Feed

from . import Line


class Wanted(NamedTuple):
    """A filter, as a list of lines has it; `words` are looked for as they are, in any case."""
    agent: str | None
    source: str
    level: str | None
    words: tuple[str, ...]

    def fits(self, line: Line) -> bool:
        """Whether a line is wanted."""
        return (self.agent in (None, line.agent) and self.source in ("all", line.source) and self.level in (None, line.level)
                and all(word in line.message.casefold() for word in self.words))


class Lines:
    """The lines as a source of feeds; they are the host's, whoever they tell of."""

    @across_tenants
    def head(self, tenant: int) -> int:
        """The newest id."""
        found: int = db.value("SELECT ifnull(max(id), 0) FROM log_lines")
        return found

    @across_tenants
    def after(self, tenant: int, id: int, limit: int) -> list[Any]:
        """What came in after an id, oldest first."""
        return db.all(Line, "SELECT * FROM log_lines WHERE id > :id ORDER BY id LIMIT :most", id=id, most=limit)

    def event(self, row: Line) -> str:
        """Each is a line."""
        return "line"

    @across_tenants
    def first(self) -> int:
        """The oldest id that is kept."""
        found: int = db.value("SELECT ifnull(min(id), 1) FROM log_lines")
        return found


source = Lines()


def feed(tenant: int, wanted: Wanted, last: str) -> Feed:
    """Lines from where their reader was last, or from now on; `reset` where some in between are not kept any more."""
    head = source.head(tenant)
    at = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else head
    told = b"retry: 2000\n\n"
    if not source.first() - 1 <= at <= head:
        at, told = head, b"retry: 2000\nid: %d\nevent: reset\ndata: {\"last_id\":%d}\n\n" % (head, head)
    return Feed(source, tenant, wanted, wanted.fits, at, told)
