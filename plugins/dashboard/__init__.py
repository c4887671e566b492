"""Dashboard: what an operator asks every morning, from sums that are kept.

Owns no table. How many tasks there are of each status is kept by triggers, in the transaction that changes a task; what runs cost, by the day,
when each ends. So no answer here walks what grows. `orkosi.py sums check` proves the sums against the rows. Surprise: a day is a local one.
"""
import math
from datetime import date, timedelta

from orkosi import Paging, Plugin, Struct, db, now, seconds
from plugins import changelog, costs, queue, tokens
from plugins.agents import runs, state
from plugins.agents.rows import everyone
from plugins.agents.runs import Run
from plugins.changelog import ChangelogEntry, ChangelogQuery
from plugins.products import find as products_find
from plugins.queue import Why
from plugins.rules import Rule

plugin = Plugin("Dashboard", layer="views", needs=("billing", "health", "webhooks"))

TASKS = ("todo", "in_progress", "review", "done", "blocked", "archived")
PRIORITIES = ("P0", "P1", "P2", "P3")
PRODUCTS = ("idea", "building", "active", "live", "launched", "placeholder", "archived")
WEEK, LATEST, WAITS = 7, 20, 2000  # days; runs, of which the median is taken; claims, of which the waits are
DAY = 86400


class Counted(Struct):
    """How many there are, and of each status."""
    total: int
    by_status: dict[str, int]


class CountedTasks(Counted):
    """The same of tasks, and of each priority."""
    by_priority: dict[str, int]


class CountedAgents(Struct):
    """How many agents there are, and in which state."""
    total: int
    by_state: dict[str, int]


class Totals(Struct):
    """What there is. `pending`: tasks that are to do or in review."""
    agents: CountedAgents
    tasks: CountedTasks
    products: Counted
    pending: int


class AgentEfficiency(Struct):
    """What an agent did in the last seven local days. A skipped run saved what the median of its last twenty runs took."""
    agent: str
    runs: int
    success_rate: float | None
    tokens: int
    cost_micros: int
    tasks_done: int
    tasks_per_1k_tokens: float | None
    skipped_runs: int
    saved_tokens: int
    saved_micros: int


class AgentQueue(Struct):
    """An agent's queue: how long those waited that were claimed within 24 hours, of the newest 2,000, and why the next one waits."""
    agent: str
    queued: int
    active: int
    oldest_seconds: int | None
    wait_p50_seconds: float | None
    wait_p95_seconds: float | None
    why: list[Why]


class UsedDay(Struct):
    """A local day."""
    date: str
    tasks_done: int
    runs: int
    skipped: int
    tokens: int
    cost_micros: int


class Overview(Struct):
    """The company this morning. `protocols` are the rules of that category."""
    token_balance: int
    recent_runs: list[Run]
    protocols: list[Rule]
    usage_7d: list[UsedDay]


class Spender(Struct):
    """An agent that worked on a product, and what that cost."""
    agent: str
    runs: int
    tokens: int
    cost_micros: int


class Recent(Struct):
    """A task, as a line."""
    id: int
    title: str
    status: str
    assignee: str | None
    updated_at: str


class Facts(Struct):
    """A product in one answer: its tasks, what its runs have cost ever, by whom, and what changed last."""
    slug: str
    status: str
    tasks: Counted
    runs: int
    tokens: int
    cost_micros: int
    agents: list[Spender]
    last_tasks: list[Recent]
    last_changes: list[ChangelogEntry]


def facts(slug: str) -> Facts:
    """What there is to know of a product. NotFound."""
    product = products_find(slug)
    by_status = dict(db.all(tuple, """SELECT status || '', count(*) FROM tasks WHERE tenant_id = :tenant AND product_slug = :slug
                                       GROUP BY 1""", slug=slug))
    agents = db.all(Spender, """
        SELECT agent, sum(runs) AS runs, sum(tokens_in + tokens_out) AS tokens, sum(cost_micros) AS cost_micros FROM cost_sums
         WHERE tenant_id = :tenant AND product = :slug GROUP BY agent ORDER BY cost_micros DESC, agent""", slug=slug)
    last = db.all(Recent, """SELECT id, title, status, assignee, updated_at FROM tasks WHERE tenant_id = :tenant AND product_slug = :slug
                              ORDER BY id DESC LIMIT 10""", slug=slug)
    changed = changelog.page(ChangelogQuery(limit=5), slug).items
    return Facts(slug, product.status, Counted(sum(by_status.values()), dict.fromkeys(TASKS, 0) | by_status), sum(one.runs for one in agents),
                 sum(one.tokens for one in agents), sum(one.cost_micros for one in agents), agents, last, changed)


def tasks() -> CountedTasks:
    """How many tasks there are, by the kept sums."""
    found = db.all(tuple, "SELECT status, priority, n FROM task_sums WHERE tenant_id = :tenant")
    status, priority = dict.fromkeys(TASKS, 0), dict.fromkeys(PRIORITIES, 0)
    for one, rank, many in found:
        status[one] += many
        priority[rank] += many
    return CountedTasks(sum(status.values()), status, priority)


def products() -> Counted:
    """How many products there are: dozens, not thousands."""
    found = db.all(tuple, "SELECT status, count(*) FROM products WHERE tenant_id = :tenant GROUP BY status")
    return Counted(sum(many for _, many in found), dict.fromkeys(PRODUCTS, 0) | dict(found))


def stats() -> Totals:
    """What there is."""
    seen = state.statuses(everyone())
    of = tasks()
    agents = CountedAgents(len(seen), {status: seen.count(status) for status in sorted(set(seen))})
    return Totals(agents, of, products(), of.by_status["todo"] + of.by_status["review"])


def week() -> list[str]:
    """The last seven local days, today last."""
    today = date.fromisoformat(costs.day_of(now()))
    return [str(today - timedelta(days=ago)) for ago in reversed(range(WEEK))]


def efficiency() -> list[AgentEfficiency]:
    """What each agent did for what it took, best first."""
    days = week()
    since = costs.begins(days[0])
    spent = {row[0]: row[1:] for row in db.all(tuple, """
        SELECT agent, sum(runs), sum(done), sum(tokens_in + tokens_out), sum(cost_micros) FROM cost_sums
         WHERE tenant_id = :tenant AND day >= :since GROUP BY agent""", since=days[0])}
    done = dict(db.all(tuple, """SELECT assignee, count(*) FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at >= :since
                                  AND assignee IS NOT NULL GROUP BY assignee""", since=since))
    skipped = dict(db.all(tuple, """SELECT agent, sum(skipped) FROM idle_days WHERE tenant_id = :tenant AND day >= :since
                                     GROUP BY agent""", since=days[0]))
    found = [_efficiency(one.name, spent.get(one.name, (0, 0, 0, 0)), done.get(one.name, 0), skipped.get(one.name, 0)) for one in everyone()]
    return sorted(found, key=lambda one: (one.tasks_per_1k_tokens is None, -(one.tasks_per_1k_tokens or 0), one.agent))


def _efficiency(agent: str, spent: tuple[int, int, int, int], tasks_done: int, skipped: int) -> AgentEfficiency:
    from statistics import median  # imported when first used: it brings fractions and decimals along
    many, well, used, cost = spent
    last = db.all(tuple, """SELECT tokens_in + tokens_out, cost_micros FROM agent_runs WHERE tenant_id = :tenant AND agent = :agent
                             AND status <> 'running' ORDER BY id DESC LIMIT :most""", agent=agent, most=LATEST) if skipped else []
    tokens_saved, micros_saved = (round(skipped * median(row[at] for row in last)) if last else 0 for at in (0, 1))
    return AgentEfficiency(agent, many, round(well / many, 4) if many else None, used, cost, tasks_done,
                           round(tasks_done / used * 1000, 4) if used else None, skipped, tokens_saved, micros_saved)


def queues() -> list[AgentQueue]:
    """How long the work of each agent waits, and why."""
    return [_queue(agent.name, agent.queue) for agent in everyone()]


# Each walks what it tells of alone: a queue may have a million jobs that were over long ago.
_CLAIMS = [f"""SELECT claimed_at, created_at FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = '{end}'
                  AND finished_at >= :since AND claimed_at >= :since ORDER BY finished_at DESC LIMIT :most"""
           for end in ("completed", "failed", "dead", "cancelled")]
_CLAIMS.append("""SELECT claimed_at, created_at FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'active'
                     AND lease_expires_at > '' AND claimed_at >= :since ORDER BY claimed_at DESC LIMIT :most""")


def _claims(name: str) -> list[tuple[str, str]]:
    """(claimed, made) of what was claimed from a queue in the last day, and is not back in it; of a busy one, the latest."""
    since = now(-DAY)
    return sorted((row for sql in _CLAIMS for row in db.all(tuple, sql, queue=name, since=since, most=WAITS)), reverse=True)[:WAITS]


def _queue(agent: str, name: str) -> AgentQueue:
    of = queue.stats(name)
    waits = sorted(max(0.0, seconds(claimed) - seconds(made)) for claimed, made in _claims(name))
    first = db.all(queue.Job, """SELECT * FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'waiting'
                                  ORDER BY priority, id LIMIT 1""", queue=name)
    oldest = None if of.oldest_waiting_at is None else max(0, int(seconds(now()) - seconds(of.oldest_waiting_at)))
    return AgentQueue(agent, of.counts["waiting"] + of.counts["delayed"], of.counts["active"], oldest, _share(waits, 0.5), _share(waits, 0.95),
                      queue.why(first[0]) if first else [])


def _share(ordered: list[float], share: float) -> float | None:
    """The value below which this share of them lies."""
    return round(ordered[math.ceil(share * len(ordered)) - 1], 3) if ordered else None


def usage() -> list[UsedDay]:
    """The last seven local days, with zeros."""
    days = week()
    spent = {row[0]: row[1:] for row in db.all(tuple, """
        SELECT day, sum(runs), sum(tokens_in + tokens_out), sum(cost_micros) FROM cost_sums WHERE tenant_id = :tenant AND day >= :since
         GROUP BY day""", since=days[0])}
    skipped = dict(db.all(tuple, "SELECT day, sum(skipped) FROM idle_days WHERE tenant_id = :tenant AND day >= :since GROUP BY day", since=days[0]))
    found = []
    for day in days:
        start, end = costs.begins(day), costs.ends(costs.begins(day))[0]
        done = db.value("""SELECT count(*) FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at >= :start
                            AND finished_at < :end""", start=start, end=end)
        many, used, cost = spent.get(day, (0, 0, 0))
        found.append(UsedDay(day, done, many, skipped.get(day, 0), used, cost))
    return found


def overview() -> Overview:
    """The company this morning."""
    recent = runs.page(Paging(limit=10)).items
    protocols = db.all(Rule, "SELECT * FROM rules WHERE tenant_id = :tenant AND category = 'protocol' ORDER BY permanent DESC, id DESC LIMIT 100")
    return Overview(tokens.balance().balance, recent, protocols, usage())
