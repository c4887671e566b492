"""The wire of the changelog: /changelog."""
from typing import Annotated

from orkosi import Document, Meta, Page, Reply, Struct, may
from plugins import changelog, server
from plugins.changelog import ChangelogEntry, ChangelogQuery, Day, feed, plugin
from plugins.fields import OfAgent


class SummaryQuery(Struct, forbid_unknown_fields=True):
    days: Annotated[int, Meta(ge=1, le=366, description="How many days back")] = 30


class FeedQuery(OfAgent):
    product: str | None = None


@plugin.get("/api/changelog", quick=True, auth=may("viewer", "tasks:read"))
def index(query: ChangelogQuery) -> Page[ChangelogEntry]:
    """List what got done

    The latest first, by the time it was finished, as it was then: what becomes of a task later changes no entry."""
    return changelog.page(query)


@plugin.get("/api/changelog/summary", auth=may("viewer", "tasks:read"))
def summary(query: SummaryQuery) -> Reply[list[Day]]:
    """What got done each day, by area

    The latest day first; `meta.since` is the first day that is looked at. At most the newest 10,000 entries are counted;
    `meta.total_exceeded` says whether there were more."""
    days, since, exceeded = changelog.days(query.days)
    return Reply(days, meta={"days": query.days, "since": since, "total_exceeded": exceeded})


@plugin.get("/api/changelog/feed", auth=may("viewer", "tasks:read"))
def rss(query: FeedQuery) -> Document:
    """What got done, as RSS 2.0

    The latest first. A link leads to the page of the task."""
    page = changelog.page(ChangelogQuery(limit=query.limit, offset=query.offset, after=query.after, agent=query.whose()), query.product)
    return Document(feed.rss(page.items, server.url()), "application/rss+xml; charset=utf-8")
