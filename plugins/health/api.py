"""The wire of health: /version, /health, /ready."""
from typing import Literal

from orkosi import PUBLIC, RANKS, VERSION, Actor, Flat, Problem, Reply, Struct, Unavailable, may
from plugins.health import Company, alive, company, machine, plugin, uptime


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
    """Whether the database answers, and takes writes

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
        raise Unavailable("Not ready: the database does not answer, or a write hangs")
    return Ready(True)


class Arch(Struct):
    """How the server is: a word for each thing it needs. `details` are for administrators."""
    status: Literal["ok", "degraded"]
    checks: dict[str, machine.Word]
    details: dict[str, str] | None


@plugin.get("/api/arch-health", auth=PUBLIC, statuses=(503,))
def arch(me: Actor) -> Reply[Arch]:
    """Say how the server is: database, memory, disk, git, tunnel, limits, watchers, scheduler, backups

    Each is ok, warn, fail or off; 503 where database, disk or watchers fail. An administrator of the host also sees details."""
    found = machine.look()
    words = {name: one.word for name, one in found.items()}
    details = {name: one.detail for name, one in found.items()} if me.host and me.rank >= RANKS["admin"] else None
    status: Literal["ok", "degraded"] = "degraded" if {"warn", "fail"} & set(words.values()) else "ok"
    return Reply(Arch(status, words, details), 503 if any(words[name] == "fail" for name in machine.NEEDED) else 200)


@plugin.get("/api/system/health", auth=may("viewer", "agents:read", host=True))
def system_health() -> Company:
    """Say how the company is: points for agents, tasks, products and files

    A section's score is the share of its checks that are well; the whole is the mean of the sections. Each check says what was found, and how to
    mend it."""
    return company()
