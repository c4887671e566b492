"""Search: one question to everything, answered by whoever knows.

Owns no table. A plugin registers a source with `@plugin.search`; each is asked where the caller may list what it finds, by the policy of that
list. Surprise: a source that stumbles over a question costs its own group and no other.
"""
import functools
import logging

from orkosi import Endpoint, Hit, Plugin, Problem, Struct, admit, current, endpoints, plugins

plugin = Plugin("Search", layer="views")

log = logging.getLogger("orkosi")
MOST = 10       # of a group
WIDTH = 200     # characters of a title, and of a detail
# group → the operation whose policy holds for it, and where one of its hits is
GROUPS = {"tasks": ("GET /api/tasks", "/api/tasks/{id}"), "products": ("GET /api/products", "/api/products/{id}"),
          "agents": ("GET /api/agents", "/api/agents/{id}"), "files": ("GET /api/files", "/api/files/{id}"),
          "logs": ("GET /api/logs", "/api/logs?q={id}")}


class Place(Struct):
    """Something that was found, and where it is."""
    id: int | str
    title: str
    detail: str
    url: str


class Found(Struct):
    """What was found, by group; at most ten of each, exact ids and slugs first."""
    tasks: list[Place]
    products: list[Place]
    agents: list[Place]
    files: list[Place]
    logs: list[Place]


@functools.cache
def _operations() -> dict[str, Endpoint]:
    return {f"{one.method} {one.path}": one for one in endpoints()}


def everywhere(q: str) -> Found:
    """Ask every source that the caller may ask."""
    return Found(**{group: _group(group, q) for group in GROUPS})


def _group(group: str, q: str) -> list[Place]:
    operation, where = GROUPS[group]
    source = next((one.sources[group] for one in plugins.values() if group in one.sources), None)
    try:
        admit(_operations()[operation].auth, current())
        hits: list[Hit] = source(q, MOST) if source else []
    except Problem as problem:
        if problem.status not in (401, 403):
            raise
        return []
    return [Place(hit.id, _short(hit.title), _short(hit.detail), where.replace("{id}", _spelled(hit.id))) for hit in hits[:MOST]]


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[:WIDTH - 1] + "…"


def _spelled(id: int | str) -> str:
    from urllib.parse import quote
    return quote(str(id), safe="")
