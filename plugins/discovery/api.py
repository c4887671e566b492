"""The wire of discovery: engines, what they found, and what that cost."""
from typing import Annotated, Any

from orkosi import UNSET, Actor, Deleted, Denied, Meta, Page, Paging, Reply, Struct, UnsetType, db, may, now
from plugins import discovery, lists
from plugins.discovery import ENGINES, MONTH, EngineRun, Row, Status, plugin, scheduled

READ, WRITE, RUN = may("viewer", "tasks:read", host=True), may("editor", host=True), may("editor", "tasks:write", host=True)
SAME = {"duplicate": True, "message": "A run of this engine is queued or under way, and is answered instead; nothing was ordered"}

Name = Annotated[str, Meta(min_length=1, max_length=100)]
About = Annotated[str, Meta(max_length=4000)]
Layer = Annotated[str, Meta(min_length=1, max_length=60, description="tasks, agents, logs, queue, backups, credentials, files or command")]
Interval = Annotated[int, Meta(ge=1, le=31_536_000_000, description="Milliseconds, 60,000 at least")]
Model = Annotated[str, Meta(max_length=200, description="Reaches a command as ORKOSI_MODEL")]
Argv = Annotated[list[Annotated[str, Meta(max_length=4096, pattern=r"\A[^\x00]*\Z")]], Meta(min_length=1, max_length=50)]


class NewEngine(Struct, forbid_unknown_fields=True):
    name: Name
    layer: Layer
    description: About = ""
    schedule_interval_ms: Interval = 3_600_000
    model: Model | None = None
    command: Argv | None = None
    enabled: bool = True


class EnginePatch(Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    layer: Layer | UnsetType = UNSET
    description: About | UnsetType = UNSET
    schedule_interval_ms: Interval | UnsetType = UNSET
    model: Model | None | UnsetType = UNSET
    command: Argv | None | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class EngineRuns(Struct):
    """Runs that ended. `wasted` ones went well, and filed nothing."""
    total: int
    failed: int
    wasted: int


class EngineTasks(Struct):
    """The tasks that an engine has filed, by what became of them."""
    open: int
    done: int
    archived: int


class Engine(Struct):
    """A discovery engine. `findings` and `cost_micros`, in millionths of a dollar, are sums over all of its runs."""
    slug: str
    name: str
    description: str
    layer: str
    schedule_interval_ms: int
    model: str | None
    command: list[str] | None
    enabled: bool
    next_run_at: str | None
    last_run_at: str | None
    last_status: Status | None
    runs: EngineRuns
    findings: int
    tasks: EngineTasks
    cost_micros: int
    created_at: str


class EngineWithRuns(Engine, kw_only=True):
    """A discovery engine, with its last twenty runs."""
    recent_runs: list[EngineRun]


class Efficiency(Struct):
    """What an engine did in 30 days. `waste`: wasted runs of all; `cost_per_task_micros` is null where it filed none."""
    slug: str
    runs: int
    compute_minutes: float
    cost_micros: int
    tokens: int
    findings: int
    tasks_created: int
    tasks_done: int
    wasted_runs: int
    waste: float
    cost_per_task_micros: int | None


class Ordered(Struct):
    run_id: int
    job_id: str
    status: Status


def seen(one: Row) -> Engine:
    plan = scheduled(one)
    counts = dict(db.all(tuple, """SELECT CASE WHEN status IN ('done', 'archived') THEN status ELSE 'open' END, count(*)
                                     FROM discovery_tasks JOIN tasks ON tasks.id = task_id
                                    WHERE discovery_tasks.tenant_id = :tenant AND engine_id = :id GROUP BY 1""", id=one.id))
    return Engine(one.slug, one.name, one.description, one.layer, one.schedule_interval_ms, one.model, one.command, one.enabled,
                  plan.next_run_at if plan else None, one.last_run_at, one.last_status, EngineRuns(one.total, one.failed, one.wasted), one.findings,
                  EngineTasks(counts.get("open", 0), counts.get("done", 0), counts.get("archived", 0)), one.cost_micros, one.created_at)


def require_admin(command: object, me: Actor) -> None:
    """A command runs on this machine as the server's user: only an administrator's session names one."""
    if command not in (UNSET, None) and (me.role != "admin" or me.scopes is not None):
        raise Denied("command: Only an administrator, signed in, may name a program that this machine runs")


def given(body: NewEngine | EnginePatch) -> dict[str, Any]:
    return {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}


def require_company(me: Actor) -> None:
    """Denied to an agent's key: what engines run, and what they cost, is no work of an agent."""
    if me.kind == "agent":
        raise Denied("An agent's key sees no discovery engines")


@plugin.get("/api/discovery-engines", auth=READ)
def index(query: Paging, me: Actor) -> Page[Engine]:
    """List discovery engines by slug, with what they did, and what became of the tasks they filed"""
    require_company(me)
    return lists.page(ENGINES, query).map(seen)


@plugin.post("/api/discovery-engines", auth=WRITE, status=201, raises=(400, 409))
def create(body: NewEngine, me: Actor) -> Engine:
    """Have something looked for, again and again

    What an engine finds is filed as a task: once, as long as that is open; never again, where a person archives it; anew, where it was done and
    comes back. The layer `command` runs a program that prints findings, each a line of JSON: `title`, and optionally `fingerprint`,
    `description`, `priority`, `assignee`, `product_slug`."""
    require_admin(body.command, me)
    return seen(discovery.create(given(body)))


@plugin.get("/api/discovery-engines/efficiency", auth=READ)
def efficiency(me: Actor) -> list[Efficiency]:
    """Say what each engine did, and cost, in 30 days, and how much of that was in vain"""
    require_company(me)
    since = now(-MONTH)
    sums = {row[0]: row[1:] for row in db.all(tuple, """
        SELECT engine_id, count(*), sum(seconds), sum(cost_micros), sum(tokens), sum(findings), sum(new),
               sum(CASE WHEN status = 'done' AND new = 0 THEN 1 ELSE 0 END)
          FROM discovery_runs WHERE tenant_id = :tenant AND created_at >= :since AND status IN ('done', 'failed') GROUP BY engine_id""", since=since)}
    done = dict(db.all(tuple, """SELECT engine_id, count(*) FROM discovery_tasks JOIN tasks ON tasks.id = task_id
                                  WHERE discovery_tasks.tenant_id = :tenant AND filed_at >= :since AND status = 'done' GROUP BY engine_id""",
                       since=since))
    found = []
    for id, slug in db.all(tuple, "SELECT id, slug FROM discovery_engines WHERE tenant_id = :tenant ORDER BY slug"):
        runs, took, cost, tokens, findings, new, wasted = sums.get(id, (0,) * 7)
        found.append(Efficiency(slug, runs, round((took or 0) / 60, 2), cost, tokens, findings, new, done.get(id, 0), wasted,
                                round(wasted / runs, 4) if runs else 0.0, round(cost / new) if new else None))
    return found


@plugin.get("/api/discovery-engines/{slug}", auth=READ, raises=(404,))
def show(slug: str, me: Actor) -> EngineWithRuns:
    """Show an engine, with its last twenty runs"""
    require_company(me)
    one = discovery.find(slug)
    shown = seen(one)
    runs = db.all(EngineRun, "SELECT * FROM discovery_runs WHERE tenant_id = :tenant AND engine_id = :id ORDER BY id DESC LIMIT 20", id=one.id)
    return EngineWithRuns(**{name: getattr(shown, name) for name in shown.__struct_fields__}, recent_runs=runs)


@plugin.patch("/api/discovery-engines/{slug}", auth=WRITE, raises=(400, 404))
def update(slug: str, body: EnginePatch, me: Actor) -> Engine:
    """Change an engine; its schedule follows at once

    `enabled: false` leaves no run that is pending. The slug stays."""
    require_admin(body.command, me)
    return seen(discovery.change(slug, given(body)))


@plugin.delete("/api/discovery-engines/{slug}", auth=WRITE, raises=(404,))
def delete(slug: str) -> Deleted:
    """End an engine and its schedule; what it found stays"""
    return Deleted(discovery.delete(slug).slug)


@plugin.post("/api/discovery-engines/{slug}/run", auth=RUN, raises=(404,))
def run(slug: str) -> Reply[Ordered]:
    """Have an engine run now

    Where a run of it is queued or under way, that is answered, with `meta.duplicate`."""
    id, job, duplicate = discovery.order(slug)
    status = db.value("SELECT status FROM discovery_runs WHERE tenant_id = :tenant AND id = :id", id=id)
    return Reply(Ordered(id, job, status), meta=SAME if duplicate else None)
