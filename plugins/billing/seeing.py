"""Seeing: what a tenant used this month, and what the whole server earns and spends.

Everything here is read from rows that are kept anyhow: the sums of costs, the days of tasks, the subscriptions as Stripe last said.
"""
import csv
import io
from datetime import date, timedelta
from typing import Literal

from orkosi import HOST_TENANT, NotFound, Struct, across_tenants, acting, db, now, system
from plugins import costs

from . import buying, plans, prices


class UsagePeriod(Struct):
    """A local month."""
    start: str
    end: str


class UsedUp(Struct):
    """What was used; agents, keys and bytes as they are now, the rest of the month."""
    agents: int
    tasks: int
    api_keys: int
    storage_bytes: int
    tokens: int
    cost_micros: int


class UsageDay(Struct):
    """What was used on a local day."""
    date: str
    tasks: int
    runs: int
    tokens: int
    cost_micros: int


class UsedAgent(Struct):
    """What an agent used in the month."""
    agent: str
    runs: int
    tokens: int
    cost_micros: int


class UsedProduct(Struct):
    """What was used for a product in the month; null for what belongs to none."""
    product_slug: str | None
    runs: int
    tokens: int
    cost_micros: int


class Usage(Struct):
    """What a tenant used this month, and what it may."""
    period: UsagePeriod
    tier: str
    usage: UsedUp
    limits: prices.Limits
    by_day: list[UsageDay]
    by_agent: list[UsedAgent]
    by_product: list[UsedProduct]


class OneLimit(Struct):
    """A limit, and how near it is; all but `used` is null where there is none."""
    limit: int | None
    used: int
    remaining: int | None
    percent: float | None


class PlanLimits(Struct):
    """Every limit of a plan."""
    agents: OneLimit
    tasks_per_month: OneLimit
    api_keys: OneLimit
    storage_bytes: OneLimit


class PlanSummary(Struct):
    """What a tenant's plan allows, and how much of it is used. `limited` is false where nothing is limited: for the host, and without Stripe."""
    tier: str
    name: str
    price_cents: int
    status: str | None
    limited: bool
    limits: PlanLimits


class ProductRevenue(Struct):
    """What subscriptions of one tier bring in a month."""
    product: str
    name: str
    subscribers: int
    mrr_cents: int


class AgentCost(Struct):
    """What an agent's models cost in 30 days."""
    tenant_id: int
    agent: str
    cost_micros: int


class BillingOverview(Struct):
    """What comes in a month, and what goes out. `net_cents` is the one without infrastructure and models."""
    mrr_cents: int
    mrr_by_product: list[ProductRevenue]
    subscribers: int
    infrastructure: list[prices.Infrastructure]
    infrastructure_cents: int
    ai_cost_micros_30d: int
    ai_by_agent: list[AgentCost]
    net_cents: int


# ── of one tenant ──


def usage() -> Usage:
    """What the tenant used this month. NotFound where it has no plan, and used nothing."""
    first, today = plans.month()
    has, plan = plans.used(), plans.current_plan()
    days = _days(first, today)
    agents = [UsedAgent(row[0], row[1], row[3] + row[4], row[5]) for row in costs.by("agent", first, today)]
    if plan is None and not agents and not any(has[name] for name in ("agents", "tasks_per_month", "api_keys")):
        raise NotFound("There is no plan, and nothing was used yet")
    by_product = [UsedProduct(row[0] or None, row[1], row[3] + row[4], row[5]) for row in costs.by("product", first, today)]
    total = UsedUp(has["agents"], has["tasks_per_month"], has["api_keys"], has["storage_bytes"], sum(one.tokens for one in days),
                   sum(one.cost_micros for one in days))
    end = costs.ends(now())[1]
    return Usage(UsagePeriod(costs.begins(first), end), plans.tier_now().tier, total, prices.Limits(**plans.limits_of()), days, agents, by_product)


def _days(first: str, today: str) -> list[UsageDay]:
    """Every day of the month so far, those on which nothing happened as well."""
    made = dict(db.all(tuple, "SELECT day, tasks FROM plan_days WHERE tenant_id = :tenant AND day >= :first AND day <= :today",
                       first=first, today=today))
    spent = {row[0]: (row[1], row[3] + row[4], row[5]) for row in costs.by("day", first, today)}
    begins = date.fromisoformat(first)
    all_days = [str(begins + timedelta(days=at)) for at in range((date.fromisoformat(today) - begins).days + 1)]
    return [UsageDay(day, made.get(day, 0), *spent.get(day, (0, 0, 0))) for day in all_days]


def as_csv(found: Usage) -> bytes:
    """The same as a table, for a spreadsheet: a line for each day, agent and product."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(["by", "key", "tasks", "runs", "tokens", "cost_micros"])
    for day in found.by_day:
        table.writerow(["day", day.date, day.tasks, day.runs, day.tokens, day.cost_micros])
    for agent in found.by_agent:
        table.writerow(["agent", agent.agent, "", agent.runs, agent.tokens, agent.cost_micros])
    for product in found.by_product:
        table.writerow(["product", product.product_slug or "", "", product.runs, product.tokens, product.cost_micros])
    return out.getvalue().encode()


def summary() -> PlanSummary:
    """What the tenant's plan allows, and how much of it is used."""
    tier, plan, has, most = plans.tier_now(), plans.current_plan(), plans.used(), plans.limits_of()
    return PlanSummary(tier.tier, tier.name, tier.price_cents, plan.status if plan else None, plans.limited(),
                       PlanLimits(**{name: _near(most[name], has[name]) for name in plans.LIMITS}))


def _near(limit: int | None, used: int) -> OneLimit:
    if limit is None:
        return OneLimit(None, used, None, None)
    return OneLimit(limit, used, max(0, limit - used), round(100 * used / limit, 1) if limit else 100.0)


# ── of the whole server ──


@across_tenants
def overview() -> BillingOverview:
    """What all tenants pay in a month, and what running this costs."""
    paying: dict[str, list[int]] = {}
    for subscribed in db.all(plans.Subscribed, "SELECT * FROM subscriptions ORDER BY tenant_id"):
        if subscribed.live:
            paying.setdefault(subscribed.tier, []).append(subscribed.price_cents)
    by_product = [ProductRevenue(tier, there.name if (there := prices.seek(tier)) else tier, len(paid), sum(paid))
                  for tier, paid in sorted(paying.items(), key=lambda one: (-sum(one[1]), one[0]))]
    with acting(system(HOST_TENANT)):
        since, today = costs.day_of(now(-29 * 86400)), costs.day_of(now())
    agents = [AgentCost(*row) for row in db.all(tuple, """
        SELECT tenant_id, agent, sum(cost_micros) FROM cost_sums WHERE day >= :since AND day <= :today GROUP BY tenant_id, agent
        HAVING sum(cost_micros) > 0 ORDER BY 3 DESC, tenant_id, agent""", since=since, today=today)]
    spent = sum(one.cost_micros for one in agents)
    mrr, infrastructure = sum(one.mrr_cents for one in by_product), prices.prices().infrastructure
    fixed = sum(one.cents_per_month for one in infrastructure)
    return BillingOverview(mrr, by_product, sum(one.subscribers for one in by_product), infrastructure, fixed, spent, agents[:200],
                    mrr - fixed - round(spent / 10_000))


# ── what there is to buy ──


class Tier(Struct):
    """A tier that can be had."""
    tier: str
    name: str
    price_cents: int
    interval: Literal["month"]
    limits: prices.Limits
    features: list[str]
    stripe_price_id: str | None


class Economics(Struct):
    """What a dollar buys, by the packages; of tokens by the best of them."""
    tokens_per_dollar: int
    tokens_per_dollar_of_package: dict[str, int]
    credit_cents_per_dollar: int
    largest_discount_percent: float


class Pricing(Struct):
    """All that can be bought."""
    tiers: list[Tier]
    token_packages: list[prices.TokenPackage]
    credit_packages: list[prices.CreditPackage]
    economics: Economics


def tiers() -> list[Tier]:
    """The tiers, the least first."""
    return [Tier(one.tier, one.name, one.price_cents, "month", one.limits, one.features, buying.known_price(one)) for one in prices.prices().tiers]


def pricing() -> Pricing:
    """All that can be bought, and what a dollar buys."""
    there = prices.prices()
    each = {one.slug: one.tokens * 100 // one.price_cents for one in there.token_packages}
    credit = max((one.credit_cents * 100 // one.price_cents for one in there.credit_packages), default=0)
    most, least = max(each.values(), default=0), min(each.values(), default=0)
    return Pricing(tiers(), there.token_packages, there.credit_packages,
                   Economics(most, each, credit, round(100 * (1 - least / most), 1) if most else 0.0))

