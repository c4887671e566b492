"""Tools: endpoints as a model sees them, and the calling of them.

A tool's arguments are the endpoint's path, query and body in one object. Surprise: null counts as not sent where the field takes no null, for
models fill in whatever a schema names.
"""
import functools
from typing import Any

import msgspec

from orkosi import Actor, Endpoint, Invalid, NotFound, Problem, Request, Unprocessable, admit, complain, current, endpoints, writes, wrong_fields
from plugins.docs.openapi import payload
from plugins.fields import wrong
from plugins.server.limits import limiter
from plugins.tasks import delegation

from .words import MINE, MY_QUEUE, MY_TASK, WORDS, Words

REF = "#/$defs/{name}"


class Tool:
    """An endpoint with its words; bound by then. `fields`: each argument, and what of the endpoint it goes into."""

    def __init__(self, endpoint: Endpoint, words: Words):
        self.endpoint, self.words, self.name = endpoint, words, endpoint.tool
        self.kinds = {where: kind for where, kind in (("query", endpoint.query_type), ("body", endpoint.body_type)) if kind}
        self.fields = {wire: "path" for wire in endpoint.path_names.values()}
        for where, kind in self.kinds.items():
            for one in msgspec.structs.fields(kind):
                if one.encode_name in self.fields:
                    raise TypeError(f"{endpoint.operation}: the tool {self.name} would have two arguments called {one.encode_name}")
                if not words.only or one.encode_name in words.only:
                    self.fields[one.encode_name] = where

    # ── described ──

    def described(self) -> dict[str, Any]:
        """The tool as a client lists it, for whoever asks."""
        reads = self.endpoint.method == "GET"
        return {"name": self.name, "title": self.endpoint.summary, "description": self.words.about, "inputSchema": self._input(),
                "outputSchema": self.output, "annotations": {
                    "title": self.endpoint.summary, "readOnlyHint": reads, "destructiveHint": False, "idempotentHint": reads, "openWorldHint": False}}

    def _input(self) -> dict[str, Any]:
        made: dict[str, Any] = self.input
        if current().kind == "agent" and self.words.own:
            made = made | {"required": [name for name in made["required"] if name not in self.words.own]}
        return made

    @functools.cached_property
    def input(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        shapes, parts = msgspec.json.schema_components(list(self.kinds.values()), ref_template=REF)
        properties = {wire: msgspec.json.schema(self.endpoint.path_types[name]) for name, wire in self.endpoint.path_names.items()}
        required = list(properties)
        for shape in shapes:
            top = parts.pop(shape["$ref"].rpartition("/")[2])
            properties |= {name: _plain(one) for name, one in top["properties"].items() if name in self.fields}
            required += [name for name in top.get("required", ()) if name in self.fields]
        made = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return _portable(made | ({"$defs": parts} if parts else {}))

    @functools.cached_property
    def output(self) -> dict[str, Any]:
        """The JSON schema of what it answers: the endpoint's own envelope, or an error. (Some clients hold refusals against it, too.)"""
        (shape,), parts = msgspec.json.schema_components([payload(self.endpoint.returns)[0]], ref_template=REF)
        made = {"type": "object", "properties": {"data": shape, "meta": {"type": "object"}, "error": {"type": "object"}}}
        return _portable(made | ({"$defs": parts} if parts else {}))

    # ── called ──

    def call(self, arguments: dict[str, Any], request: Request) -> Any:
        """What the endpoint returns for whoever asks. What it raises; Invalid for arguments that it does not take."""
        me = current()
        admit(self.endpoint.auth, me)
        if self.endpoint.limit and request.waits is None:
            limiter.take(self.endpoint.limit, me.ref)
        values = self._values(self._filled(arguments, me), request, me)
        do = functools.partial(self.endpoint.fn, **values)
        if self.endpoint.method == "GET" or not self.endpoint.quick:
            return do()
        return _durably(do) if self.endpoint.durable else _soon(do)

    def _filled(self, arguments: dict[str, Any], me: Actor) -> dict[str, Any]:
        """The arguments, with those that an agent need not send."""
        if unknown := [name for name in arguments if name not in self.fields]:
            raise wrong(unknown[0][:60], f"{self.name} takes no such argument; known: {', '.join(self.fields)}")
        given = {name: value for name, value in arguments.items() if value is not None or self._takes_null(name)}
        if me.kind == "agent":
            given |= {name: self._own(name, what, me) for name, what in self.words.own.items() if name not in given}
        return given

    def _own(self, name: str, what: str, me: Actor) -> Any:
        if what == MY_TASK:
            task = delegation.held_by(me.name)
            if task is None:
                raise Unprocessable(f"{name}: You hold no task now; send its number")
            return task.id
        return {MINE: me.name, MY_QUEUE: f"agent:{me.name}"}[what]

    def _takes_null(self, name: str) -> bool:
        if self.fields[name] != "body":
            return False
        hint = next(one.type for one in msgspec.structs.fields(self.kinds["body"]) if one.encode_name == name)
        try:
            msgspec.convert(None, hint)
        except msgspec.ValidationError:
            return False
        return True

    def _values(self, given: dict[str, Any], request: Request, me: Actor) -> dict[str, Any]:
        values: dict[str, Any] = {"me": me, "request": request}
        for where, kind in self.kinds.items():
            values[where] = _fitted({name: value for name, value in given.items() if self.fields[name] == where}, kind, where == "body")
        for name, wire in self.endpoint.path_names.items():
            if wire not in given:
                raise wrong(wire, "Required")
            values[name] = self.endpoint._path_value(name, str(given[wire]).encode().decode("latin-1"))
        return {name: values[name] for name in self.endpoint.takes}


def _fitted(given: dict[str, Any], kind: Any, strict: bool) -> Any:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        if wrong_fields(kind, given, strict=strict):
            raise complain(kind, given, strict=strict) from None
        raise Invalid(f"The arguments are not acceptable: {error}") from None


def _plain(shape: dict[str, Any]) -> dict[str, Any]:
    """A schema without null, which counts as not sent, and without defaults of null: models pay for every word."""
    if "anyOf" in shape:
        others = [one for one in shape["anyOf"] if one != {"type": "null"}]
        rest = {name: value for name, value in shape.items() if name != "anyOf"}
        shape = rest | (others[0] if len(others) == 1 else {"anyOf": others})
    return {name: value for name, value in shape.items() if name != "default" or value is not None}


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose patterns every client can read: other languages know no \\A and no \\Z."""
    raw = msgspec.json.encode(schema).replace(rb'"pattern":"\\A', b'"pattern":"^').replace(rb'\\Z"', b'$"')
    found: dict[str, Any] = msgspec.json.decode(raw)
    return found


@writes
def _durably(do: functools.partial[Any]) -> Any:
    return do()


@writes(durable=False)
def _soon(do: functools.partial[Any]) -> Any:
    return do()


# ── all of them ──


@functools.cache
def tools() -> dict[str, Tool]:
    """Every tool by its name, in the order of the words. TypeError where words and endpoints do not agree."""
    found = {one.tool: one for one in endpoints() if one.tool}
    if found.keys() != WORDS.keys():
        raise TypeError(f"tools and their words do not agree: {', '.join(sorted(found.keys() ^ WORDS.keys()))}")
    return {name: Tool(found[name], words) for name, words in WORDS.items()}


def allowed() -> list[Tool]:
    """The tools that whoever asks may call."""
    return [tool for tool in tools().values() if may(tool.name)]


def may(name: str) -> bool:
    """Whether whoever asks may call a tool."""
    tool, me = tools()[name], current()
    if me.kind == "agent" and tool.name in ("task_approve", "task_reject", "needs"):
        return False  # what no policy can say
    try:
        admit(tool.endpoint.auth, me)
    except Problem:
        return False
    return True


def named(name: Any) -> Tool:
    """A tool. NotFound."""
    tool = tools().get(name) if isinstance(name, str) else None
    if tool is None:
        raise NotFound(f"There is no tool {str(name)[:60]!r}; tools/list has those there are")
    return tool
