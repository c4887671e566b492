"""The wire of costs: what was spent, by whom and for what, and what an agent may spend."""
from typing import Annotated, Literal

from orkosi import Actor, Denied, Meta, Reply, Struct, may, now
from plugins import costs
from plugins.agents import AgentName, find
from plugins.costs import Spent, plugin
from plugins.fields import instant, wrong

READ, WRITE = may("viewer", "costs:read"), may("editor", "agents:write")
By = Literal["agent", "day", "product", "model"]
Day = Annotated[str, Meta(pattern=r"\A\d{4}-\d{2}-\d{2}\Z", description="A local day, such as 2026-11-27")]
Limit = Annotated[int, Meta(ge=0, le=10**15)]
Price = Annotated[int, Meta(ge=0, le=10**12, description="Millionths of a dollar for a million tokens")]


class CostQuery(Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    by: By = "agent"
    since: Day | None = None
    until: Day | None = None


class Cost(Struct):
    """What was spent, of one agent, day, product or model; `key` is null for what belongs to none. `wasted` runs failed or made no progress.
    By agent, `idle_skips` are the runs that were saved since the agent is there, for there was nothing to do, and `saved_micros` what they would
    have cost, each as much as a run of this time did."""
    key: str | None
    runs: int
    wasted: int
    tokens_in: int
    tokens_out: int
    cost_micros: int
    seconds: float
    idle_skips: int | None
    saved_micros: int | None


class NewBudget(Struct, forbid_unknown_fields=True):
    tokens_per_day: Limit | None = None
    tokens_per_month: Limit | None = None
    cost_micros_per_day: Limit | None = None
    cost_micros_per_month: Limit | None = None
    cost_micros_per_hour: Limit | None = None
    runs_without_progress: Annotated[int, Meta(ge=1, le=1000)] = costs.IN_A_ROW
    micros_per_million_tokens_in: Price | None = None
    micros_per_million_tokens_out: Price | None = None


class Over(Struct):
    """Why an agent begins nothing more, and until when."""
    reason: str
    until: str


class AgentBudget(Struct):
    """What an agent may spend, in local days and months, null where there is no limit; what it has spent, with its runs under way; and the
    breaker: it pauses the agent after `runs_without_progress` in a row, of which there are `in_a_row`, or beyond `cost_micros_per_hour`."""
    agent: str
    tokens_per_day: int | None
    tokens_per_month: int | None
    cost_micros_per_day: int | None
    cost_micros_per_month: int | None
    cost_micros_per_hour: int | None
    runs_without_progress: int
    micros_per_million_tokens_in: int | None
    micros_per_million_tokens_out: int | None
    today: Spent
    this_month: Spent
    in_a_row: int
    over: Over | None


def seen(agent: str) -> AgentBudget:
    one, today = costs.budget(agent), costs.day_of(now())
    found = costs.used_up(agent)
    over = Over(*found) if found else None
    return AgentBudget(agent, one.tokens_per_day, one.tokens_per_month, one.cost_micros_per_day, one.cost_micros_per_month, one.cost_micros_per_hour,
                       one.runs_without_progress, one.micros_per_million_tokens_in, one.micros_per_million_tokens_out, costs.spent(agent, today),
                       costs.spent(agent, f"{today[:8]}01"), one.in_a_row, over)


@plugin.get("/api/costs", auth=READ, raises=(400,))
def index(query: CostQuery) -> Reply[list[Cost]]:
    """Say what was spent in a time, by agent, day, product or model

    `from` and `to` are local days, both counted; by default the last thirty. `meta` has the sums."""
    for name, day in (("from", query.since), ("to", query.until)):
        if day:
            instant(day, name)
    until = query.until or costs.day_of(now())
    since = query.since or costs.day_of(now(-29 * 86400))
    if since > until:
        raise wrong("from", "It is after `to`")
    rows = costs.by(query.by, since, until)
    skips = costs.idle_skips() if query.by == "agent" else {}
    found = [Cost(key or None, runs, wasted, tokens_in, tokens_out, cost, ms / 1000, skips.get(key),
                  round(skips[key] * cost / runs) if key in skips else None) for key, runs, wasted, tokens_in, tokens_out, cost, ms in rows]
    sums = {name: sum(getattr(one, name) for one in found) for name in ("runs", "cost_micros", "tokens_in", "tokens_out")}
    return Reply(found, meta={"from": since, "to": until, **sums})


@plugin.get("/api/agents/{name}/budget", auth=may("viewer", "costs:read or queue:work"), raises=(404,), tool="budget_show")
def show(name: AgentName, me: Actor) -> AgentBudget:
    """Say what an agent may spend, and what it has spent

    An agent's own key sees its own."""
    if me.scopes is not None and "costs:read" not in me.scopes and (me.kind != "agent" or me.name != name):
        raise Denied("Insufficient scope: this needs costs:read; an agent's own key sees its own budget")
    return seen(find(name).name)


@plugin.put("/api/agents/{name}/budget", auth=WRITE, raises=(400, 404))
def put(name: AgentName, body: NewBudget) -> AgentBudget:
    """Set what an agent may spend; what is not sent has no limit

    A budget that is used up lets the agent begin nothing more until the next local day or month; at 80 % somebody is told. A price counts where
    its tool tells no cost."""
    costs.put(name, **{field: getattr(body, field) for field in body.__struct_fields__})
    return seen(name)

