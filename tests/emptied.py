"""What the stories are worth: `--emptied` makes an operation answer nothing, and a story of it must notice.

    pytest --emptied "GET /api/tasks"          an empty thing of the right type; the operation's function is not called
    pytest --emptied "GET /api/tasks:title"    the real answer, but for one field (`lease.worker_id`, `meta.total`, of a file `body`)
    pytest --emptied "POST /api/tasks:kept"    the real answer, but nothing of it is kept: what it wrote is undone
    pytest --emptied "GET /api/tasks:query.q"  as if this had not been sent (`body.title`)
    pytest --emptied "GET /api/tasks*"         one after the other, every operation and field that fits; `*` is all of them

A story is a test marked `story("GET /api/tasks")`. The last way prints what no story noticed, and fields that were empty
in every story: of those, nobody would miss the real value.
"""
import fnmatch
import functools
import json
import types
import typing
from collections import defaultdict
from contextlib import contextmanager

import msgspec
import pytest
from _pytest.runner import runtestprotocol

import orkosi
from orkosi import Deleted, Document, Page, Reply, db

orkosi.load()
OPERATIONS = {f"{one.method} {one.path}": one for one in orkosi.endpoints()}
EMPTY = {str: "", int: 0, float: 0.0, bool: False, bytes: b"", list: [], dict: {}}


def pytest_addoption(parser):
    parser.addoption("--emptied", metavar="OPERATION[:FIELD]", help="answer nothing where the operation or field has something; see tests/emptied.py")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.getoption("--emptied"):
        config.option.numprocesses = 0  # one process replaces the operation and runs its stories


def stories_of(item):
    """The operations whose story a test is."""
    return {name for mark in item.iter_markers("story") for name in mark.args}


def narrow(config, items):
    """With `--emptied`, leave out what tells no story of it."""
    if wanted := config.getoption("--emptied"):
        asked = [name for name in OPERATIONS if fnmatch.fnmatchcase(name, wanted.partition(":")[0])]
        others = [one for one in items if not stories_of(one) & set(asked)]
        items[:] = [one for one in items if one not in others]
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    wanted = session.config.getoption("--emptied")
    if not wanted or session.config.option.collectonly:
        return None
    if "*" in wanted:
        session.testsfailed = sweep(session.items, wanted)
        return True
    name, _, field = wanted.partition(":")
    with emptied(OPERATIONS[name], field):
        session.testsfailed = sum(not holds(one, log=True) for one in session.items)
    return True


# ── one operation or field ──


@contextmanager
def emptied(endpoint, field=""):
    """As long as this is open, the operation answers nothing; or its real answer, but for a field."""
    fn = endpoint.fn
    if field == "kept":
        endpoint.fn = functools.wraps(fn)(lambda **values: _undone(fn, values))
    elif field.startswith(("query.", "body.")):
        endpoint.values = lambda request, path: _unsent(type(endpoint).values(endpoint, request, path), field)
    elif field:
        endpoint.answer = lambda made: _without(type(endpoint).answer(endpoint, made), field, isinstance(made, Document))
    else:
        returns = typing.get_type_hints(fn, include_extras=True).get("return")
        endpoint.fn = functools.wraps(fn)(lambda **values: _empty(returns, values))
    try:
        yield
    finally:
        endpoint.fn = fn
        vars(endpoint).pop("answer", None)
        vars(endpoint).pop("values", None)


def _empty(kind, values):
    """An empty thing of that type. What was deleted still says its id: only that it is gone tells the difference."""
    kind, arguments = _opened(kind)
    if kind is Deleted:
        return Deleted(next((one for one in reversed(values.values()) if isinstance(one, (int, str))), 0))
    if kind is Document:
        return Document(b"", "")
    if kind is Page:
        return Page([], 0, 50, 0)
    if kind is Reply:
        return Reply(_empty(arguments[0], values))
    if kind in (types.UnionType, typing.Union):
        return None if type(None) in arguments else _empty(arguments[0], values)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(**{one.name: _empty(one.type, values) for one in msgspec.structs.fields(kind)})
    return EMPTY.get(kind, "" if kind is typing.Literal else None)


def _opened(kind):
    """A type without its annotations, and what stands in its brackets."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) or kind, typing.get_args(kind)


class Undo(Exception):
    """Ends a write as if nothing had happened."""


_writing = set()  # the functions that wrote anything


def _undone(fn, values):
    made = []

    def run():
        before = db.writer.total_changes()
        made.append(fn(**values))
        if db.writer.total_changes() > before:
            _writing.add(fn)
        raise Undo
    try:
        db.write(run)
    except Undo:
        return made[0]


def _unsent(values, field):
    where, _, name = field.partition(".")
    one = next(one for one in msgspec.structs.fields(values[where]) if one.encode_name == name)
    setattr(values[where], one.name, one.default if one.default is not msgspec.NODEFAULT else one.default_factory())
    return values


def _without(answer, field, whole):
    status, headers, body = answer
    if whole:
        kept = [(name, "" if (field, name) == ("type", "Content-Type") else value) for name, value in headers]
        return status, kept, b"" if field == "body" else body
    found, names = json.loads(body), field.split(".")
    around = names[0] == "meta" and names[1:] and names[1] in found.get("meta", ())  # of the envelope; a log line has a `meta` of its own
    names = names if around or "data" not in found else ["data", *names]
    return status, headers, json.dumps(_blanked(found, names)).encode()


def _blanked(found, names):
    if isinstance(found, list):
        return [_blanked(one, names) for one in found]
    if not isinstance(found, dict) or names[0] not in found:
        return found
    value = found[names[0]]
    return found | {names[0]: _blanked(value, names[1:]) if names[1:] else _other(value)}


def _other(value):
    """Nothing, where there is something; something, where there is nothing."""
    if value:
        return type(value)()
    return {bool: True, int: 1, float: 1.0, list: ["emptied"], dict: {"emptied": True}}.get(type(value), "emptied")


# ── all of them ──


def fields_of(kind):
    """Every field that an answer of that type can have, dotted where it is nested."""
    kind, arguments = _opened(kind)
    if kind is Deleted:
        return ["deleted", "id"]
    if kind is Document:
        return ["body", "type"]
    if kind is Page:
        return [*fields_of(arguments[0]), "meta.total", "meta.limit", "meta.offset", "meta.has_more", "meta.next_after"]
    if kind in (Reply, list, types.UnionType, typing.Union):
        return list(dict.fromkeys(name for one in arguments for name in fields_of(one)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [name for one in msgspec.structs.fields(kind)
                for name in (one.encode_name, *(f"{one.encode_name}.{inner}" for inner in fields_of(one.type)))]
    return []


def optional(endpoint):
    """What may be sent to an operation, and may be left out."""
    return [f"{where}.{one.encode_name}" for where, kind in (("query", endpoint.query_type), ("body", endpoint.body_type)) if kind
            for one in msgspec.structs.fields(kind) if not one.required]


def sweep(items, wanted):
    """Empty what fits `wanted`, one after the other, and print what no story noticed; how much that is."""
    stories = defaultdict(list)
    for item in items:
        for name in stories_of(item):
            stories[name].append(item)
    with _watched() as filled:
        broken = [item.nodeid for item in items if not holds(item)]
    survived, dull, tried = [], [], 0
    for name, told in stories.items():
        endpoint = OPERATIONS[name]
        known = fields_of(endpoint.returns)
        seen = [f"meta.{one}" for one in filled[name, "meta"] if f"meta.{one}" not in known]
        known = [one for one in known if "." not in one or one.rpartition(".")[0] in filled[name] | {"meta"}]  # else nothing is in it
        dull += [f"{name}:{one}" for one in known if one not in filled[name] and fnmatch.fnmatchcase(f"{name}:{one}", wanted)]
        for field in ("", *known, *seen, *optional(endpoint), "kept"):
            if fnmatch.fnmatchcase(f"{name}:{field}" if field else name, wanted):
                tried += 1
                with emptied(endpoint, field):
                    if all(holds(item) for item in told) and (field != "kept" or endpoint.fn.__wrapped__ in _writing):
                        survived.append(f"{name}:{field}" if field else name)
    for title, lines in (("fail as they stand", broken), ("are empty in every story", dull), ("are missed by no story", survived)):
        print(f"\n{len(lines)} {title}", *lines, sep="\n  ")
    print(f"\n{tried} emptied, {tried - len(survived)} noticed")
    return len(broken) + len(survived)


def holds(item, log=False):
    """Run a test, which may have run before; whether it passed."""
    item._initrequest()
    return not any(report.failed for report in runtestprotocol(item, log=log, nextitem=None))


@contextmanager
def _watched():
    """Operation → the fields that were filled in any of its answers."""
    filled = defaultdict(set)

    def watch(name, endpoint, made):
        status, headers, body = type(endpoint).answer(endpoint, made)
        found = {"body": 1, "type": 1} if isinstance(made, Document) else json.loads(body)
        filled[name] |= _filled(found.get("data", found))
        filled[name, "meta"] |= _filled(found.get("meta"))
        filled[name] |= {f"meta.{one}" for one in filled[name, "meta"]}
        return status, headers, body
    for name, endpoint in OPERATIONS.items():
        endpoint.answer = functools.partial(watch, name, endpoint)
    try:
        yield filled
    finally:
        for endpoint in OPERATIONS.values():
            vars(endpoint).pop("answer", None)


def _filled(found, prefix=""):
    if isinstance(found, list):
        return set().union(*(_filled(one, prefix) for one in found))
    if not isinstance(found, dict):
        return set()
    names = {prefix + name for name, value in found.items() if value not in (None, "", 0, False, [], {})}
    return names.union(*(_filled(value, f"{prefix}{name}.") for name, value in found.items()))
