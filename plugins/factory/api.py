"""The wire of the factory: its workers, what they do, and how many there are to be."""

from typing import Annotated, Literal

from orkosi import UNSET, Meta, Problem, Reply, Struct, UnsetType, db, may, now, seconds
from plugins import factory, queue, supervisor
from plugins.factory import Alert, State, Worker, plugin
from plugins.factory.running import Live, alerts_of, look, state_of
from plugins.fields import wrong
from plugins.queue import Name

READ, WRITE = may("viewer", "agents:read", host=True), may("admin", host=True)
Places = Annotated[list[Name], Meta(min_length=1, max_length=20, description="Of whose queues the workers take jobs")]


class FactoryPatch(Struct, forbid_unknown_fields=True):
    worker_count: Annotated[int, Meta(ge=0, le=16)] | UnsetType = UNSET
    max_concurrent: Annotated[int, Meta(ge=1, le=8, description="Jobs that one worker runs at once")] | UnsetType = UNSET
    queues: Places | UnsetType = UNSET


class FactoryConfig(Struct):
    """What is wanted; `wanted` and `running` are numbers of workers."""
    worker_count: int
    max_concurrent: int
    queues: list[str]
    wanted: int
    running: int


class Working(Struct):
    """A job that a worker runs, and for how many seconds."""
    job_id: str
    task_type: str
    seconds: float


class FactoryWorker(Struct):
    """A worker. `completed` and `failed` count attempts since it was made, `throughput_per_hour` jobs of the last hour; `avg_seconds`: of
    those it completed in 24 hours."""
    id: int
    label: str
    state: State
    pid: int | None
    queues: list[str]
    slots: int
    busy: int
    current: list[Working]
    completed: int
    failed: int
    throughput_per_hour: int
    avg_seconds: float | None
    restarts: int
    last_error: str | None
    started_at: str | None
    last_seen_at: str | None


class FactoryStats(Struct):
    """The factory in 24 hours: `workers` that run, their slots, the jobs of their queues, and the attempts of theirs that ended;
    `throughput_per_hour`: jobs completed in the last hour."""
    workers: int
    busy: int
    slots: int
    waiting: int
    active: int
    completed: int
    failed: int
    dead: int
    throughput_per_hour: int
    avg_seconds: float | None
    p95_seconds: float | None
    oldest_waiting_seconds: int | None


class WorkerHealth(Struct):
    """A worker as the supervisor has it."""
    id: int
    label: str
    pid: int | None
    loaded: bool
    last_exit_status: int | None
    state: State


class FactoryHealth(Struct):
    """`down`: none runs of those that are wanted; `degraded`: there is an alert."""
    status: Literal["ok", "degraded", "down"]
    supervisor: Literal["launchd", "embedded"]
    workers: list[WorkerHealth]
    alerts: list[Alert]


def at_work() -> dict[str, list[Working]]:
    """What each worker runs now, by its name."""
    found: dict[str, list[Working]] = {}
    for id, task_type, worker, since in sorted(db.all(tuple, """SELECT id, task_type, worker_id, claimed_at FROM jobs
                                                                 WHERE tenant_id = :tenant AND state = 'active' AND lease_expires_at > ''""")):
        name = (worker or "").partition("/")[0]
        found.setdefault(name, []).append(Working(f"job_{id}", task_type, round(seconds(now()) - seconds(since), 1)))
    return found


def truth(found: list[Worker]) -> list[Live]:
    """What is true of workers; nothing, where the supervisor does not answer."""
    try:
        return look(found)
    except Problem:
        return [Live(supervisor.Status(), {}) for _ in found]


def seen(one: Worker, live: Live, current: list[Working]) -> FactoryWorker:
    day = factory.last_day(one.number)
    return FactoryWorker(one.number, one.label, state_of(one, live, bool(current)), live.status.pid, one.queues, one.slots, len(current), current,
                         one.completed, one.failed, day.last_hour, day.avg_seconds, one.restarts, one.last_error,
                         live.told.get("started_at"), live.told.get("seen_at"))


@plugin.get("/api/factory-workers", auth=READ)
def index() -> Reply[list[FactoryWorker]]:
    """List the worker processes of this machine, and what each is doing"""
    found, current, wanted = factory.workers(), at_work(), factory.config()
    shown = [seen(one, live, current.get(one.name, [])) for one, live in zip(found, truth(found), strict=True)]
    return Reply(shown, meta={"worker_count": wanted.worker_count, "max_concurrent": wanted.max_concurrent, "slots": sum(one.slots for one in shown),
                              "busy": sum(one.busy for one in shown)})


@plugin.get("/api/factory-workers/stats", auth=READ)
def stats() -> FactoryStats:
    """Count what the factory did in 24 hours, and what waits for it"""
    found, current, day = factory.workers(), at_work(), factory.last_day()
    running = sum(1 for live in truth(found) if live.status.pid)
    places = sorted({name for one in found for name in one.queues} or factory.config().queues)
    counted = [queue.stats(name) for name in places]
    oldest = min((one.oldest_waiting_at for one in counted if one.oldest_waiting_at), default=None)
    dead = sum(db.value("SELECT count(*) FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'dead' AND finished_at >= :since",
                        queue=name, since=now(-factory.DAY)) for name in places)
    return FactoryStats(running, sum(len(current.get(one.name, [])) for one in found), sum(one.slots for one in found),
                        sum(one.counts["waiting"] for one in counted), sum(one.counts["active"] for one in counted), day.completed, day.failed, dead,
                        day.last_hour, day.avg_seconds, day.p95_seconds, None if oldest is None else max(0, int(seconds(now()) - seconds(oldest))))


@plugin.patch("/api/factory-workers/config", auth=WRITE, raises=(400, 409))
def configure(body: FactoryPatch) -> FactoryConfig:
    """Say how many workers there are to be, and how many jobs each runs at once

    They are processes under the supervisor, and come and go within seconds; one that must go has 60 s for its jobs. Whoever is held, for it
    died five times within a minute, is tried again where `worker_count` is sent."""
    queues = None if body.queues is UNSET else list(dict.fromkeys(queue.named(name) for name in body.queues))
    if any(name.startswith("agent:") for name in queues or ()):
        raise wrong("queues", "Queues that begin with agent: are the agents' own")
    after = factory.configure(worker_count=None if body.worker_count is UNSET else body.worker_count,
                              max_concurrent=None if body.max_concurrent is UNSET else body.max_concurrent, queues=queues)
    running = sum(1 for live in truth(factory.workers()) if live.status.pid)
    return FactoryConfig(after.worker_count, after.max_concurrent, after.queues, after.worker_count, running)


@plugin.get("/api/factory-workers/health-summary", auth=READ)
def health() -> FactoryHealth:
    """Say how the workers are, by the supervisor's own word, and what is not as it should be"""
    found, alerts = factory.workers(), list[Alert]()
    try:
        lives = look(found)
    except Problem as problem:
        lives = truth(found)
        alerts.append(Alert("supervisor_unavailable", None, problem.message, now()))
    current = at_work()
    shown = [WorkerHealth(one.number, one.label, live.status.pid, live.status.loaded, live.status.last_exit,
                          state_of(one, live, bool(current.get(one.name)))) for one, live in zip(found, lives, strict=True)]
    alerts += [alert for one, live in zip(found, lives, strict=True) for alert in alerts_of(one, live)]
    wanted = [one for one in shown if one.state != "draining"]
    down = bool(wanted and alerts) and not any(one.pid for one in wanted)
    kind: Literal["launchd", "embedded"] = "embedded" if supervisor.driver() is supervisor.embedded.driver else "launchd"
    return FactoryHealth("down" if down else "degraded" if alerts else "ok", kind, shown, alerts)


