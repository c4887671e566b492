"""JSON-RPC, as MCP speaks it over HTTP: one message in, one out; what is wrong with a message; which revision it is of.

Of the revision without a handshake, each request says its version and what its client can do, in `_meta` and in headers that must agree; of the one
with, the header alone says it. Surprise: a fault has a status of HTTP as well in the former, and in the latter only where the message is none.
"""
import base64
import binascii
import re
from typing import Any

from orkosi import VERSION, Document, Invalid, Request, clean, msgspec, strict

from . import HANDSHAKE, OLDER, STATELESS, VERSIONS

PARSE, INVALID, METHOD, PARAMS = -32700, -32600, -32601, -32602
HEADERS, UNSUPPORTED, NOT_FOUND, CANCELLED = -32020, -32022, -32002, -32000
STATUS = {PARSE: 400, INVALID: 400, PARAMS: 400, HEADERS: 400, UNSUPPORTED: 400, METHOD: 404}
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "resources/read": "uri"}  # what the header Mcp-Name repeats
SERVER = {"name": "orkosi", "title": "Orkosi", "version": VERSION}
JSON = "application/json"


class Fault(Exception):
    """An error of the protocol; `id` is that of the request, where it has a good one."""

    def __init__(self, code: int, message: str, data: Any = None, id: int | str | None = None):
        super().__init__(message)
        self.code, self.message, self.data, self.id = code, message, data, id


class Message:
    """A request, or a notification where `id` is None. `meta` is what it says beside its parameters."""

    def __init__(self, method: str, params: dict[str, Any], id: int | str | None, version: str):
        self.method, self.params, self.id, self.version = method, params, id, version

    @property
    def meta(self) -> dict[str, Any]:
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}

    @property
    def stateless(self) -> bool:
        """Whether it is of the revision that has no handshake."""
        return self.version == STATELESS


def read(request: Request) -> Message | None:
    """The message that a request carries; None for an answer, which nobody asked for. Fault."""
    try:
        raw = request.json()
        found = strict(raw)
    except Invalid as error:
        raise Fault(PARSE, error.message) from None
    if isinstance(found, list):
        raise Fault(INVALID, "A batch is not taken; send one message at a time")
    if not isinstance(found, dict) or found.get("jsonrpc") != "2.0":
        raise Fault(INVALID, 'Send one JSON-RPC message, with "jsonrpc": "2.0"')
    if "method" not in found and ("result" in found or "error" in found):
        return None
    id, method, params = found.get("id"), found.get("method"), found.get("params", {})
    if "id" in found and (isinstance(id, bool) or not isinstance(id, int | str)):
        raise Fault(INVALID, "id: Send a string or a whole number")
    if not isinstance(method, str) or not isinstance(params, dict):
        raise Fault(INVALID, "Send a method, and params as an object", id=id)
    if unknown := found.keys() - {"jsonrpc", "id", "method", "params"}:
        raise Fault(INVALID, f"{clean(sorted(unknown)[0], 60)}: Unknown member of a message", id=id)
    message = Message(method, params, id, request.header("MCP-Protocol-Version").strip())
    if message.id is None:
        return message
    try:
        _say_version(message, request)
    except Fault as fault:
        fault.id = id
        raise
    return message


def _say_version(message: Message, request: Request) -> None:
    """Settle which revision a request is of, and see that all that says so agrees."""
    said = message.meta.get(f"{META}protocolVersion")
    if said is None and message.version not in (STATELESS, "") and message.version not in (*VERSIONS, *OLDER) and message.method != "initialize":
        raise _unsupported(message.version)
    if said is None and message.version != STATELESS and message.method != "server/discover":
        message.version = HANDSHAKE
        return
    if not isinstance(said, str) or not isinstance(message.meta.get(f"{META}clientCapabilities"), dict):
        raise Fault(PARAMS, f"params._meta: Say {META}protocolVersion, a string, and {META}clientCapabilities, an object")
    if message.version != said:
        raise Fault(HEADERS, f"The header MCP-Protocol-Version is {clean(message.version, 40)!r}, and _meta says {clean(said, 40)!r}")
    if said != STATELESS:
        raise _unsupported(said)
    _require_header(request, "Mcp-Method", message.method)
    if (name := NAMED.get(message.method)) and isinstance(message.params.get(name), str):
        _require_header(request, "Mcp-Name", message.params[name])


def _unsupported(version: str) -> Fault:
    return Fault(UNSUPPORTED, f"Protocol version {clean(version, 40)!r} is not spoken here; these are: {', '.join(VERSIONS)}",
                 {"supported": list(VERSIONS), "requested": clean(version, 40)})


def _require_header(request: Request, name: str, wanted: str) -> None:
    said = _decoded(request.header(name).strip())
    if said != wanted:
        raise Fault(HEADERS, f"The header {name} is {clean(said or '', 100)!r}, and the message says {clean(wanted, 100)!r}")


def _decoded(text: str) -> str | None:
    """What a header says: as it is, or in base64 where it could not be said so."""
    found = re.fullmatch(r"=\?base64\?(.*)\?=", text)
    if found is None:
        return text
    try:
        raw = base64.b64decode(found[1], validate=True)
        return raw.decode() if base64.b64encode(raw).decode() == found[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


# ── answers ──


def result(message: Message, made: dict[str, Any], cached: int | None = None) -> bytes:
    """A result as bytes; `cached`: for how many milliseconds a client may keep it for itself."""
    if message.stateless:
        made = made | {"resultType": "complete", "_meta": {f"{META}serverInfo": SERVER}}
        made |= {} if cached is None else {"ttlMs": cached, "cacheScope": "private"}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "result": made})


def answer(message: Message, made: dict[str, Any], cached: int | None = None) -> Document:
    """The same as an answer."""
    return Document(result(message, made, cached), JSON)


def failed(fault: Fault, stateless: bool) -> Document:
    """A fault as an answer."""
    error = {"code": fault.code, "message": fault.message} | ({} if fault.data is None else {"data": fault.data})
    status = STATUS.get(fault.code, 200) if stateless or fault.code in (PARSE, INVALID, UNSUPPORTED, HEADERS) else 200
    return Document(msgspec.json.encode({"jsonrpc": "2.0", "id": fault.id, "error": error}), JSON, status=status)


def heard() -> Document:
    """What a notification gets."""
    return Document(b"", JSON, status=202)
