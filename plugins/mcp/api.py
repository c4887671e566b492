"""The wire of MCP: POST /mcp. GET and DELETE answer 405, as of a server without sessions."""
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orkosi import SIGNED_IN, Denied, Document, NotFound, Problem, Reply, Request
from plugins.server.flow import NoRoom
from plugins.server.hosts import Hosts
from plugins.server.parked import Parked

from . import HANDSHAKE, OLDER, VERSIONS, plugin, resources, rpc, tools, waiting
from .rpc import CANCELLED, METHOD, NOT_FOUND, PARAMS, Fault, Message
from .words import INSTRUCTIONS

LISTS = 60_000  # milliseconds for which a client may keep a list: another key has another one, and a key may be given other scopes
CAN: dict[str, Any] = {"tools": {}, "resources": {}}
HEARD = "orkosi.mcp"
hosts = Hosts()


@plugin.post("/mcp", auth=SIGNED_IN, statuses=(202,), raises=(400, 404))
def answer(request: Request) -> Document:
    """Speak MCP: the API as tools and resources of an agent's own tool

    JSON-RPC, one message at a time, without sessions; with the keys and sessions of the API. A call that waits is a stream where its client asks
    for progress."""
    _require_origin(request)
    message: Message | None = request.environ.get(HEARD)  # asked once more after a wait, its body is read already
    try:
        message = request.environ[HEARD] = message or rpc.read(request)
        if message is None or message.id is None:
            if message and message.method == "notifications/cancelled":
                waiting.cancel(message.params.get("requestId"))
            return rpc.heard()
        return _done(message, request)
    except Fault as fault:
        if message is not None:
            fault.id = message.id
        return rpc.failed(fault, message is None or message.stateless or request.header("MCP-Protocol-Version") not in ("", HANDSHAKE, *OLDER))


def _require_origin(request: Request) -> None:
    """Denied where a page of another site asks."""
    if origin := request.header("Origin"):
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            name = "?"
        if name not in hosts.names and not re.fullmatch(r"127\.0\.0\.\d{1,3}|::1", name):
            raise Denied("Origin: A page of another site may not ask here")


def _done(message: Message, request: Request) -> Document:
    if message.method == "tools/call":
        return _call(message, request)
    if message.method == "tools/list":
        _only_page(message)
        return rpc.answer(message, {"tools": [tool.described() for tool in tools.allowed()]}, LISTS)
    if message.method == "resources/list":
        _only_page(message)
        return rpc.answer(message, {"resources": resources.known(request)}, 0)
    if message.method == "resources/templates/list":
        _only_page(message)
        return rpc.answer(message, {"resourceTemplates": resources.templates()}, LISTS)
    if message.method == "resources/read":
        try:
            return rpc.answer(message, {"contents": [resources.contents(message.params.get("uri"), request)]}, 0)
        except resources.Missing as missing:
            raise Fault(PARAMS if message.stateless else NOT_FOUND, str(missing), {"uri": message.params.get("uri")}) from None
    return _greeted(message)


def _greeted(message: Message) -> Document:
    """What a client begins with."""
    if message.stateless and message.method == "server/discover":
        return rpc.answer(message, {"supportedVersions": list(VERSIONS), "capabilities": CAN, "instructions": INSTRUCTIONS}, LISTS)
    if not message.stateless and message.method == "initialize":
        asked = message.params.get("protocolVersion")
        spoken = asked if asked in OLDER else HANDSHAKE
        return rpc.answer(message, {"protocolVersion": spoken, "capabilities": CAN, "serverInfo": rpc.SERVER, "instructions": INSTRUCTIONS})
    if not message.stateless and message.method == "ping":
        return rpc.answer(message, {})
    raise Fault(METHOD, f"There is no method {message.method[:60]!r}")


def _only_page(message: Message) -> None:
    if message.params.get("cursor") is not None:
        raise Fault(PARAMS, "cursor: All is on the first page")


# ── calling ──


def _call(message: Message, request: Request) -> Document:
    arguments = message.params.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise Fault(PARAMS, "arguments: Send an object")
    try:
        tool = tools.named(message.params.get("name"))
    except NotFound as missing:
        raise Fault(PARAMS, missing.message) from None
    if waiting.was_cancelled(request.waits):
        request.waits.leave()
        raise Fault(CANCELLED, "Cancelled")

    def finished(made: Any) -> bytes:
        return rpc.result(message, _told(tool, made))

    try:
        made: Any = tool.call(arguments or {}, request)
    except Parked as parked:
        if not isinstance(parked.nothing, Document):
            stream = request.waits is None and waiting.followed(
                message, parked, request.header("Accept"), lambda: tool.call(arguments or {}, request), finished)
            if stream:
                return stream
            parked.nothing = Document(finished(parked.nothing), rpc.JSON)
        waiting.stand(message, parked)
        raise
    except NoRoom:
        raise
    except Problem as problem:
        made = problem
    return Document(finished(made), rpc.JSON)


def _told(tool: tools.Tool, made: Any) -> dict[str, Any]:
    """What a tool answers: the envelope of its endpoint, as data and as text; a refusal in its own words."""
    if isinstance(made, Problem):
        error = {"code": made.code, "message": made.message} | ({} if made.details is None else {"details": made.details})
        error |= {"retry_after_seconds": made.headers["Retry-After"]} if "Retry-After" in made.headers else {}
        said = msgspec.json.encode({"error": error})
        return {"content": [{"type": "text", "text": said.decode()}], "structuredContent": msgspec.Raw(said), "isError": True}
    _, _, raw = tool.endpoint.answer(made if isinstance(made, Reply) else Reply(made))
    return {"content": [{"type": "text", "text": raw.decode()}], "structuredContent": msgspec.Raw(raw), "isError": False}
