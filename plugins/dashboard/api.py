"""The wire of the dashboards."""
from orkosi import HOST_TENANT, PUBLIC, VERSION, Actor, Denied, Struct, acting, db, endpoints, may, system
from plugins import dashboard, health
from plugins.dashboard import AgentEfficiency, AgentQueue, Facts, Overview, Totals, plugin
from plugins.dashboard import needs as waiting

READ, COSTS = may("viewer", "tasks:read"), may("viewer", "costs:read")
MOST = 10_000
FURTHER = ("/api/dashboard/", "/api/system/", "/api/arch-health")


class Operation(Struct):
    """An operation, and what it does."""
    path: str
    description: str


class Counts(Struct):
    """Of the host's company; `jobs_waiting` ends at 10,000."""
    agents: int
    tasks_open: int
    tasks_done: int
    products: int
    jobs_waiting: int


class Front(Struct):
    name: str
    version: str
    uptime: int
    counts: Counts
    endpoints: list[Operation]


@plugin.get("/api/dashboard", auth=PUBLIC)
def front() -> Front:
    """Say what runs here, how much there is of everything, and where more is to be seen

    No token is needed, and no name is told."""
    with acting(system(HOST_TENANT)):
        of = dashboard.tasks()
        agents = db.value("SELECT count(*) FROM agents WHERE tenant_id = :tenant")
        waiting = db.value("""SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant_id = :tenant AND state = 'waiting'
                                                     LIMIT :most) AS counted""", most=MOST)
        over = of.by_status["done"] + of.by_status["archived"]
        counts = Counts(agents, of.total - over, of.by_status["done"], dashboard.products().total, waiting)
    seen = [Operation(one.path, one.summary) for one in endpoints() if one.method == "GET" and one.path.startswith(FURTHER)]
    return Front("Orkosi", VERSION, health.uptime(), counts, seen)


def require_company(me: Actor) -> None:
    """Denied to an agent's key, which sees that agent's work and nothing else."""
    if me.kind == "agent":
        raise Denied("An agent's key sees its own work, and not the company's")


@plugin.get("/api/dashboard/stats", auth=READ)
def stats(me: Actor) -> Totals:
    """Count agents by state, tasks by status and priority, and products by status"""
    require_company(me)
    return dashboard.stats()


@plugin.get("/api/dashboard/agent-efficiency", auth=COSTS)
def efficiency() -> list[AgentEfficiency]:
    """Say what each agent did in the last seven days for what it took, by tasks for a thousand tokens, best first"""
    return dashboard.efficiency()


@plugin.get("/api/dashboard/agent-queue-health", auth=READ)
def queues(me: Actor) -> list[AgentQueue]:
    """Say how long the work of each agent waits, and why the next of it does"""
    require_company(me)
    return dashboard.queues()


@plugin.get("/api/dashboard/overview", auth=COSTS)
def overview() -> Overview:
    """Show the company this morning: tokens, the last ten runs, its protocols, and seven days of use"""
    return dashboard.overview()


@plugin.get("/api/dashboard/needs", auth=READ, tool="needs")
def needs(me: Actor) -> waiting.Needs:
    """List what waits for a person, decisions first, each with what may be done about it

    `steps` are operations of the API, for each of `ids` in the place of what stands in braces. `still`: what stands still because somebody
    wanted it so."""
    require_company(me)
    return waiting.needs()


@plugin.get("/api/products/{slug}/facts", auth=COSTS, raises=(404,))
def facts(slug: str) -> Facts:
    """Show what there is to know of a product: its tasks by status, what its runs have cost, by whom, and what changed last"""
    return dashboard.facts(slug)
