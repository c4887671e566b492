"""The wire of logs: /logs. All of it is the host's: lines belong to the machine, not to a tenant."""
from typing import Annotated, Any

from orkosi import Actor, Denied, Meta, Page, Struct, may
from plugins import logs
from plugins.logs import Line, LogFile, LogQuery, plugin


class NewLine(Struct, forbid_unknown_fields=True):
    agent: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(min_length=1)]
    level: Annotated[str, Meta(max_length=20, description="debug, trace, info and notice are info; warn and warning; error, critical and fatal "
                                                           "are error; in any case")] = "info"
    meta: dict[str, Any] | None = None


@plugin.get("/api/logs", auth=may("editor", "logs:read", host=True))
def index(query: LogQuery) -> Page[Line]:
    """List log lines, from files and from agents

    Newest first, in the order they came in. `q` finds lines that have all its words, or words that begin with them."""
    return logs.page(query)


@plugin.post("/api/logs", quick=True, durable=False, auth=may("member", "logs:write", host=True), status=201, raises=(400,))
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
