"""Asking: what the API would answer whoever looks at a page, by the same function and the same policy.

Owns nothing. Surprise: nothing goes over the wire: the operation is called as it is, with what a query or a path would have been.
"""
from functools import cache
from typing import Any

import msgspec

from orkosi import Endpoint, Page, Policy, Problem, Reply, Request, admit, current, endpoints
from plugins.fields import wrong


@cache
def operations() -> dict[str, Endpoint]:
    """Every operation, as "GET /api/tasks"."""
    return {f"{one.method} {one.path}": one for one in endpoints()}


def policy(operation: str) -> Policy:
    """Who may call an operation; unknown ones raise."""
    return operations()[operation].auth


def can(operation: str) -> bool:
    """Whether the API would let whoever asks call an operation; unknown ones raise."""
    try:
        admit(policy(operation), current())
    except Problem:
        return False
    return True


def answer(operation: str, request: Request, path: dict[str, str] | None = None, /, **query: Any) -> Any:
    """What an operation that reads answers, without its envelope. What it raises; Invalid for a query that it does not take."""
    endpoint = operations()[operation]
    admit(endpoint.auth, current())
    values: dict[str, Any] = {}
    for name in endpoint.takes:
        if name in endpoint.path_types:
            values[name] = _convert((path or {})[name], endpoint.path_types[name], name)
        elif name == "query":
            values[name] = _query(endpoint, {key: value for key, value in query.items() if value not in (None, "", [])})
        else:
            values[name] = current() if name == "me" else request
    found = endpoint.fn(**values)
    return found.data if isinstance(found, Reply) else found


def _query(endpoint: Endpoint, given: dict[str, Any]) -> Any:
    for name in endpoint.lists & given.keys():
        given[name] = [one for one in str(given[name]).split(",") if one]
    return _convert(given, endpoint.query_type, "query")


def _convert(given: Any, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong(name, str(error)) from None


def seek(operation: str, request: Request, path: dict[str, str] | None = None, /, **query: Any) -> Any:
    """The same; None where whoever asks may not, or there is none."""
    try:
        return answer(operation, request, path, **query)
    except Problem as problem:
        if problem.status in (401, 403, 404):
            return None
        raise


def page(found: Any) -> Page[Any]:
    """A list, as a page of it."""
    return found if isinstance(found, Page) else Page(found, len(found), max(len(found), 1), 0)
