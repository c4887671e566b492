"""Plans: which tier a tenant has, what that allows, and what is used of it.

Surprise: a tenant that goes down pays the lower price at Stripe from now on, and has the higher tier until the end of what it paid for.
Both stand in the subscription itself, at Stripe, so that no clock of ours has to be awake at midnight.
"""
import time
from typing import Any, Literal

from orkosi import HOST_TENANT, NotFound, PaymentDue, Struct, across_tenants, acting, current, db, emit, now, settings, system, writes
from plugins import costs, notifications
from plugins.fields import wrong
from plugins.queue import iso
from plugins.tenants import shares

from . import plugin, prices, till

LIVE = ("active", "trialing", "past_due")  # statuses at Stripe in which the tier counts
Limit = Literal["agents", "tasks_per_month", "api_keys", "storage_bytes"]
LIMITS: tuple[Limit, ...] = ("agents", "tasks_per_month", "api_keys", "storage_bytes")


class LimitReached(PaymentDue):
    """The plan allows no more of this; the message names the limit, and the plan that lifts it."""
    code = "plan_limit"


class Subscribed(Struct):
    """A row of `subscriptions`."""
    subscription: str
    tier: str
    status: str
    price_cents: int
    held_tier: str | None
    held_until: str | None
    cancel_at_period_end: bool
    current_period_start: str
    current_period_end: str

    @property
    def live(self) -> bool:
        """Whether it counts now."""
        return self.status in LIVE and not (self.cancel_at_period_end and self.current_period_end <= now())

    @property
    def has(self) -> str:
        """The tier that is paid for at this moment."""
        return self.held_tier if self.held_tier and (self.held_until or "") > now() else self.tier

    @property
    def pending(self) -> str | None:
        """The tier from the next period on, where that is another."""
        return prices.prices().tiers[0].tier if self.cancel_at_period_end else self.tier if self.tier != self.has else None


class Granted(Struct):
    """A row of `plan_grants`."""
    tier: str
    granted_by: str
    granted_at: str
    until: str | None


class Plan(Struct):
    """What a tenant has; `granted_by` where nobody pays for it."""
    tier: str
    status: str
    current_period_start: str
    current_period_end: str | None
    cancel_at_period_end: bool
    pending_tier: str | None
    granted_by: str | None


class Violation(Struct):
    """A limit of a tier that what is used is beyond."""
    limit: str
    used: int
    allowed: int


# ── what there is ──


def subscribed() -> Subscribed | None:
    """The tenant's subscription as Stripe last said, if there ever was one."""
    found: Subscribed | None = db.one(Subscribed, "SELECT * FROM subscriptions WHERE tenant_id = :tenant")
    return found


def granted() -> Granted | None:
    """What an administrator gave the tenant, while it holds."""
    found: Granted | None = db.one(Granted, "SELECT * FROM plan_grants WHERE tenant_id = :tenant AND (until IS NULL OR until > :now)", now=now())
    return found


def current_plan() -> Plan | None:
    """The tenant's plan: what it pays for or was given, whichever is more; None where there is neither."""
    paid, given = subscribed(), granted()
    if given and not (paid and paid.live and prices.rank(paid.has) >= prices.rank(given.tier)):
        return Plan(given.tier, "granted", given.granted_at, given.until, False, None, given.granted_by)
    if paid is None or paid.status in ("canceled", "incomplete_expired") or (paid.status in LIVE and not paid.live):
        return None
    return Plan(paid.has, paid.status, paid.current_period_start, paid.current_period_end, paid.cancel_at_period_end, paid.pending, None)


def tier_now() -> prices.PricedTier:
    """The tier that counts for the tenant; the first one, where it has no plan or pays for none now."""
    plan = current_plan()
    there = prices.seek(plan.tier) if plan and plan.status in (*LIVE, "granted") else None
    return there or prices.prices().tiers[0]


def limited() -> bool:
    """Whether plans limit the tenant."""
    if current().tenant == HOST_TENANT or settings.plan_limits == "off":
        return False
    return settings.plan_limits == "on" or till.configured() or current_plan() is not None


def limits_of() -> dict[Limit, int | None]:
    """What the tenant may have now; None where there is no limit."""
    there = tier_now().limits if limited() else prices.Limits()
    return {name: getattr(there, name) for name in LIMITS}


# ── what Stripe says ──


def row_of(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a subscription of Stripe's; it follows from that alone."""
    item = found["items"]["data"][0]
    price, told = item["price"], found.get("metadata") or {}
    named = (price.get("lookup_key") or "").split("_")
    tier = named[1] if len(named) == 3 and named[0] == "orkosi" else told.get("tier", "")
    return {"subscription": found["id"], "tier": tier or prices.prices().tiers[0].tier, "status": found["status"],
            "price_cents": (price.get("unit_amount") or 0) * (item.get("quantity") or 1), "held_tier": told.get("held_tier") or None,
            "held_until": iso(int(told["held_until"])) if told.get("held_until", "").isdigit() else None,
            "cancel_at_period_end": int(bool(found.get("cancel_at_period_end"))),
            "current_period_start": iso(item["current_period_start"]), "current_period_end": iso(item["current_period_end"])}


def best_of(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of a customer's subscriptions the one that counts: a live one before others, then the dearest, then the newest."""
    return max(found, key=lambda one: (one["status"] in LIVE, one["status"] not in ("canceled", "incomplete_expired"), row_of(one)["price_cents"],
                                       one["created"], one["id"]), default=None)


def sync(customer: str) -> Subscribed | None:
    """Ask Stripe what the tenant's customer is subscribed to, and note it; what counts. Whoever calls this has the tenant's turn."""
    began = now()
    found = till.everything(lambda v1, params: v1.subscriptions.list(params=params), customer=customer, status="all")
    best = best_of(found)
    if best is not None:
        note(row_of(best), began)
    if len([one for one in found if one["status"] in LIVE]) > 1:
        _tell_of_two(customer)
    return subscribed()


@writes
def note(row: dict[str, Any], asked_at: str) -> None:
    """Put on record what Stripe answered to a question; unless a later one was answered already."""
    before = current_plan()
    db.run("""
        INSERT INTO subscriptions (tenant_id, subscription, tier, status, price_cents, held_tier, held_until, cancel_at_period_end,
                                   current_period_start, current_period_end, fetched_at)
        VALUES (:tenant, :subscription, :tier, :status, :price_cents, :held_tier, :held_until, :cancel_at_period_end,
                :current_period_start, :current_period_end, :asked_at)
        ON CONFLICT (tenant_id) DO UPDATE SET subscription = :subscription, tier = :tier, status = :status, price_cents = :price_cents,
               held_tier = :held_tier, held_until = :held_until, cancel_at_period_end = :cancel_at_period_end,
               current_period_start = :current_period_start, current_period_end = :current_period_end, fetched_at = :asked_at
         WHERE subscriptions.fetched_at <= :asked_at""", asked_at=asked_at, **row)
    after = current_plan()
    if after != before:
        emit("plan.changed", PlanOf(current().tenant or 0, after.tier if after else prices.prices().tiers[0].tier, after.status if after else "none"))


class PlanOf(Struct):
    """A tenant's plan, for whoever hears of it."""
    tenant_id: int
    tier: str
    status: str


@writes
def _tell_of_two(customer: str) -> None:
    if not db.value("SELECT 1 FROM notifications WHERE tenant_id = :tenant AND source = :source", source=f"billing:{customer}"):
        notifications.notify("Two subscriptions are paid at once", "Stripe has two subscriptions for one customer; cancel one of them in its portal.",
                             type="warning", source=f"billing:{customer}")


# ── another account ──

@across_tenants
def of_stripe() -> dict[str, int]:
    """How much is known of Stripe's account, of all tenants."""
    return {what: int(db.value(many)) for what, many in (
        ("customers", "SELECT count(*) FROM stripe_customers"), ("prices", "SELECT count(*) FROM stripe_prices"),
        ("plans", "SELECT count(*) FROM subscriptions"), ("cards", "SELECT count(*) FROM topups WHERE payment_method IS NOT NULL"))}


@writes
@across_tenants
def forget_stripe() -> None:
    """Know nothing of Stripe's account any more, for there is another one; what was bought and is left stays."""
    for forgotten in ("DELETE FROM stripe_customers", "DELETE FROM stripe_prices", "DELETE FROM subscriptions", "DELETE FROM checkouts"):
        db.run(forgotten)
    db.run("""UPDATE topups SET enabled = 0, payment_method = NULL, brand = NULL, last4 = NULL, setup_key = setup_key || '+', updated_at = :now,
                     last_error = 'Stripe has another account now; hand in a card anew'""", now=now())
    db.run("""UPDATE purchases SET status = 'failed', error = 'Stripe has another account now' WHERE status IN ('open', 'charging')""")
    db.after_commit(lambda: forget("opened", None))


# ── what an administrator gives ──


@writes
@across_tenants
def grant(tenant: int, tier: str, until: str | None = None) -> Granted:
    """Give a tenant a plan that nobody pays for; another one is replaced. Invalid, NotFound."""
    prices.find(tier)
    if until is not None and until <= now():
        raise wrong("until", "That is over; name a day that is to come")
    if tenant == HOST_TENANT or not db.value("SELECT 1 FROM tenants WHERE id = :id", id=tenant):
        raise NotFound("The host has no limits, and needs no plan" if tenant == HOST_TENANT else f"There is no tenant {tenant}")
    by = current().ref
    with acting(system(tenant)):
        db.run("""INSERT INTO plan_grants (tenant_id, tier, granted_by, granted_at, until) VALUES (:tenant, :tier, :by, :now, :until)
                  ON CONFLICT (tenant_id) DO UPDATE SET tier = :tier, granted_by = :by, granted_at = :now, until = :until""",
               tier=tier, by=by, now=now(), until=until)
        emit("plan.granted", PlanOf(tenant, tier, "granted"))
        found = granted()
        assert found
        return found


@writes
def withdraw_grant() -> None:
    """Take back what was given to the tenant. NotFound."""
    if not db.run("DELETE FROM plan_grants WHERE tenant_id = :tenant"):
        raise NotFound(f"Tenant {current().tenant} was given no plan")
    emit("plan.withdrawn", PlanOf(current().tenant or 0, tier_now().tier, "none"))


# ── what is used ──


def month() -> tuple[str, str]:
    """The first day of this local month, and today."""
    today = costs.day_of(now())
    return f"{today[:8]}01", today


_USED: dict[Limit, str] = {
    "agents": "SELECT count(*) FROM agents WHERE tenant_id = :tenant",
    "tasks_per_month": "SELECT ifnull(sum(tasks), 0) FROM plan_days WHERE tenant_id = :tenant AND day >= :first AND day <= :today",
    "api_keys": "SELECT count(*) FROM api_keys WHERE tenant_id = :tenant AND agent IS NULL AND deleted_at IS NULL AND revoked_at IS NULL",
    "storage_bytes": "SELECT bytes FROM tenant_shares WHERE tenant_id = :tenant"}


def used_of(name: Limit) -> int:
    """What the tenant has of one thing that plans limit."""
    first, today = month() if name == "tasks_per_month" else ("", "")
    return db.value(_USED[name], **({"first": first, "today": today} if first else {})) or 0


def used() -> dict[Limit, int]:
    """What the tenant has of what plans limit."""
    return {name: used_of(name) for name in LIMITS}


def violations(tier: prices.PricedTier) -> list[Violation]:
    """Which limits of a tier what is used now is beyond; the host has none."""
    if current().tenant == HOST_TENANT:
        return []
    has = used()
    return [Violation(name, has[name], allowed) for name in LIMITS if (allowed := getattr(tier.limits, name)) is not None and has[name] > allowed]


@plugin.on("agent.created")
def limit_agents(event: str, agent: Any) -> None:
    """No more agents than the plan has."""
    _limit("agents", agent.tenant_id)


@plugin.on("key.created")
@across_tenants
def limit_keys(event: str, key: Any) -> None:
    """No more API keys than the plan has."""
    _limit("api_keys", db.value("SELECT tenant_id FROM api_keys WHERE id = :id", id=key.id))


@plugin.on("task.created")
def limit_tasks(event: str, task: Any) -> None:
    """No more tasks in a month than the plan has; each counts, whatever becomes of it."""
    db.run("""INSERT INTO plan_days (tenant_id, day, tasks) VALUES (:tenant, :day, 1)
              ON CONFLICT (tenant_id, day) DO UPDATE SET tasks = plan_days.tasks + 1""", day=costs.day_of(now()))
    _limit("tasks_per_month", current().tenant)


def _limit(name: Limit, tenant: int | None) -> None:
    """Inside the write that added one: LimitReached where that is too many."""
    if tenant == HOST_TENANT or tenant is None:
        return
    with acting(system(tenant)):
        allowed = limits_of()[name]
        if allowed is None or (has := used_of(name)) <= allowed:
            return
        raise LimitReached(f"{name}: The plan {tier_now().tier} has {allowed:,}, and they are used{lifted_by(name, has)}",
                           [{"field": name, "message": f"{allowed} of {allowed} are used"}])


def lifted_by(name: Limit, has: int) -> str:
    """What to do about a limit, as the end of a sentence."""
    better = next((one for one in prices.prices().tiers if getattr(one.limits, name) is None or getattr(one.limits, name) >= has), None)
    if better is None:
        return "; ask the operator of this server for more"
    most = getattr(better.limits, name)
    lifted = "no such limit" if most is None else f"{most:,}"
    return f"; the plan {better.tier} has {lifted}: POST /api/billing/change-plan {{\"tier\": \"{better.tier}\"}}"


_storage: dict[int, tuple[float, int | None, str]] = {}


@shares.bounds
def storage() -> tuple[int | None, str]:
    """How many bytes the tenant may fill by its plan, and what to do where they are full; looked up anew every half minute."""
    tenant = current().tenant or 0
    until, most, way_out = _storage.get(tenant, (0.0, None, ""))
    if until < time.monotonic():
        most = limits_of()["storage_bytes"]
        way_out = lifted_by("storage_bytes", most + 1) if most is not None else ""
        _storage[tenant] = (time.monotonic() + 30, most, way_out)
    return most, way_out


@plugin.on("opened")
@plugin.on("plan.*")
def forget(event: str, subject: object, **facts: object) -> None:
    """What was looked up may be otherwise now."""
    _storage.clear()
