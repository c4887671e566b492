"""The idle check: is there anything to do? One indexed read, no write, asked by a shell with curl.

It is public, and so it says nothing that a stranger could use: an unknown agent looks like one with
an empty queue. Runs it saved are counted in memory and written down every few seconds.
"""
from collections import Counter

from orkosi import HOST_TENANT, Struct, across_tenants, acting, db, emit, system, writes
from plugins import queue

from .rows import plugin


class Idle(Struct):
    """Whether a run can be skipped, and why."""
    skip: bool
    reason: str


class Skipped(Struct):
    """So many runs of an agent that were saved."""
    tenant_id: int
    name: str
    count: int


_saved: Counter[tuple[int, str]] = Counter()
NOTHING = Idle(True, "nothing to do")


@across_tenants
def check(name: str, mode: str = "task", tenant: int = HOST_TENANT) -> Idle:
    """Whether an agent may skip this cycle. For `discovery` there is always nothing: no engine is ever due."""
    wanted = db.one(tuple, """
        SELECT wanted, EXISTS (SELECT 1 FROM jobs WHERE tenant_id = :home AND queue = :queue AND state = 'waiting'),
               EXISTS (SELECT 1 FROM queues WHERE tenant_id = :home AND queues.name = :queue AND paused_at IS NOT NULL)
          FROM agents WHERE tenant_id = :home AND name = :name""", home=tenant, name=name, queue=f"agent:{name}")
    if wanted is None:
        return NOTHING
    asked, waiting, paused = wanted
    if mode == "task" and asked == "running" and waiting and not paused:
        with acting(system(tenant)):
            if not queue.shut(f"agent:{name}"):
                return Idle(False, "work is waiting")
    _saved[tenant, name] += 1
    return Idle(True, "stopped") if asked == "stopped" else Idle(True, "paused") if asked == "paused" or paused else NOTHING


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Another data folder has its own agents."""
    _saved.clear()


@plugin.every("5s")
def write_saved() -> None:
    """Write down how many runs were saved since the last time."""
    if _saved:
        _add([(*agent, _saved.pop(agent)) for agent in list(_saved)])


@writes(durable=False)
@across_tenants
def _add(batch: list[tuple[int, str, int]]) -> None:
    for home, name, count in batch:
        db.run("UPDATE agents SET idle_skips = idle_skips + :count WHERE tenant_id = :home AND name = :name",
               count=count, name=name, home=home)
        emit("idle.skipped", Skipped(home, name, count))
