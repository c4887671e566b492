"""Costs: what agents spend, what they may, and the breaker that stops one which burns money.

Owns cost_sums, idle_days and agent_budgets. Each run that ends is counted once, into the sums of its day: what is asked of costs is read from those,
however many runs there were. A budget that is used up shuts the agent's queue until the next local day or month. Surprise: whether it is,
is worked out when something is spent, and kept with its end; the claim, which is asked thousands of times, only looks at the clock.
"""
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from orkosi import Conflict, Plugin, Struct, across_tenants, acting, current, db, emit, now, seconds, system, writes
from plugins import notifications, queue
from plugins.agents import Agent, find, runs, seek, want
from plugins.agents.runs import Run
from plugins.queue import iso
from plugins.schedules.slots import here

plugin = Plugin("Costs", layer="domain", needs=("agents", "queue", "notifications", "schedules", "supervisor"))

WARN = 0.8          # of a budget, at which somebody is told
IN_A_ROW = 5        # runs without progress, after which the breaker acts, where no other number is set
MOST = 2**53 - 1    # of a sum: what every JSON reader still counts exactly
WASTED = ("failed", "timeout", "lost", "retry")
LIMITS = ("tokens_per_day", "tokens_per_month", "cost_micros_per_day", "cost_micros_per_month")


class Budget(Struct):
    """A row of `agent_budgets`: what an agent may spend, how it stands, and why it is shut out until when."""
    agent: str
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_micros_per_day: int | None = None
    cost_micros_per_month: int | None = None
    cost_micros_per_hour: int | None = None
    runs_without_progress: int = IN_A_ROW
    micros_per_million_tokens_in: int | None = None
    micros_per_million_tokens_out: int | None = None
    over: str | None = None
    over_until: str | None = None
    warned: str | None = None
    in_a_row: int = 0


class Spent(Struct):
    """What was spent in a time."""
    tokens: int
    cost_micros: int


def day_of(moment: str) -> str:
    """The local day of a time."""
    return _local(moment).strftime("%Y-%m-%d")


def _local(moment: str) -> datetime:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(ZoneInfo(here()))


def ends(moment: str) -> tuple[str, str]:
    """When the local day of a time ends, and when its month does."""
    midnight = _local(moment).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    zone = ZoneInfo(here())
    return iso((midnight + timedelta(days=1)).replace(tzinfo=zone).timestamp()), iso(month.replace(tzinfo=zone).timestamp())


def begins(day: str) -> str:
    """When a local day begins."""
    return iso(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(here())).timestamp())


@plugin.on("idle.skipped")
@across_tenants
def skipped(event: str, saved: Any) -> None:
    """Runs of an agent were saved, for there was nothing to do. Inside the write that notes them."""
    db.run("""INSERT INTO idle_days (tenant_id, agent, day, skipped) VALUES (:home, :agent, :day, :many)
              ON CONFLICT (tenant_id, agent, day) DO UPDATE SET skipped = idle_days.skipped + :many""",
           home=saved.tenant_id, agent=saved.name, day=day_of(now()), many=saved.count)


# ── what an operator sets ──


def budget(agent: str) -> Budget:
    """The budget of an agent; no limits where none was set."""
    return db.one(Budget, "SELECT * FROM agent_budgets WHERE tenant_id = :tenant AND agent = :agent", agent=agent) or Budget(agent)


@writes
def put(agent: str, **limits: Any) -> Budget:
    """Set what an agent may spend, all of it anew; what it has spent already counts. NotFound."""
    find(agent)
    _open(agent)
    db.run("""UPDATE agent_budgets SET tokens_per_day = :tokens_per_day, tokens_per_month = :tokens_per_month,
                     cost_micros_per_day = :cost_micros_per_day, cost_micros_per_month = :cost_micros_per_month,
                     cost_micros_per_hour = :cost_micros_per_hour,
                     runs_without_progress = :runs_without_progress, micros_per_million_tokens_in = :micros_per_million_tokens_in,
                     micros_per_million_tokens_out = :micros_per_million_tokens_out, warned = NULL, updated_at = :now
               WHERE tenant_id = :tenant AND agent = :agent""", agent=agent, now=now(), **limits)
    _judge(agent)
    made = budget(agent)
    emit("budget.changed", find(agent))
    return made


def _open(agent: str) -> None:
    db.run("""INSERT INTO agent_budgets (tenant_id, agent, runs_without_progress, updated_at) VALUES (:tenant, :agent, :row, :now)
              ON CONFLICT DO NOTHING""", agent=agent, row=IN_A_ROW, now=now())


# ── what is spent ──


def spent(agent: str, since: str) -> Spent:
    """What an agent has spent from a local day on, with what runs of its that are under way have told so far."""
    tokens, cost = db.all(tuple, """SELECT ifnull(sum(tokens_in + tokens_out), 0), ifnull(sum(cost_micros), 0) FROM cost_sums
                                     WHERE tenant_id = :tenant AND agent = :agent AND day >= :since""", agent=agent, since=since)[0]
    more = db.all(tuple, """SELECT tokens_in, tokens_out, cost_micros FROM agent_runs WHERE tenant_id = :tenant AND agent = :agent
                             AND status = 'running' ORDER BY id DESC LIMIT 20""", agent=agent)
    priced = [price(budget(agent), *one) for one in more] if more else []
    return Spent(tokens + sum(one[0] + one[1] for one in more), cost + sum(priced))


def by(what: str, since: str, until: str) -> list[tuple[Any, ...]]:
    """(key, runs, wasted, tokens in, tokens out, cost, ms) of two local days and those between, by agent, day, product or model; days in
    their order, the others by what they cost."""
    return db.all(tuple, _BY[what], since=since, until=until)


_BY = {
    "agent": """
        SELECT agent, sum(runs), sum(wasted), sum(tokens_in), sum(tokens_out), sum(cost_micros), sum(ms) FROM cost_sums
         WHERE tenant_id = :tenant AND day >= :since AND day <= :until GROUP BY agent ORDER BY 6 DESC, agent""",
    "day": """
        SELECT day, sum(runs), sum(wasted), sum(tokens_in), sum(tokens_out), sum(cost_micros), sum(ms) FROM cost_sums
         WHERE tenant_id = :tenant AND day >= :since AND day <= :until GROUP BY day ORDER BY day""",
    "product": """
        SELECT product, sum(runs), sum(wasted), sum(tokens_in), sum(tokens_out), sum(cost_micros), sum(ms) FROM cost_sums
         WHERE tenant_id = :tenant AND day >= :since AND day <= :until GROUP BY product ORDER BY 6 DESC, product""",
    "model": """
        SELECT model, sum(runs), sum(wasted), sum(tokens_in), sum(tokens_out), sum(cost_micros), sum(ms) FROM cost_sums
         WHERE tenant_id = :tenant AND day >= :since AND day <= :until GROUP BY model ORDER BY 6 DESC, model""",
}


def idle_skips() -> dict[str, int]:
    """How many runs of each agent were saved, for there was nothing to do."""
    return dict(db.all(tuple, "SELECT name, idle_skips FROM agents WHERE tenant_id = :tenant"))


def price(one: Budget, tokens_in: int, tokens_out: int, told: int) -> int:
    """What a run cost: as it was told, or by the price that was set for a tool that tells none."""
    if told or not (one.micros_per_million_tokens_in or one.micros_per_million_tokens_out):
        return told
    return _sane(round((tokens_in * (one.micros_per_million_tokens_in or 0) + tokens_out * (one.micros_per_million_tokens_out or 0)) / 1_000_000))


@plugin.on("run.finished")
def count(event: str, run: Run) -> None:
    """A run is over: it is priced, counted once, and judged."""
    before = budget(run.agent)
    if not _sum(run, before) or seek(run.agent) is None:
        return
    row = before.in_a_row + 1 if run.status in WASTED else before.in_a_row if run.status == "stopped" else 0
    db.run("UPDATE agent_budgets SET in_a_row = :row WHERE tenant_id = :tenant AND agent = :agent", row=row, agent=run.agent)
    _judge(run.agent)
    if row >= before.runs_without_progress and row > before.in_a_row:
        trip(run.agent, f"{row} runs in a row failed or made no progress; the last: {(run.error or run.status)[:300]}")


@plugin.every("1m")
def catch_up() -> None:
    """Count runs that ended without a word - their process died - or before there were sums. Nobody is judged for them."""
    while found := _uncounted():
        for tenant, id in found:
            with acting(system(tenant)):
                _count_late(id)


@across_tenants
def _uncounted() -> list[tuple[int, int]]:
    return db.all(tuple, "SELECT tenant_id, id FROM agent_runs WHERE counted = 0 AND finished_at IS NOT NULL ORDER BY id LIMIT 500")


@writes(durable=False)
def _count_late(id: int) -> None:
    run = runs.find(id)
    _sum(run, budget(run.agent))


def _sum(run: Run, before: Budget) -> bool:
    """Add a run to the sums, once; whether it was added now. Inside a write."""
    if not runs.count_once(run.id, *_of(run)):
        return False
    if seek(run.agent):
        _open(run.agent)
    cost = price(before, run.tokens_in, run.tokens_out, run.cost_micros)
    if cost != run.cost_micros:
        runs.set_cost(run.id, cost)
        run = replace(run, cost_micros=cost)
    _add(run)
    return True


def _add(run: Run, many: int = 1) -> None:
    """Put a run into the sums of the day it ended on; with -1, take it out of them as it was put in."""
    product, model = runs.counted_as(run.id) or _of(run)
    told = {name: many * _sane(getattr(run, name) or 0) for name in ("tokens_in", "tokens_out", "cost_micros", "duration_ms")}
    place = {"agent": run.agent, "day": day_of(run.finished_at or now()), "product": product, "model": model}
    db.run("""
        INSERT INTO cost_sums (tenant_id, agent, day, product, model, runs, done, wasted, tokens_in, tokens_out, cost_micros, ms)
        VALUES (:tenant, :agent, :day, :product, :model, :many, :done, :wasted, :tokens_in, :tokens_out, :cost_micros, :duration_ms)
        ON CONFLICT (tenant_id, agent, day, product, model) DO UPDATE SET
               runs = cost_sums.runs + :many, done = cost_sums.done + :done, wasted = cost_sums.wasted + :wasted,
               tokens_in = cost_sums.tokens_in + :tokens_in, tokens_out = cost_sums.tokens_out + :tokens_out,
               cost_micros = cost_sums.cost_micros + :cost_micros, ms = cost_sums.ms + :duration_ms""",
           **place, many=many, done=many * (run.status == "done"), wasted=many * (run.status in WASTED), **told)
    if many < 0:
        db.run("""DELETE FROM cost_sums WHERE tenant_id = :tenant AND agent = :agent AND day = :day AND product = :product AND model = :model
                     AND runs = 0 AND tokens_in = 0 AND tokens_out = 0 AND cost_micros = 0""", **place)


def _of(run: Run) -> tuple[str, str]:
    """The product and the model that a run is of, as its task and its agent are now; "" for none."""
    product = db.value("SELECT product_slug FROM tasks WHERE tenant_id = :tenant AND id = :task", task=run.task_id) if run.task_id else None
    agent = seek(run.agent)
    return product or "", (agent.model if agent else None) or ""


@plugin.on("run.corrected")
def correct(event: str, run: Run, before: Run) -> None:
    """A run that was counted already is reported on otherwise: the sums follow, and its price, where nobody told its cost."""
    limits = budget(run.agent)
    if run.cost_micros == before.cost_micros == price(limits, before.tokens_in, before.tokens_out, 0):
        runs.set_cost(run.id, price(limits, run.tokens_in, run.tokens_out, 0))
        run = runs.find(run.id)
    _add(before, -1)
    _add(run)  # a run that was lost ended on another day, where it is heard of again
    if seek(run.agent):
        _judge(run.agent)


@plugin.on("agent.deleted")
def forget(event: str, agent: Agent, **facts: object) -> None:
    """Whoever gets the name next has a budget of their own; what was spent stays on record."""
    db.run("DELETE FROM agent_budgets WHERE tenant_id = :tenant AND agent = :agent", agent=agent.name)


def _sane(told: int) -> int:
    """What a program told of itself, where it can be: sums of such numbers stay countable for a thousand years."""
    return min(told, 10**12)


@plugin.on("run.progress")
def hear(event: str, run: Run) -> None:
    """A run that is under way says what it has used by now."""
    if seek(run.agent):
        _open(run.agent)
        _judge(run.agent)


# ── judging ──


def _judge(agent: str) -> None:
    """See how an agent stands with its budget: shut out, warned of, or stopped for the rate at which it spends."""
    one, moment = budget(agent), now()
    (day, month), today = ends(moment), day_of(moment)
    used = {"day": spent(agent, today), "month": spent(agent, f"{today[:8]}01")}
    over = [(name, until) for name in LIMITS for until in [month if name.endswith("month") else day] if _share(one, used, name) >= 1]
    name, until = max(over, key=lambda found: found[1], default=(None, None))
    db.run("UPDATE agent_budgets SET over = :over, over_until = :until WHERE tenant_id = :tenant AND agent = :agent",
           over=name and _sentence(one, used, name), until=until, agent=agent)
    if name and (one.over is None or (one.over_until or "") <= moment):
        emit("budget.reached", find(agent))
        _warn(one, f"{agent} has used up its budget", f"{_sentence(one, used, name)}. It begins nothing more until {until}.", f"over {name} {until}")
    elif near := next((near for near in LIMITS if WARN <= _share(one, used, near) < 1), None):
        _warn(one, f"{agent} nears its budget", f"{_sentence(one, used, near)}.", f"near {near} {month if near.endswith('month') else day}")
    _judge_rate(one)


def _share(one: Budget, used: dict[str, Spent], name: str) -> float:
    limit = getattr(one, name)
    return 0.0 if limit is None else 1.0 if not limit else _used(used, name) / limit


def _used(used: dict[str, Spent], name: str) -> int:
    time = used[name.rpartition("_")[2]]
    return time.tokens if name.startswith("tokens") else time.cost_micros


def _sentence(one: Budget, used: dict[str, Spent], name: str) -> str:
    """How an agent stands with one of its limits."""
    what, span, limit = _used(used, name), name.rpartition("_")[2], getattr(one, name)
    if name.startswith("tokens"):
        return f"{what:,} of {limit:,} tokens of this {span} are used"
    return f"{dollars(what)} of {dollars(limit)} of this {span} are spent"


def dollars(micros: int) -> str:
    """An amount in words: cents, and more of them where it is little."""
    return f"${micros / 1e6:,.2f}" if micros >= 10_000 else f"${micros / 1e6:.4f}"


def _warn(one: Budget, title: str, message: str, once: str) -> None:
    """Tell of it, once in a day or month."""
    if one.warned != once:
        db.run("UPDATE agent_budgets SET warned = :once WHERE tenant_id = :tenant AND agent = :agent", once=once, agent=one.agent)
        notifications.notify(title, message, type="warning", source="costs", link=f"/api/agents/{one.agent}/budget")


def _judge_rate(one: Budget) -> None:
    """Beyond what it may spend in an hour, an agent is stopped at once."""
    limit, asked = one.cost_micros_per_hour, {"agent": one.agent, "since": now(-3600)}
    if limit is None:
        return
    rows = db.all(tuple, """SELECT tokens_in, tokens_out, cost_micros FROM agent_runs WHERE tenant_id = :tenant AND agent = :agent
                             AND started_at >= :since ORDER BY id DESC LIMIT 2000""", **asked)
    long = db.all(tuple, """SELECT started_at, finished_at, tokens_in, tokens_out, cost_micros FROM agent_runs WHERE tenant_id = :tenant
          AND agent = :agent AND started_at < :since AND ifnull(finished_at, '9') > :since ORDER BY id DESC LIMIT 20""", **asked)
    rate = sum(price(one, *row) for row in rows) + sum(round(price(one, *row) * _of_the_hour(began, ended)) for began, ended, *row in long)
    if rate > limit:
        trip(one.agent, f"it spent {dollars(rate)} within an hour, and may {dollars(limit)}")


def _of_the_hour(began: str, ended: str | None) -> float:
    """The share of a run's time that lies within the last hour: as far as anybody knows, it spends evenly, until now or until its end."""
    start, end = seconds(began), seconds(ended or now())
    return max(0.0, end - max(start, seconds(now(-3600)))) / max(1.0, end - start)


@writes
def trip(agent: str, why: str) -> None:
    """Pause an agent, and end what runs of it; whoever resumes it sets the breaker again. One that is paused or stopped is left so."""
    found = find(agent)
    if found.wanted != "running":
        return
    note = f"The breaker stopped it: {why}"[:2000]
    with acting(system(current().tenant)):
        want(agent, "paused", note, "agent.paused")
        emit("budget.tripped", found, note=note)
        notifications.notify(f"{agent} is paused by the breaker", f"{why[0].upper()}{why[1:]}. Resume it once that is seen to.", type="error",
                             source="costs", link=f"/api/agents/{agent}")
        queue.later("costs.end", {"agent": agent})


@plugin.on("agent.resumed")
@plugin.on("agent.started")
@plugin.on("agent.restarted")
def reset(event: str, agent: Any, **facts: Any) -> None:
    """Somebody has seen to it."""
    db.run("UPDATE agent_budgets SET in_a_row = 0 WHERE tenant_id = :tenant AND agent = :agent", agent=agent.name)


# ── shutting out ──


@queue.shuts
def shut(name: str) -> bool:
    """Whether an agent gets no work because its budget is used up."""
    return name.startswith("agent:") and used_up(name.removeprefix("agent:")) is not None


def used_up(agent: str) -> tuple[str, str] | None:
    """Why an agent is shut out for its budget, and until when; None where it is not."""
    moment = now()
    for over, until in db.all(tuple, """
            SELECT over, over_until FROM agent_budgets WHERE tenant_id = :tenant AND agent = :agent
               AND (over_until > :now OR 0 IN (tokens_per_day, tokens_per_month, cost_micros_per_day, cost_micros_per_month))""",
            agent=agent, now=moment):
        return (over, until) if until and until > moment else _nothing(budget(agent), moment)
    return None


def _nothing(one: Budget, moment: str) -> tuple[str, str]:
    """A limit of 0 is used up also on a day, and in a month, in which nothing was spent that would have had it judged."""
    name = max((name for name in LIMITS if getattr(one, name) == 0), key=lambda name: name.endswith("month"))  # the longer is said
    day, month = ends(moment)
    spans = {"day": day, "month": month}
    return _sentence(one, dict.fromkeys(spans, Spent(0, 0)), name), spans[name.rpartition("_")[2]]


@queue.explains
def why(jobs: list[queue.Job]) -> list[list[queue.Why]]:
    """Why an agent's work waits for a new day."""
    said = {name: used_up(name.removeprefix("agent:")) for name in {job.queue for job in jobs if job.queue.startswith("agent:")}}
    return [[queue.Why("over_budget", f"{found[0]}; it goes on at {found[1]}, or with a larger budget at PUT /api/agents/"
                                      f"{job.queue.removeprefix('agent:')}/budget")] if (found := said.get(job.queue)) else [] for job in jobs]


@runs.before_start
def may_start(agent: str) -> None:
    """Conflict where an agent that begins a run by itself has used up its budget."""
    if found := used_up(agent):
        raise Conflict(f"{agent} has used up its budget: {found[0]}; it goes on at {found[1]}")


from . import ending as ending  # noqa: E402  # last: it uses the plugin above
