"""Today: what the first page shows beside what needs a person: who works, what waits, what it cost.

Owns no table; it reads what the API reads, or joins. Surprise: a list here is short, and its number is the whole one.
"""
from collections import Counter

from orkosi import Struct, current, db, now
from plugins import agents, costs
from plugins.agents.rows import everyone
from plugins.agents.state import Glance

SHOWN = 8  # of each
RANK = {"working": 0, "active": 0, "error": 1, "offline": 1, "blocked": 1, "idle": 2, "paused": 3, "stopped": 4}
MINUTES = 60
SETTLE = 2  # seconds after which no job comes or goes any more
LIMIT = 10_000


class Working(Struct):
    """A run that is going on."""
    id: int
    agent: str
    task_id: int | None
    title: str | None
    started_at: str


class Finished(Struct):
    """A task that is over."""
    id: int
    title: str
    assignee: str | None
    resolution: str | None
    finished_at: str


class Spent(Struct):
    """What this local day cost so far, and who most of it was."""
    cost_micros: int
    runs: int
    by: list[tuple[str, int]]


class Day(Struct):
    """What a local day cost."""
    key: str
    runs: int
    cost_micros: int


def staff() -> list[Glance]:
    """The agents, the busy first, then those in trouble."""
    return sorted(agents.state.glance(everyone()), key=lambda agent: (RANK.get(agent.status, 2), agent.name))


def working() -> list[Working]:
    """The runs that are going on, the longest first. One whose server died reads so for a minute: a later one of its task is the truth."""
    return db.all(Working, """
        SELECT agent_runs.id, agent_runs.agent, agent_runs.task_id, tasks.title, agent_runs.started_at
          FROM agent_runs LEFT JOIN tasks ON tasks.id = agent_runs.task_id AND tasks.tenant_id = :tenant
         WHERE agent_runs.tenant_id = :tenant AND agent_runs.status = 'running'
           AND NOT EXISTS (SELECT 1 FROM agent_runs AS later WHERE later.tenant_id = :tenant AND later.task_id = agent_runs.task_id
                              AND later.id > agent_runs.id)
         ORDER BY agent_runs.id LIMIT 30""")


def finished() -> list[Finished]:
    """What was done last."""
    return db.all(Finished, """SELECT id, title, assignee, resolution, finished_at FROM tasks WHERE tenant_id = :tenant AND status = 'done'
                                 AND finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT :limit""", limit=SHOWN)


def done_today() -> int:
    """How many tasks were done this local day, counted to 10,000."""
    since = costs.begins(costs.day_of(now()))
    return db.value("""SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at >= :since
                                              LIMIT :limit) AS counted""", since=since, limit=LIMIT) or 0


def spent() -> Spent:
    """What this day cost."""
    today = costs.day_of(now())
    found = costs.by("agent", today, today)
    return Spent(sum(row[5] for row in found), sum(row[1] for row in found), [(row[0], row[5]) for row in found[:3] if row[5]])


def depth() -> list[int]:
    """How many jobs were unfinished at each of the last sixty minutes: how many there are now, and backwards what came and went."""
    level = sum(db.value(f"""SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant_id = :tenant AND state = '{state}'
                              LIMIT {LIMIT}) AS counted""") for state in ("waiting", "delayed", "active"))
    came, went = _moves()
    series = []
    for ago in range(MINUTES):
        series.append(level)
        minute = now(-60 * ago)[:16]
        level = max(0, level - came[minute] + went[minute])
    return series[::-1]


Moves = tuple[Counter[str], Counter[str]]  # how many came, and how many went, by minute
_settled: dict[int | None, tuple[str, Moves]] = {}


def forget() -> None:
    """Know nothing of any minute."""
    _settled.clear()


def _moves() -> Moves:
    """How many jobs came and went in each minute of the last hour. What is two seconds old is counted once, for a busy minute has thousands;

    and each minute all of it anew, for what went may come back: dead jobs are retried.
    """
    tenant, since, until = current().tenant, now(-60 * MINUTES), now(-SETTLE)
    seen, kept = _settled.get(tenant, ("", (Counter(), Counter())))
    if seen[:16] != until[:16] or seen > until:
        seen, kept = since, (Counter(), Counter())
    came, went = (Counter({minute: many for minute, many in (old + more).items() if minute >= since[:16]})
                  for old, more in zip(kept, _count_moves(seen, until), strict=True))
    _settled[tenant] = until, (came, went)
    fresh = _count_moves(until, "9")
    return came + fresh[0], went + fresh[1]


def _count_moves(since: str, until: str) -> Moves:
    came = Counter(dict(db.all(tuple, """
        SELECT substr(created_at, 1, 16), count(*) FROM jobs WHERE tenant_id = :tenant AND created_at < :until
           AND id > ifnull((SELECT id FROM jobs WHERE tenant_id = :tenant AND created_at < :since ORDER BY id DESC LIMIT 1), 0)
         GROUP BY 1""", since=since, until=until)))
    went: Counter[str] = Counter()
    for state in ("completed", "failed", "cancelled", "dead"):
        for minute, many in db.all(tuple, f"""SELECT substr(finished_at, 1, 16), count(*) FROM jobs WHERE tenant_id = :tenant
                                               AND state = '{state}' AND finished_at >= :since AND finished_at < :until GROUP BY 1""",
                                   since=since, until=until):
            went[minute] += many
    return came, went
