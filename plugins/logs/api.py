"""The wire of logs: /logs. All of it is the host's: lines belong to the machine, not to a tenant."""
from typing import Annotated, Any

from orkosi import Actor, Denied, Meta, Page, Request, Struct, may
from plugins import logs
from plugins.logs import Line, LogFile, LogQuery, following, plugin
from plugins.server.feeds import document


class NewLine(Struct, forbid_unknown_fields=True):
    agent: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(min_length=1)]
    level: Annotated[str, Meta(max_length=20, description="debug, trace, info and notice are info; warn and warning; error, critical and fatal "
                                                           "are error; in any case")] = "info"
    meta: dict[str, Any] | None = None


@plugin.get("/api/logs", auth=may("editor", "logs:read", host=True), raises=(400, 503), tool="log_read")
def index(query: LogQuery, request: Request, me: Actor) -> Page[Line]:
    """List log lines, from files and from agents

    Newest first, in the order they came in. `q` finds lines that have all its words, or words that begin with them. With `follow`, a stream of
    server-sent events called `line`, from now on, or after the header `Last-Event-ID`: each is a line as it comes in, and `q` finds its words
    wherever they stand."""
    if not query.follow:
        return logs.page(query)
    wanted = following.Wanted(query.whose(), query.source, query.level, tuple((query.q or "").casefold().split()))
    return document(following.feed(me.tenant or 0, wanted, request.header("Last-Event-ID")))  # type: ignore[return-value]


@plugin.post("/api/logs", quick=True, durable=False, auth=may("member", "logs:write", host=True), status=201, raises=(400,), tool="log_write")
def create(body: NewLine, me: Actor) -> Line:
    """Store a log line of an agent

    An agent's key writes for its own agent alone. A message beyond 8 KiB is cut."""
    if me.kind == "agent" and body.agent != me.name:
        raise Denied(f"This key belongs to the agent {me.name!r} and writes no logs for others; send \"agent\": \"{me.name}\"")
    return logs.record(body.agent, body.message, body.level, body.meta)


@plugin.get("/api/logs/files", auth=may("editor", "logs:read", host=True))
def files() -> list[LogFile]:
    """List the log files on the disk, by path"""
    return logs.files()
