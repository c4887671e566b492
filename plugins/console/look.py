"""Look: how things are shown in words and shapes: ages, money, states, bars. No reading, no writing.

Owns no table. Surprise: what these return with a `<` in it is markup, made of escaped parts, and is shown with `{{!…}}`.
"""
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from bottle import html_escape as esc

# What each state of a task, a run or an agent looks like: a shape and a tone, so that colour never stands alone.
SHAPES = {
    "todo": ("ring", "calm"), "idle": ("dot", "calm"), "in_progress": ("play", "busy"), "active": ("play", "busy"),
    "working": ("play", "busy"), "running": ("play", "busy"), "review": ("diamond", "ask"), "done": ("check", "good"),
    "completed": ("check", "good"), "blocked": ("stop", "bad"), "failed": ("stop", "bad"), "error": ("stop", "bad"),
    "timeout": ("stop", "bad"), "lost": ("slash", "bad"), "offline": ("slash", "bad"), "paused": ("bars", "warn"),
    "stopped": ("square", "calm"), "cancelled": ("minus", "calm"), "archived": ("minus", "calm")}


def state(name: str) -> str:
    """A state as shape and word."""
    shape, tone = SHAPES.get(name, ("ring", "calm"))
    return f'<span class="state {tone}">{glyph(shape)}{esc(said(name))}</span>'


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


def href(link: str | None) -> str:
    """A link that leads to this server or to a web page, and nowhere else."""
    return esc(link) if link and re.match(r"https?://|/(?![/\\])", link) else "#"


def part(text: str) -> str:
    """`text` as one part of an address."""
    return quote(text, safe="")


def first_line(text: str | None, most: int = 140) -> str:
    """The beginning of a text."""
    lines = (text or "").strip().splitlines() or [""]
    return lines[0][:most] + ("…" if len(lines[0]) > most or len(lines) > 1 else "")


def last_line(error: str | None, most: int = 200) -> str:
    """The line of an error that says most: its last, where programs write what went wrong."""
    return ((error or "").strip().splitlines() or [""])[-1][:most]


def bars(parts: Sequence[tuple[str, int]], label: str) -> str:
    """One bar of several states, in their tones."""
    total = sum(count for _, count in parts) or 1
    made, x = [], 0.0
    for name, count in parts:
        width = max(count / total * 100, 0.8) if count else 0.0
        made.append(f'<rect class="{SHAPES.get(name, ("", "calm"))[1]}" x="{x:.2f}" width="{max(width - 0.4, 0):.2f}" height="6"/>')
        x += width
    return f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{esc(label)}">{"".join(made)}</svg>'
