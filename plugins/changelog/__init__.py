"""Changelog: what got done, for people and for feed readers.

Owns changelog: an entry is written when a task is done, in the transaction that makes it so. feed.py writes the RSS.
Surprise: entries never follow their task. Whoever renames, reopens, gives away or deletes it changes what is to be
done, not what was done; a task that is done once more has one more entry. The summary looks at the newest 10,000
entries of its days, and says so where there were more.
"""
from orkosi import COUNTED, Page, Plugin, Struct, across_tenants, current, db, now, writes
from plugins import lists
from plugins.fields import OfAgent
from plugins.lists import Listing
from plugins.tasks import Task, assignees

plugin = Plugin("Changelog", layer="domain", needs=("tasks",))


class ChangelogEntry(Struct):
    """One thing that got done."""
    id: int
    task_id: int | None
    title: str
    summary: str | None
    type: str
    area: str
    product: str | None
    agent: str | None
    priority: str
    completed_at: str
    guid: str


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


AREA = "ifnull(product, 'general')"

ENTRIES = Listing(
    of=ChangelogEntry, columns=f"*, {AREA} AS area", source="changelog", order="completed_at DESC, id DESC",
    filters={"agent": "agent = :agent", "task_id": "task_id = (:task_id)", "product": "product = :product"},
    orders={"task_id": "id DESC"})

BY_DAY = f"""
    SELECT substr(completed_at, 1, 10) AS date, area, count(*) AS count
      FROM (SELECT completed_at, {AREA} AS area FROM changelog
             WHERE tenant_id = :tenant AND completed_at >= :since AND (agent = :agent OR :agent IS NULL)
             ORDER BY completed_at DESC LIMIT :most) AS recent
     GROUP BY date, area ORDER BY date DESC, count DESC, area"""


def page(query: ChangelogQuery, product: str | None = None) -> Page[ChangelogEntry]:
    """What got done, the latest first; an agent's key sees what its agent did."""
    agent = current().name if current().kind == "agent" else query.whose()
    return lists.page(ENTRIES, query, product=product, agent=agent)


def days(back: int) -> tuple[list[Day], str, bool]:
    """What got done on each of the last `back` days and today, the latest first; the first date it looks at, and whether there was
    more than is counted."""
    found: dict[str, Day] = {}
    since = now(-86400 * back)[:10]
    rows = db.all(tuple, BY_DAY, since=since, most=COUNTED + 1, agent=current().name if current().kind == "agent" else None)
    for date, area, count in rows:
        day = found.setdefault(date, Day(date, 0, "", []))
        day.areas.append(Area(area, count))
        day.total += count
    for day in found.values():
        day.summary = f"{day.total} done: " + ", ".join(f"{area.count} in {area.area}" for area in day.areas)
    return list(found.values()), since, sum(day.total for day in found.values()) > COUNTED


# ── writing ──


@writes
def record(guid: str, title: str, *, summary: str | None, type: str, product: str | None, priority: str = "P2", agent: str | None = None,
           task_id: int | None = None, completed_at: str | None = None) -> None:
    """Write an entry, of now unless another time is given."""
    db.add("""INSERT INTO changelog (tenant_id, guid, task_id, title, summary, type, product, agent, priority, completed_at)
              VALUES (:tenant, :guid, :task_id, :title, :summary, :type, :product, :agent, :priority, :at)""",
           guid=guid, task_id=task_id, title=title, summary=summary, type=type, product=product, agent=agent, priority=priority,
           at=completed_at or now())


@plugin.on("task.done")
@plugin.on("task.created")
def entered(event: str, task: Task) -> None:
    """A task that is done has an entry, and one more each time that it is done again."""
    if task.status != "done":
        return
    before = db.value("SELECT count(*) FROM changelog WHERE tenant_id = :tenant AND task_id = :id", id=task.id)
    record(f"orkosi-task-{task.id}" + (f"-{before + 1}" if before else ""), task.title, summary=task.resolution, type=task.type,
           product=task.product, priority=task.priority, agent=task.assignee, task_id=task.id, completed_at=task.finished_at)


@assignees.follows
@across_tenants
def follow(home: int, was: str, name: str | None) -> None:
    """What a person did stays theirs under another name; what one did who is gone stays done, by nobody."""
    db.run("""UPDATE changelog SET agent = :name WHERE tenant_id = :home AND agent = :was
               AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.tenant_id = :home AND agents.name = changelog.agent)""",
           home=home, was=was, name=name)
