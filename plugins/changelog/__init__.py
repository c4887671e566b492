"""Changelog: what got done, for people and for feed readers.

Owns no table: an entry is a done task, seen through the view `changelog`. feed.py writes the RSS.
Surprise: the summary looks at the newest 10,000 entries of its days, and says so where there were more.
"""
from orkosi import COUNTED, Listing, Page, Plugin, Struct, current, db, now
from plugins.fields import OfAgent

plugin = Plugin("Changelog", layer="views")


class ChangelogEntry(Struct):
    """One thing that got done."""
    id: int
    task_id: int
    title: str
    summary: str | None
    type: str
    area: str
    product: str | None
    agent: str | None
    priority: str
    completed_at: str


class Area(Struct):
    """How much got done in one area on one day."""
    area: str
    count: int


class Day(Struct):
    """What got done on one day."""
    date: str
    total: int
    summary: str
    areas: list[Area]


class ChangelogQuery(OfAgent):
    """What the changelog may be narrowed by."""
    task_id: int | None = None


ENTRIES = Listing(
    of=ChangelogEntry, source="changelog", order="completed_at DESC, id DESC",
    filters={"agent": "agent = :agent", "task_id": "task_id = :task_id", "product": "product = :product"},
    orders={"task_id": "id DESC"})

BY_DAY = """
    SELECT substr(completed_at, 1, 10) AS date, area, count(*) AS count
      FROM (SELECT completed_at, area FROM changelog
             WHERE tenant_id = :tenant AND completed_at >= :since AND (agent = :agent OR :agent IS NULL)
             ORDER BY completed_at DESC LIMIT :most) AS recent
     GROUP BY date, area ORDER BY date DESC, count DESC, area"""


def page(query: ChangelogQuery, product: str | None = None) -> Page[ChangelogEntry]:
    """What got done, the latest first; an agent's key sees what its agent did."""
    agent = current().name if current().kind == "agent" else query.whose()
    return db.page(ENTRIES, query, product=product, agent=agent)


def days(back: int) -> tuple[list[Day], bool]:
    """What got done each day of the last `back`, the latest first; and whether there was more than is counted."""
    found: dict[str, Day] = {}
    rows = db.all(tuple, BY_DAY, since=now(-86400 * back)[:10], most=COUNTED + 1,
                  agent=current().name if current().kind == "agent" else None)
    for date, area, count in rows:
        day = found.setdefault(date, Day(date, 0, "", []))
        day.areas.append(Area(area, count))
        day.total += count
    for day in found.values():
        day.summary = f"{day.total} {'task' if day.total == 1 else 'tasks'} done: " + ", ".join(
            f"{area.count} in {area.area}" for area in day.areas)
    return list(found.values()), sum(day.total for day in found.values()) > COUNTED
