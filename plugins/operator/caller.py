"""How a command asks the server, and shows what it was told: as a table on a terminal, and as nothing but data in a pipe."""
import http.client
import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import click

from orkosi import Problem, Unavailable, clean, settings

from . import file_of

Rows = Iterable[dict[str, Any]]
NARROW = 12  # characters of a column that gives way


def ask(method: str, path: str, body: Any = None, **query: Any) -> tuple[Any, dict[str, Any]]:
    """The `data` and the `meta` of an answer. Problem in the server's words, Unavailable where it does not run."""
    try:
        url = (settings.data / "server.url").read_text().strip()
        token = file_of(settings.data).read_text().strip()
    except OSError:
        raise Unavailable(f"No server runs for {settings.data}; start it with: python3 orkosi.py serve") from None
    asked = {name: value for name, value in query.items() if value is not None}
    request = urllib.request.Request(f"{url}/api{path}" + (f"?{urlencode(asked)}" if asked else ""), method=method,
                                     data=None if body is None else json.dumps(body).encode(),
                                     headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            told = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Problem(_said(error.read(), error.code)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"The server at {url} does not answer: {error}") from None
    return told.get("data", told), told.get("meta") or {}


def _said(raw: bytes, status: int) -> str:
    try:
        error = json.loads(raw)["error"]
        details = [f"{one['field']}: {one['message']}" for one in error.get("details") or ()]
        return f"{error['message']}" + (f" ({'; '.join(details)})" if details and details[0] not in error["message"] else "")
    except (ValueError, KeyError, TypeError):
        return f"The server answered {status}"


def every(path: str, most: int, **query: Any) -> list[dict[str, Any]]:
    """The items of a list, page after page, up to so many."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while len(found) < most:
        page, meta = ask("GET", path, limit=min(200, most - len(found)), after=after, **query)
        found += page
        after = meta.get("next_after")
        if after is None:
            break
    return found


# ── showing ──


def on_terminal() -> bool:
    """Whether a person reads this."""
    return sys.stdout.isatty()


def show(found: Any, as_json: bool, columns: dict[str, Callable[[dict[str, Any]], Any]] | None = None) -> None:
    """Print what was found: JSON, a table, or in a pipe lines of fields between tabs."""
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2 if on_terminal() else None))
    elif columns is None:
        for name, value in found.items():
            if value not in (None, [], {}, ""):
                click.echo(f"{name}\t{_field(value)}" if not on_terminal() else f"{name:22} {value if isinstance(value, str) else json.dumps(value)}")
    else:
        rows = [[_field(take(one)) for take in columns.values()] for one in found]
        for line in _table(list(columns), rows) if on_terminal() else ("\t".join(row) for row in rows):
            click.echo(line)


def _field(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean(text.replace("\n", " ").replace("\t", " "), 4000)


def _table(names: list[str], rows: list[list[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    room = shutil.get_terminal_size().columns - 2 * (len(names) - 1)
    while sum(widths) > room and max(widths) > NARROW:
        widths[widths.index(max(widths))] -= 1
    for row in [[name.upper() for name in names], *rows]:
        yield "  ".join(text if len(text) <= width else text[:width - 1] + "…" for text, width in zip(row, widths, strict=True)
                        for text in [text.ljust(width)]).rstrip()
