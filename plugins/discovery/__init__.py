"""Discovery: engines that look for work, by the clock or when asked, and file what they find as tasks.

Owns discovery_engines, discovery_runs and discovery_tasks. An engine takes the look of one layer, or runs a command. A finding is known by
its fingerprint: what is open is not filed twice, what a person has archived is not filed again, and what was done and comes back is.
Surprise: engines have one turn, together. A run that finds another under way waits for it, so that the server's own hands are never all
at a slow command.
"""
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from orkosi import HOST_TENANT, Conflict, NotFound, Plugin, Problem, Struct, acting, current, db, emit, jsoned, now, system, writes
from plugins import queue, schedules
from plugins.fields import line, wrong
from plugins.findings import looks
from plugins.lists import Listing
from plugins.products import slug_of

plugin = Plugin("Discovery", layer="domain", needs=("queue", "schedules", "tasks", "findings", "products", "runner", "agents"))
plugin.setting("discovery_seconds", int, 300, "Seconds that the command of a discovery engine may take")

RUNS = "discovery.run"
DUE = "discovery.due"
COMMAND = "command"
MONTH = 30 * 86400
LEAST = 60_000  # ms from one run to the next
Trigger = Literal["schedule", "manual"]
Status = Literal["queued", "running", "done", "failed"]


class Row(Struct):
    """A row of `discovery_engines`; the sums are over all of its runs."""
    id: int
    slug: str
    name: str
    description: str
    layer: str
    schedule_interval_ms: int
    model: str | None
    command: list[str] | None
    enabled: bool
    last_run_at: str | None
    last_status: Status | None
    total: int
    failed: int
    wasted: int
    findings: int
    cost_micros: int
    created_at: str
    updated_at: str


class EngineRun(Struct):
    """One run. `new` findings became tasks, `repeated` ones are open still, `dismissed` ones a person has archived."""
    id: int
    trigger: Trigger
    status: Status
    started_at: str | None
    finished_at: str | None
    seconds: float | None
    findings: int
    new: int
    repeated: int
    dismissed: int
    cost_micros: int
    tokens: int
    error: str | None


ENGINES = Listing(of=Row, source="discovery_engines", order="slug")


def layers() -> list[str]:
    """The layers that somebody knows how to look at, and commands."""
    return [*sorted(looks), COMMAND]


# ── what an operator does ──


def find(slug: str) -> Row:
    """One engine. NotFound."""
    found = db.one(Row, "SELECT * FROM discovery_engines WHERE tenant_id = :tenant AND slug = :slug", slug=slug)
    if found is None:
        raise NotFound(f"There is no discovery engine {slug}")
    return found


def checked(values: dict[str, Any], layer: str, command: Sequence[str] | None) -> None:
    """Invalid where these values make no engine."""
    if layer not in layers():
        raise wrong("layer", f"There is no layer {layer[:60]!r}; known: {', '.join(layers())}")
    if layer == COMMAND and not command:
        raise wrong("command", "The layer `command` takes the program and its arguments")
    if layer != COMMAND and command:
        raise wrong("command", "Only the layer `command` runs one")
    if values.get("schedule_interval_ms", LEAST) < LEAST:
        raise wrong("schedule_interval_ms", f"At least {LEAST} ms, which is a minute")
    if "name" in values:
        values["name"] = line(values["name"], "name", 100)


def slugged(name: str) -> str:
    """The slug of an engine's name. Invalid where an address of its own has it."""
    slug = slug_of(name)
    if slug == "efficiency":
        raise wrong("name", "Its slug would be `efficiency`, which is the address of something else; choose another name")
    return slug


@writes
def create(values: dict[str, Any]) -> Row:
    """Make an engine, and its schedule with it. Invalid, Conflict where its slug is taken."""
    checked(values, values["layer"], values.get("command"))
    slug = slugged(values["name"])
    if db.value("SELECT 1 FROM discovery_engines WHERE tenant_id = :tenant AND slug = :slug", slug=slug):
        raise Conflict(f"name: There is a discovery engine {slug} already")
    made = db.insert(Row, "discovery_engines", **_kept(values), slug=slug, created_at=now(), updated_at=now())
    _plan(made)
    emit("discovery_engine.created", made)
    return made


@writes
def change(slug: str, values: dict[str, Any]) -> Row:
    """Change what is sent, the schedule in the same write; the slug stays. One that is off has no pending run. NotFound, Invalid."""
    before = find(slug)
    layer = values.get("layer", before.layer)
    if layer != COMMAND and "layer" in values:
        values.setdefault("command", None)
    checked(values, layer, values.get("command", before.command))
    made = db.patch(Row, "discovery_engines", before.id, **_kept(values), updated_at=now())
    if (made.enabled, made.schedule_interval_ms) != (before.enabled, before.schedule_interval_ms):
        _plan(made)
    if not made.enabled:
        _drop_queued(made.id)
    emit("discovery_engine.updated", made)
    return find(slug)


@writes
def delete(slug: str) -> Row:
    """End an engine, its schedule and its queued run; its tasks and past runs stay. NotFound."""
    gone = find(slug)
    _unplan(gone)
    _drop_queued(gone.id)
    db.delete("discovery_engines", gone.id)
    emit("discovery_engine.deleted", gone)
    return gone


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    return values | ({"command": values["command"] and jsoned(values["command"])} if "command" in values else {})


def _plan(engine: Row) -> None:
    """Its schedule as its row is: the first slot comes after one interval, for whoever wants it now asks for a run."""
    _unplan(engine)
    if engine.enabled:
        schedules.keep_own(f"discovery:{engine.id}", DUE, {"engine": engine.id}, every=engine.schedule_interval_ms,
                           delay=engine.schedule_interval_ms / 1000)


def _unplan(engine: Row) -> None:
    if plan := scheduled(engine):
        schedules.remove(queue.OWN, plan.name)


def scheduled(engine: Row) -> schedules.Schedule | None:
    """The schedule of an engine; None while it is off."""
    return schedules.own(DUE, {"engine": engine.id})


# ── runs ──


@writes
def order(slug: str, trigger: Trigger = "manual") -> tuple[int, str, bool]:
    """Have an engine run soon: the run, its job, and whether it was queued or running already. NotFound."""
    engine = find(slug)
    there = db.all(tuple, """SELECT id, job_id FROM discovery_runs WHERE tenant_id = :tenant AND engine_id = :engine
                              AND status IN ('queued', 'running') ORDER BY id LIMIT 1""", engine=engine.id)
    if there:
        return there[0][0], f"job_{there[0][1]}", True
    run = db.insert(dict, "discovery_runs", engine_id=engine.id, slug=slug, trigger=trigger, status="queued", created_at=now())["id"]
    job = queue.later(RUNS, {"run": run}, attempts=3)
    db.run("UPDATE discovery_runs SET job_id = :job WHERE tenant_id = :tenant AND id = :run", job=job.id, run=run)
    db.run("UPDATE discovery_engines SET last_status = 'queued' WHERE tenant_id = :tenant AND id = :id", id=engine.id)
    emit("discovery_run.queued", msgspec.structs.replace(engine), run=run)
    return run, f"job_{job.id}", False


@plugin.job(DUE)
def come_due(due: schedules.Due) -> dict[str, Any]:
    """The slot of an engine has come. NotFound where it is gone."""
    one = schedules.numbered(due.schedule)
    slug = db.value("SELECT slug FROM discovery_engines WHERE tenant_id = :tenant AND id = :id", id=one.payload["engine"])
    if slug is None:
        raise NotFound("The engine is gone")
    run, job, duplicate = order(slug, "schedule")
    return {"run_id": run, "job_id": job, "duplicate": duplicate}


def _drop_queued(engine: int) -> None:
    """Take a queued run along; one that runs ends by itself."""
    for run, job in db.all(tuple, "SELECT id, job_id FROM discovery_runs WHERE tenant_id = :tenant AND engine_id = :engine AND status = 'queued'",
                           engine=engine):
        with acting(system(HOST_TENANT)):
            try:
                queue.cancel(job)
            except Problem:  # it has begun, and finds its run gone
                pass
        db.run("DELETE FROM discovery_runs WHERE tenant_id = :tenant AND id = :run", run=run)
    last = db.value("""SELECT status FROM discovery_runs WHERE tenant_id = :tenant AND engine_id = :engine ORDER BY id DESC LIMIT 1""", engine=engine)
    db.run("UPDATE discovery_engines SET last_status = :last WHERE tenant_id = :tenant AND id = :engine", last=last, engine=engine)


@plugin.on("task.archived")
def dismissed(event: str, task: Any, **facts: Any) -> None:
    """Who archives a task that was found, does not want to hear of it again; an agent that does, decides nothing."""
    if current().kind in ("user", "key"):
        db.run("UPDATE discovery_tasks SET dismissed_at = :now WHERE tenant_id = :tenant AND task_id = :task", task=task.id, now=now())


@plugin.every("1h")
def prune() -> None:
    """Forget single runs of more than 90 days ago; the sums stay."""
    while _prune() == 1000:
        pass


@writes(durable=False)
def _prune() -> int:
    return db.run("""DELETE FROM discovery_runs WHERE id IN (SELECT id FROM discovery_runs WHERE tenant_id = :tenant AND created_at < :before
                                                             ORDER BY created_at LIMIT 1000)""", before=now(-90 * 86400))


