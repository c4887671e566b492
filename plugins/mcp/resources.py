"""Resources: what a client may read by its URI - a task, a file, the rules - as the API answers it to whoever asks."""
import re
from typing import Any

import msgspec

from orkosi import Problem, Request, current
from plugins.tasks import delegation

from .tools import may, named

KINDS = {"tasks": ("task_show", "Task", "A task, with why it waits and what came of its parts", "application/json"),
         "files": ("file_read", "File", "A file by its id, where it is text", "text/plain")}
RULES = "orkosi://rules"
Resource = dict[str, Any]  # as the protocol describes one


class Missing(Exception):
    """There is no such resource for whoever asks."""


def known(request: Request) -> list[Resource]:
    """The rules, the task that is held or the open ones, and the newest files of one's workspace."""
    me = current()
    rules = {"uri": RULES, "name": "rules", "title": "Rules", "description": "What must be kept", "mimeType": "application/json"}
    found = [rules] if may("rule_list") else []
    if me.kind == "agent":
        held = delegation.held_by(me.name)
        tasks = [held] if held else []
    else:
        tasks = _items("task_list", {"status": ["todo", "in_progress", "review", "blocked"], "limit": 20}, request)
    found += [{"uri": f"orkosi://tasks/{one.id}", "name": f"task {one.id}", "title": one.title,
               "description": f"{one.status}, for {one.assignee or 'nobody'}", "mimeType": "application/json"}
              for one in tasks]
    files = _items("file_search", {"workspace": me.name, "limit": 20}, request) if me.kind == "agent" else []
    return found + [{"uri": f"orkosi://files/{one.id}", "name": one.name, "title": one.path, "description": f"{one.category}, {one.size} bytes",
                     "mimeType": one.file_type or "text/plain", "size": one.size} for one in files]


def _items(tool: str, arguments: dict[str, Any], request: Request) -> list[Any]:
    try:
        found: list[Any] = named(tool).call(arguments, request).items
        return found
    except Problem as problem:
        if problem.status in (401, 403):
            return []
        raise


def templates() -> list[Resource]:
    """What can be read by its number."""
    return [{"uriTemplate": f"orkosi://{kind}/{{id}}", "name": kind, "title": title, "description": about, "mimeType": mime}
            for kind, (_, title, about, mime) in KINDS.items()]


def contents(uri: Any, request: Request) -> dict[str, Any]:
    """What a URI leads to. Missing."""
    found = re.fullmatch(r"orkosi://(tasks|files)/([0-9]{1,18})", uri) if isinstance(uri, str) else None
    try:
        if uri == RULES:
            return {"uri": uri, "mimeType": "application/json", "text": _text(named("rule_list").call({"limit": 1000}, request).items)}
        if found is None:
            raise Missing("There is no resource of that URI; resources/list and resources/templates/list have those there are")
        made = named(KINDS[found[1]][0]).call({"id": int(found[2])}, request)
    except Problem as problem:
        raise Missing(problem.message) from None
    if found[1] == "tasks":
        return {"uri": uri, "mimeType": "application/json", "text": _text(made)}
    if made.content is None:
        raise Missing(f"File {made.id} is no text, or larger than 1 MiB; {made.path} is on the disk")
    return {"uri": uri, "mimeType": made.file_type or "text/plain", "text": made.content}


def _text(made: Any) -> str:
    return msgspec.json.encode(made).decode()
