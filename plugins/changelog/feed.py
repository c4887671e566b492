"""The changelog as RSS 2.0.

Owns no table. Surprise: XML 1.0 has no way to write most control characters, not even escaped; ElementTree
writes them all the same, and readers then refuse the whole feed. They are taken out here.
"""
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from typing import TYPE_CHECKING

from plugins.changelog import ChangelogEntry

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@cache
def _illegal() -> re.Pattern[str]:
    return re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # when first used: it takes 5 ms


def rss(entries: list[ChangelogEntry], home: str) -> bytes:
    """The feed of these entries, on a server that is reached at `home`."""
    from xml.etree import ElementTree
    root = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(root, "channel")
    _add(channel, "title", "Orkosi changelog")
    _add(channel, "link", home)
    _add(channel, "description", "What got done")
    if entries:
        _add(channel, "lastBuildDate", _date(entries[0].completed_at))
    for entry in entries:
        item = ElementTree.SubElement(channel, "item")
        _add(item, "title", entry.title)
        _add(item, "link", home if entry.task_id is None else f"{home}/tasks/{entry.task_id}")
        _add(item, "guid", entry.guid).set("isPermaLink", "false")
        _add(item, "pubDate", _date(entry.completed_at))
        _add(item, "category", entry.area)
        _add(item, "description", entry.summary or (f"Done by {entry.agent}" if entry.agent else "Done"))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _add(parent: "Element", name: str, text: str) -> "Element":
    from xml.etree import ElementTree
    made = ElementTree.SubElement(parent, name)
    made.text = _illegal().sub("", text)
    return made


def _date(stamp: str) -> str:
    return format_datetime(datetime.fromisoformat(stamp).astimezone(UTC), usegmt=True)
