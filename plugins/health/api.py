"""The wire of health: /version, /health, /ready."""
from typing import Literal

from orkosi import PUBLIC, VERSION, Flat, Problem, Reply, Struct, Unavailable
from plugins.health import alive, plugin, uptime


class Version(Struct):
    version: str
    uptime: int


class Health(Flat):
    status: Literal["ok", "error"]
    version: str
    uptime: int
    db: Literal["connected", "error"]
    redis: Literal["connected", "disconnected", "not_configured", "error"]


class Ready(Struct):
    ready: bool


@plugin.get("/api/version", quick=True, auth=PUBLIC)
def version() -> Version:
    """The version that runs, and for how many seconds"""
    return Version(VERSION, uptime())


@plugin.get("/api/health", quick=True, auth=PUBLIC, statuses=(503,))
def health() -> Reply[Health]:
    """Whether the database answers

    `redis` is always `not_configured`: the queue lives in the database."""
    try:
        fine = alive()
    except Problem:
        fine = False
    return Reply(Health("ok" if fine else "error", VERSION, uptime(), "connected" if fine else "error", "not_configured"), 200 if fine else 503)


@plugin.get("/api/ready", quick=True, auth=PUBLIC, raises=(503,))
def ready() -> Ready:
    """Whether requests can be served"""
    try:
        fine = alive()
    except Problem as problem:
        raise Unavailable(f"Not ready: {problem.message}") from None
    if not fine:
        raise Unavailable("Not ready: the database does not answer")
    return Ready(True)
