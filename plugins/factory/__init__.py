"""Factory: worker processes under the supervisor, as many as the operator wants.

Owns factory, factory_workers and factory_jobs. A worker is `orkosi.py work` with a plist of its own; its row says what is wanted of it,
the supervisor what is true. A loop looks once a second and brings the one to the other: it starts what is wanted, lets what is not
wanted any more drain, notes who died, and holds who dies five times in a minute. Surprise: what a worker does is heard of here as of
any other worker, by its jobs; its row counts them by the `worker_id` that it claims with.
"""
import math
from typing import Literal

import msgspec

from orkosi import Plugin, Struct, db, emit, jsoned, now, seconds, writes
from plugins import queue, supervisor

plugin = Plugin("Factory", layer="domain", needs=("queue", "supervisor", "keys", "notifications", "workers", "agents"))

State = Literal["starting", "idle", "busy", "draining", "held", "stopped"]
Wanted = Literal["running", "draining", "held"]
DRAIN = 60.0  # seconds that one which must go has for its jobs
DAY = 86400


class Config(Struct):
    """What is wanted: how many workers, how many jobs each runs at once, and of which queues."""
    worker_count: int = 0
    max_concurrent: int = 1
    queues: list[str] = msgspec.field(default_factory=lambda: ["default"])


class Worker(Struct):
    """A row of `factory_workers`. `completed`, `failed` and `ms` are sums over all of its jobs."""
    number: int
    wanted: Wanted
    since: str
    slots: int
    queues: list[str]
    restarts: int
    last_error: str | None
    completed: int
    failed: int
    ms: int
    created_at: str

    @property
    def name(self) -> str:
        """What it is called, and the first part of the `worker_id` that it claims with."""
        return f"factory-{self.number}"

    @property
    def label(self) -> str:
        """Of its plist; it carries a hash of the data folder."""
        return f"com.orkosi.{supervisor.folder_hash()}.worker.{self.number}"


class Alert(Struct):
    """Something that is not as it should be, since when, and what to do about it."""
    code: str
    worker_id: int | None
    message: str
    since: str


def config() -> Config:
    """What is wanted."""
    return db.one(Config, "SELECT worker_count, max_concurrent, queues FROM factory WHERE tenant_id = :tenant") or Config()


def workers() -> list[Worker]:
    """Every worker there is, or is to be, by number."""
    return db.all(Worker, "SELECT * FROM factory_workers WHERE tenant_id = :tenant ORDER BY number")


@writes
def configure(*, worker_count: int | None = None, max_concurrent: int | None = None, queues: list[str] | None = None) -> Config:
    """Say what is wanted, as far as it is said; the loop brings it about. With a `worker_count`, those that are held are tried again.

    Workers with other slots or queues than are wanted drain, too, and come again with the new ones."""
    before = config()  # within the write: two at once each change what they name
    wanted = Config(before.worker_count if worker_count is None else worker_count,
                    before.max_concurrent if max_concurrent is None else max_concurrent, before.queues if queues is None else queues)
    db.run("""
        INSERT INTO factory (tenant_id, worker_count, max_concurrent, queues, updated_at) VALUES (:tenant, :count, :slots, :queues, :now)
        ON CONFLICT (tenant_id) DO UPDATE SET worker_count = :count, max_concurrent = :slots, queues = :queues, updated_at = :now""",
           count=wanted.worker_count, slots=wanted.max_concurrent, queues=jsoned(wanted.queues), now=now())
    for one in workers():
        if one.wanted == "held" and (worker_count is not None or one.number > wanted.worker_count):
            forget(one)
        elif one.wanted == "running" and (one.number > wanted.worker_count or (one.slots, one.queues) != (wanted.max_concurrent, wanted.queues)):
            put(one.number, "draining")
    fill()
    emit("factory.configured", wanted)
    return config()


@writes
def fill() -> None:
    """Put a row there for each worker that is wanted and has none."""
    wanted, there = config(), {one.number for one in workers()}
    for number in range(1, wanted.worker_count + 1):
        if number not in there:
            db.run("""INSERT INTO factory_workers (tenant_id, number, wanted, since, slots, queues, created_at)
                      VALUES (:tenant, :number, 'running', :now, :slots, :queues, :now)""",
                   number=number, slots=wanted.max_concurrent, queues=jsoned(wanted.queues), now=now())


@writes
def put(number: int, wanted: Wanted, error: str | None = None) -> None:
    """Have a worker run, drain or be held, from now on."""
    db.run("""UPDATE factory_workers SET wanted = :wanted, since = :now, last_error = ifnull(:error, last_error)
               WHERE tenant_id = :tenant AND number = :number""", number=number, wanted=wanted, error=error, now=now())


@writes
def note_death(number: int, error: str) -> None:
    """A worker died, and comes again."""
    db.run("UPDATE factory_workers SET restarts = restarts + 1, last_error = :error WHERE tenant_id = :tenant AND number = :number",
           number=number, error=error[:2000])


@writes
def forget(one: Worker) -> None:
    """A worker is gone for good. Where one of its number is wanted, there is a new row for it."""
    db.run("DELETE FROM factory_workers WHERE tenant_id = :tenant AND number = :number", number=one.number)


# ── what its jobs say ──


@plugin.on("job.completed")
@plugin.on("job.retrying")
@plugin.on("job.failed")
def count(event: str, job: queue.Job) -> None:
    """An attempt of a worker's is over. Inside the write that ended it."""
    if not (job.worker_id or "").startswith("factory-"):
        return
    number, _, slot = (job.worker_id or "").removeprefix("factory-").partition("/")
    if not slot or not number.isdecimal() or len(number) > 2:
        return
    done = int(event == "job.completed")
    took = round(1000 * max(0.0, seconds(now()) - seconds(job.claimed_at or now())))
    if db.run("""UPDATE factory_workers SET completed = completed + :done, failed = failed + 1 - :done, ms = ms + :ms * :done
                  WHERE tenant_id = :tenant AND number = :number""", number=int(number), done=done, ms=took):
        db.run("""INSERT INTO factory_jobs (tenant_id, worker, outcome, ms, finished_at) VALUES (:tenant, :worker, :outcome, :ms, :now)""",
               worker=int(number), outcome="completed" if done else "failed", ms=took, now=now())


@plugin.every("10m")
def prune() -> None:
    """Forget the single jobs of more than a day ago; the sums stay."""
    while _prune() == 5000:
        pass


@writes(durable=False)
def _prune() -> int:
    return db.run("""DELETE FROM factory_jobs WHERE id IN (SELECT id FROM factory_jobs WHERE tenant_id = :tenant AND finished_at < :before
                                                           ORDER BY finished_at LIMIT 5000)""", before=now(-DAY - 60))


class Day(Struct):
    """The attempts of the last 24 hours: how many ended well and badly, in how many seconds, and how many jobs were completed in the last hour."""
    completed: int
    failed: int
    avg_seconds: float | None
    p95_seconds: float | None
    last_hour: int


def last_day(worker: int | None = None) -> Day:
    """What a worker did in 24 hours, or all of them."""
    found = db.all(tuple, """SELECT ms, outcome, finished_at FROM factory_jobs WHERE tenant_id = :tenant AND finished_at >= :since""", since=now(-DAY)
                   ) if worker is None else db.all(tuple, """
                   SELECT ms, outcome, finished_at FROM factory_jobs WHERE tenant_id = :tenant AND finished_at >= :since AND worker = :worker""",
                                                   since=now(-DAY), worker=worker)
    took = sorted(ms for ms, outcome, _ in found if outcome == "completed")
    hour = now(-3600)
    return Day(len(took), len(found) - len(took), round(sum(took) / len(took) / 1000, 3) if took else None,
               took[math.ceil(0.95 * len(took)) - 1] / 1000 if took else None,
               sum(1 for _, outcome, at in found if outcome == "completed" and at >= hour))


from . import running as running  # noqa: E402  # last: it uses the verbs above
