"""Look: how things are shown in words and shapes: ages, money, states, bars. No reading, no writing.

Owns no table. Surprise: what these return with a `<` in it is markup, made of escaped parts, and is shown with `{{!…}}`.
"""
import functools
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bottle import html_escape as esc

from orkosi import endpoints

# What each state of a task, a run or an agent looks like: a shape and a tone, so that colour never stands alone.
SHAPES = {
    "todo": ("ring", "calm"), "waiting": ("ring", "calm"), "delayed": ("clock", "calm"), "idle": ("dot", "calm"),
    "in_progress": ("play", "busy"), "active": ("play", "busy"), "working": ("play", "busy"), "running": ("play", "busy"),
    "review": ("diamond", "ask"), "done": ("check", "good"),
    "completed": ("check", "good"), "blocked": ("stop", "bad"), "failed": ("stop", "bad"), "dead": ("stop", "bad"), "error": ("stop", "bad"),
    "timeout": ("stop", "bad"), "lost": ("slash", "bad"), "offline": ("slash", "bad"), "paused": ("bars", "warn"),
    "stopped": ("square", "calm"), "cancelled": ("minus", "calm"), "archived": ("minus", "calm"), "retry": ("clock", "warn"),
    "queued": ("ring", "calm"), "disabled": ("square", "calm"), "enabled": ("check", "good"), "verified": ("check", "good"),
    "configured": ("dot", "calm"), "not_configured": ("ring", "calm"), "failing": ("stop", "bad"), "unverified": ("ring", "calm"),
    "ok": ("check", "good"), "warning": ("clock", "warn"), "info": ("dot", "calm"), "success": ("check", "good"), "revoked": ("minus", "calm"),
    "expired": ("clock", "calm"), "pending": ("ring", "calm"), "built": ("check", "good"), "live": ("check", "good")}
WORDS = {"todo": "To do", "in_progress": "In progress", "review": "Review", "blocked": "Blocked", "done": "Done", "archived": "Archived"}
# What a terminal takes for itself: colours and the like, and sequences for its window, which end with a bell or with ESC \.
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def state(name: str, word: str = "") -> str:
    """A state as shape and word."""
    shape, tone = SHAPES.get(name, ("ring", "calm"))
    return f'<span class="state {tone}">{glyph(shape)}{esc(word or said(name))}</span>'


def mark(name: str) -> str:
    """A state as shape alone, its word for those who cannot see it."""
    shape, tone = SHAPES.get(name, ("ring", "calm"))
    return f'<span class="state {tone}" title="{esc(said(name))}">{glyph(shape)}<span class="hear">{esc(said(name))}: </span></span>'


def said(name: str) -> str:
    """A state in words."""
    return "to do" if name == "todo" else name.replace("_", " ")


def glyph(shape: str) -> str:
    """A symbol of the frame's sprite."""
    return f'<svg class="g" aria-hidden="true"><use href="#g-{shape}"/></svg>'


# ── time: the browser keeps all of it right, and in its own time zone ──


def age(stamp: str | None) -> str:
    """How long ago."""
    return f'<time datetime="{esc(stamp)}" data-age>{span(_since(stamp))} ago</time>' if stamp else "–"


def counting(stamp: str | None) -> str:
    """For how long it has been going on."""
    return f'<time datetime="{esc(stamp)}" data-since>{span(_since(stamp))}</time>' if stamp else "–"


def clock(stamp: str | None) -> str:
    """The time of day; in UTC until the browser puts its own in."""
    return f'<time datetime="{esc(stamp)}" data-clock>{esc(stamp[11:19])}</time>' if stamp else "–"


def this_moment() -> str:
    """When this was made, as a time of day."""
    return clock(datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def _since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


def span(seconds: float) -> str:
    """12 s, 3 min 5 s, 2 h 5 min, 4 d."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole < 600 else "")
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 86400 else f"{whole // 86400} d"


def took(milliseconds: int | None) -> str:
    """How long something took."""
    return "–" if milliseconds is None else f"{milliseconds} ms" if milliseconds < 1000 else span(milliseconds / 1000)


# ── numbers and texts ──


def money(micros: int) -> str:
    """Millionths of a dollar, to as many places as say something."""
    dollars = micros / 1e6
    return f"${dollars:,.2f}" if dollars >= 0.1 or micros == 0 else f"${dollars:.4f}".rstrip("0")


def number(value: int, more: bool = False) -> str:
    """1 234, or 10 000+ where nobody counted further."""
    return f"{value:,}".replace(",", "\u202f") + ("+" if more else "")


def part(text: str) -> str:
    """`text` as one part of an address."""
    return text if text.isalnum() and text.isascii() else quote(text, safe="")


def first_line(text: str | None, most: int = 140) -> str:
    """The beginning of a text."""
    lines = (text or "").strip().splitlines() or [""]
    return lines[0][:most] + ("…" if len(lines[0]) > most or len(lines) > 1 else "")


def last_line(error: str | None, most: int = 200) -> str:
    """The line of an error that says most: its last, where programs write what went wrong."""
    return ((error or "").strip().splitlines() or [""])[-1][:most]


def turned(query: str, offset: int) -> str:
    """The same list, on another page of it."""
    rest = [part for part in query.split("&") if part and not part.startswith("offset=")]
    return esc("&".join([*rest, f"offset={max(0, offset)}"]))


def size(many: int | None) -> str:
    """Bytes, in the unit that says most."""
    if many is None:
        return "–"
    for unit in ("bytes", "KB", "MB"):
        if many < 1024:
            return f"{many:.0f} {unit}"
        many = many / 1024  # type: ignore[assignment]
    return f"{many:.1f} GB"


def spark(values: Sequence[float], label: str, width: int = 240, height: int = 40) -> str:
    """A line over an area, its last value marked."""
    if not values:
        return ""
    top, step = max(*values, 1), width / max(len(values) - 1, 1)
    points = [(round(at * step, 1), round(height - 3 - value / top * (height - 7), 1)) for at, value in enumerate(values)]
    line = " ".join(f"{x},{y}" for x, y in points)
    x, y = points[-1]
    return (f'<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{esc(label)}">'
            f'<polygon points="0,{height} {line} {width},{height}"/><polyline points="{line}" vector-effect="non-scaling-stroke"/>'
            f'<line x1="{x}" x2="{x}" y1="{y}" y2="{height}" vector-effect="non-scaling-stroke"/></svg>')


def columns(rows: Sequence[tuple[str, float]], heading: str, say: Callable[[Any], str], tone: str = "busy") -> str:
    """A picture of figures by day or by whatever, each a column, and under it a table of the same for those who do not see it."""
    most, width = max([value for _, value in rows] + [1e-9]), 100 / max(len(rows), 1)
    rects = "".join(f'<rect class="{tone}" x="{at * width + width * .12:.2f}" y="{60 - 58 * value / most:.2f}" width="{width * .76:.2f}" '
                    f'height="{58 * value / most:.2f}"><title>{esc(name)}: {esc(say(value))}</title></rect>' for at, (name, value) in enumerate(rows))
    body = "".join(f"<tr><th scope=\"row\">{esc(name)}</th><td class=\"num\">{esc(say(value))}</td></tr>" for name, value in rows)
    ends = f"<span>{esc(rows[0][0])}</span><span>{esc(rows[-1][0])}</span>" if rows else ""
    return (f'<figure class="chart"><figcaption>{esc(heading)}<b>{esc(say(rows[-1][1]) if rows else "–")}</b></figcaption>'
            f'<svg viewBox="0 0 100 60" preserveAspectRatio="none" aria-hidden="true">{rects}</svg><p class="ends" aria-hidden="true">{ends}</p>'
            f'<details><summary>The figures</summary><table><tbody>{body}</tbody></table></details></figure>')


def bars(parts: Sequence[tuple[str, int]], label: str) -> str:
    """One bar of several states, in their tones."""
    total = sum(count for _, count in parts) or 1
    made, x = [], 0.0
    for name, count in parts:
        width = max(count / total * 100, 0.8) if count else 0.0
        tone = SHAPES.get(name, ("", "calm"))[1] if name else "rest"
        made.append(f'<rect class="{tone}" x="{x:.2f}" width="{max(width - 0.4, 0):.2f}" height="6"/>')
        x += width
    return f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{esc(label)}">{"".join(made)}</svg>'


def coming(stamp: str | None) -> str:
    """In how long."""
    return f'<time datetime="{esc(stamp)}" data-until>in {span(-_since(stamp))}</time>' if stamp else "–"


def inner(link: str | None) -> str:
    """A link of the API to the page that shows the same; "" for what leads nowhere here."""
    found = re.fullmatch(r"(?:/api)?(/(?![/\\])[A-Za-z0-9_./?=&:%-]*)", link) if link else None
    return found[1] if found else ""


def leads(link: str | None) -> str:
    """The page that a link of the API is about: the one that shows the same, or else what that stands in; "" where there is none."""
    where = inner(link)
    path, _, _ = where.partition("?")
    if path and _pages().fullmatch(path):
        return where
    while path := path.rpartition("/")[0]:
        if _pages().fullmatch(path):
            return path
    return ""


@functools.cache
def _pages() -> re.Pattern[str]:
    """The addresses of all pages: only they say that nothing has changed."""
    paths = {one.path for one in endpoints() if one.plugin.name == "console" and 304 in one.statuses}
    return re.compile("|".join(re.sub(r"\{\w+\}", "[^/]+", path) for path in paths))


def printable(text: str) -> str:
    """A text as a page may have it: without colours of terminals and control characters, and no longer than a page bears."""
    return (text if text.isprintable() else CONTROL.sub("\ufffd", TERMINAL.sub("", text)))[:65536]


def log_line(line: Any) -> str:
    """A line of a log, in a list of them; a page has hundreds."""
    return f'<li id="l{line.id}" class="{esc(line.level)}">{clock(line.created_at)}<span>{esc(printable(line.message))}</span></li>'


def data(value: Any) -> str:
    """Something that came as JSON, to be read."""
    return "" if value in (None, {}, []) else value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def link(where: str, id: Any, words: Any) -> str:
    """Words that lead to the page of something; where there is none, the words alone."""
    return esc(str(words)) if id in (None, "") else f'<a href="{where}/{part(str(id))}">{esc(str(words))}</a>'


def count(many: int, id: str) -> str:
    """A number beside a heading; nothing for nothing."""
    return f'<span class="count" id="{id}">{many}</span>' if many else ""


def keys(names: str) -> str:
    """Keys of a keyboard."""
    return " ".join(f"<kbd>{esc(name)}</kbd>" for name in names.split(" "))
