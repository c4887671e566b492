"""Buying: checkout, the portal, another plan, and packages for a single payment.

Surprise: no price comes from whoever buys. They name a tier or a package, and are sent back to pages of ours alone.
"""
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from orkosi import Conflict, Struct, Unavailable, Unprocessable, current, db, emit, now, seconds, writes
from plugins import server, tokens
from plugins.fields import wrong

from . import credits, plans, prices, till
from .plans import Plan, Subscribed, Violation
from .prices import PricedTier

OPEN_FOR = 23 * 3600.0  # seconds in which a checkout is answered again; Stripe ends it after a day
_turns: dict[tuple[int | None, int], threading.Lock] = {}
_turns_lock = threading.Lock()


class CheckoutOpened(Struct):
    """Where to pay."""
    session_id: str
    url: str


class PaymentAsked(Struct):
    """A payment that a browser is to confirm with Stripe; what it buys is credited once Stripe says that it was paid."""
    payment_intent_id: str
    client_secret: str
    amount_cents: int
    tokens: int
    credit_cents: int


class PlanChange(Struct):
    """What became of it: `now`, `at_period_end`, `unchanged`, or `checkout`, where it is to be paid first."""
    outcome: str
    subscription: Plan | None
    session_id: str | None = None
    url: str | None = None


class BeyondTier(Unprocessable):
    """More is used than that tier allows; `details` lists every limit."""
    code = "beyond_tier"


@contextmanager
def turn(user: int = 0) -> Iterator[None]:
    """What is asked of Stripe for one customer, and noted, is done by one at a time. Unavailable where it takes long."""
    with _turns_lock:
        mine = _turns.setdefault((current().tenant, user), threading.Lock())
    if not mine.acquire(timeout=20):
        raise Unavailable("Another change of this tenant's billing is under way; try again", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        mine.release()


# ── whom Stripe knows ──


def known_customer(user: int = 0) -> str | None:
    """The tenant's customer at Stripe, or a user's, where there is one."""
    found: str | None = db.value("SELECT customer FROM stripe_customers WHERE tenant_id = :tenant AND user_id = :user", user=user)
    return found


def customer(user: int = 0) -> str:
    """The tenant's customer at Stripe, or a user's; made at need. It says whose it is, and no name or address."""
    if found := known_customer(user):
        return found
    told = {"orkosi_tenant": str(current().tenant), "orkosi_user": str(user)}
    key = _plan_customer(user)
    made: str = till.ask(lambda v1: v1.customers.create(params={"metadata": told}, options={"idempotency_key": key}))["id"]
    return _note_customer(user, made)


@writes
def _plan_customer(user: int) -> str:
    db.run("""INSERT INTO stripe_customers (tenant_id, user_id, idempotency_key, created_at) VALUES (:tenant, :user, :key, :now)
              ON CONFLICT DO NOTHING""", user=user, key=f"customer-{uuid4()}", now=now())
    return str(db.value("SELECT idempotency_key FROM stripe_customers WHERE tenant_id = :tenant AND user_id = :user", user=user))


@writes
def _note_customer(user: int, made: str) -> str:
    db.run("UPDATE stripe_customers SET customer = ifnull(customer, :made) WHERE tenant_id = :tenant AND user_id = :user", made=made, user=user)
    return known_customer(user) or made


def price_of(tier: PricedTier) -> str:
    """A tier's price at Stripe; made when it is first bought."""
    if known := known_price(tier):
        return known
    name = f"orkosi_{tier.tier}_{tier.price_cents}"
    found = till.ask(lambda v1: v1.prices.list(params={"lookup_keys": [name], "active": True, "limit": 1}))["data"]
    if not found:
        product = till.ask(lambda v1: v1.products.create(params={"name": f"Orkosi {tier.name}"}, options={"idempotency_key": f"product-{name}"}))
        found = [till.ask(lambda v1: v1.prices.create(
            params={"product": product["id"], "unit_amount": tier.price_cents, "currency": "usd", "recurring": {"interval": "month"},
                    "lookup_key": name},
            options={"idempotency_key": f"price-{name}-{product['id']}"}))]
    return _note_price(tier, found[0]["id"])


def known_price(tier: PricedTier) -> str | None:
    """A tier's price at Stripe, where there is one by now."""
    found: str | None = db.value("SELECT price FROM stripe_prices WHERE tier = :tier AND price_cents = :cents",
                                 tier=tier.tier, cents=tier.price_cents)
    return found


@writes
def _note_price(tier: PricedTier, price: str) -> str:
    db.run("INSERT INTO stripe_prices (tier, price_cents, price) VALUES (:tier, :cents, :price) ON CONFLICT DO NOTHING",
           tier=tier.tier, cents=tier.price_cents, price=price)
    return price


# ── checkout and portal ──


def checkout(name: str) -> CheckoutOpened:
    """Open a checkout of a tier; the same again while it is open. Invalid, Conflict where there is a subscription."""
    tier = prices.find(name)
    if not tier.price_cents:
        raise wrong("tier", f"{tier.name} costs nothing, and needs no checkout")
    with turn():
        who = customer()
        there = plans.sync(who)
        if there and (there.live or there.status == "incomplete"):
            raise Conflict(f"There is a subscription of the tier {there.has} ({there.status}); change it at POST /api/billing/change-plan")
        return _checkout(tier, who)


def _checkout(tier: PricedTier, who: str) -> CheckoutOpened:
    price = price_of(tier)
    before = db.all(tuple, "SELECT tier, price, session, url, created_at FROM checkouts WHERE tenant_id = :tenant")
    if before and before[0][2]:
        session = till.ask(lambda v1: v1.checkout.sessions.retrieve(before[0][2]))
        if session["status"] == "open":
            if before[0][:2] == (tier.tier, price) and seconds(now()) - seconds(before[0][4]) < OPEN_FOR:
                return CheckoutOpened(before[0][2], before[0][3])
            till.ask(lambda v1: v1.checkout.sessions.expire(session["id"]))
    key = _plan_checkout(tier, price)
    back, told = server.url() + "/billing", {"orkosi_tenant": str(current().tenant), "tier": tier.tier}
    made = till.ask(lambda v1: v1.checkout.sessions.create(params={
        "mode": "subscription", "customer": who, "line_items": [{"price": price, "quantity": 1}], "success_url": f"{back}/done",
        "cancel_url": f"{back}/cancelled", "client_reference_id": told["orkosi_tenant"], "metadata": told,
        "subscription_data": {"metadata": told}}, options={"idempotency_key": key}))
    _note_checkout(made["id"], made["url"])
    return CheckoutOpened(made["id"], made["url"])


@writes
def _plan_checkout(tier: PricedTier, price: str) -> str:
    """The key of a new checkout; that of the last one, where nobody knows whether Stripe heard of it and it is the same."""
    db.run("""
        INSERT INTO checkouts (tenant_id, tier, price, idempotency_key, created_at) VALUES (:tenant, :tier, :price, :key, :now)
        ON CONFLICT (tenant_id) DO UPDATE SET tier = :tier, price = :price, idempotency_key = :key, session = NULL, url = NULL, created_at = :now
         WHERE checkouts.session IS NOT NULL OR checkouts.tier <> :tier OR checkouts.price <> :price OR checkouts.created_at < :old""",
           tier=tier.tier, price=price, key=f"checkout-{uuid4()}", now=now(), old=now(-OPEN_FOR))
    return str(db.value("SELECT idempotency_key FROM checkouts WHERE tenant_id = :tenant"))


@writes
def _note_checkout(session: str, url: str) -> None:
    db.run("UPDATE checkouts SET session = :session, url = :url WHERE tenant_id = :tenant", session=session, url=url)


def portal() -> str:
    """The address of Stripe's portal, where cards, invoices and the subscription are. Conflict where nothing was ever bought."""
    who = known_customer()
    if who is None:
        raise Conflict("Nothing was bought yet, so there is nothing to see in the portal; begin with POST /api/billing/checkout")
    return str(till.ask(lambda v1: v1.billing_portal.sessions.create(params={"customer": who, "return_url": server.url() + "/"}))["url"])


# ── another plan ──


def change_plan(name: str) -> PlanChange:
    """Go to another tier: up at once, for the rest of the period's price; down when what is paid for is over. BeyondTier, Conflict, Invalid."""
    target = prices.find(name)
    with turn():
        who = known_customer()
        there = plans.sync(who) if who else None
        if beyond := plans.violations(target):
            raise beyond_tier(target, beyond)
        if there is None or not there.live:
            return _begin(target)
        if prices.rank(there.has) == prices.rank(target.tier) and there.pending is None:
            return PlanChange("unchanged", plans.current_plan())
        began = now()
        plans.note(plans.row_of(_update(there, target)), began)
        return PlanChange("at_period_end" if prices.rank(target.tier) < prices.rank(there.has) else "now", plans.current_plan())


def beyond_tier(target: PricedTier, beyond: list[Violation]) -> BeyondTier:
    """What is in the way of a tier."""
    words = ", ".join(f"{one.used:,} {one.limit} of {one.allowed:,}" for one in beyond)
    return BeyondTier(f"The tier {target.tier} allows less than is used: {words}", [
        {"field": one.limit, "message": f"{one.used} are used, {one.allowed} are allowed", "limit": one.limit, "used": one.used,
         "allowed": one.allowed} for one in beyond])


def _begin(target: PricedTier) -> PlanChange:
    """Without a subscription: one is begun at the checkout; what was given is the giver's to change."""
    given = plans.granted()
    if given and prices.rank(given.tier) >= prices.rank(target.tier):
        if given.tier == target.tier:
            return PlanChange("unchanged", plans.current_plan())
        raise Conflict(f"The tier {given.tier} was given by an administrator of this server; ask them for another")
    if not target.price_cents:
        return PlanChange("unchanged", plans.current_plan())
    made = _checkout(target, customer())
    return PlanChange("checkout", plans.current_plan(), made.session_id, made.url)


def _update(there: Subscribed, target: PricedTier) -> dict[str, Any]:
    """Change the subscription at Stripe; what it is then."""
    free, has = not target.price_cents, prices.rank(there.has)
    if free:
        return _set(there, cancel_at_period_end=True)
    clear = {"held_tier": "", "held_until": "", "tier": target.tier}
    if prices.rank(target.tier) < has:
        until = str(int(seconds(there.current_period_end)))
        return _set(there, price_of(target), "none", cancel_at_period_end=False, metadata=clear | {"held_tier": there.has, "held_until": until})
    if there.has != there.tier and (before := prices.seek(there.has)):  # what is paid for already is not paid again
        done = _set(there, price_of(before), "none", cancel_at_period_end=False, metadata=clear | {"tier": before.tier})
        if target.tier == before.tier:
            return done
    if target.tier == there.has:
        return _set(there, cancel_at_period_end=False)
    return _set(there, price_of(target), "always_invoice", payment_behavior="error_if_incomplete", cancel_at_period_end=False, metadata=clear)


def _set(there: Subscribed, price: str | None = None, proration: str | None = None, **params: Any) -> dict[str, Any]:
    if price:
        item = till.ask(lambda v1: v1.subscriptions.retrieve(there.subscription))["items"]["data"][0]
        if item["price"]["id"] != price:
            params |= {"items": [{"id": item["id"], "price": price}], "proration_behavior": proration}
        else:
            params.pop("payment_behavior", None)
    return till.ask(lambda v1: v1.subscriptions.update(there.subscription, params=params))


# ── packages ──


class Purchase(Struct):
    """A row of `purchases`."""
    id: int
    tenant_id: int
    user_id: int
    kind: str
    package: str
    amount_cents: int
    units: int
    status: str
    slot: str | None
    request_key: str | None
    idempotency_key: str
    payment_intent: str | None
    refunded_units: int
    error: str | None
    created_at: str
    paid_at: str | None


def payment_intent(slug: str, request_key: str | None = None) -> PaymentAsked:
    """Ask Stripe for a payment of a package; the same again under the same key. Invalid, Conflict where the key stands for another package."""
    kind = "credits" if any(one.slug == slug for one in prices.prices().credit_packages) else "tokens"
    prices.package(kind, slug, "package_slug")
    user = (current().user or 0) if kind == "credits" else 0
    with turn(user):
        bought = asked_before(request_key) if request_key else None
        if bought and (bought.package, bought.user_id) != (slug, user):
            raise Conflict(f"idempotency_key: {request_key!r} stands for another package, {bought.package}; send a new one")
        who = customer(user)
        bought = bought or plan_purchase(kind, slug, user, request_key=request_key)
        found = till.ask(lambda v1: v1.payment_intents.retrieve(bought.payment_intent)) if bought.payment_intent else _intend(bought, who)
    return PaymentAsked(found["id"], found["client_secret"], bought.amount_cents, bought.units if kind == "tokens" else 0,
                        bought.units // 10_000 if kind == "credits" else 0)


def asked_before(request_key: str) -> Purchase | None:
    """What the tenant bought under a key of its own."""
    found: Purchase | None = db.one(Purchase, "SELECT * FROM purchases WHERE tenant_id = :tenant AND request_key = :key", key=request_key)
    return found


@writes
def plan_purchase(kind: str, slug: str, user: int, *, request_key: str | None = None, slot: str | None = None) -> Purchase:
    """Put on record what is to be paid, before anybody is asked to pay it."""
    package = prices.package(kind, slug, "package_slug")
    made: Purchase = db.insert(Purchase, "purchases", user_id=user, kind=kind, package=slug, amount_cents=package.price_cents,
                               units=prices.units(package), status="charging" if slot else "open", slot=slot, request_key=request_key,
                               idempotency_key=f"purchase-{uuid4()}", created_at=now())
    return made


def terms(bought: Purchase, who: str) -> dict[str, Any]:
    """What Stripe is asked for: whatever becomes of our row, the payment itself says what it was for."""
    told = {"orkosi_purchase": bought.idempotency_key, "orkosi_tenant": str(bought.tenant_id), "orkosi_user": str(bought.user_id),
            "kind": bought.kind, "package": bought.package, "units": str(bought.units)}
    return {"amount": bought.amount_cents, "currency": "usd", "customer": who, "metadata": told}


def _intend(bought: Purchase, who: str) -> dict[str, Any]:
    asked = terms(bought, who) | {"automatic_payment_methods": {"enabled": True}, "setup_future_usage": "off_session"}
    found = till.ask(lambda v1: v1.payment_intents.create(params=asked, options={"idempotency_key": bought.idempotency_key}))
    note_intent(bought.id, found["id"])
    return found


@writes
def note_intent(id: int, intent: str) -> None:
    """Which payment is a purchase's."""
    db.run("UPDATE purchases SET payment_intent = :intent WHERE tenant_id = :tenant AND id = :id", id=id, intent=intent)


@writes
def fail_purchase(id: int, error: str) -> bool:
    """It was not paid, and will not be; whether it was open until now."""
    done = bool(db.run("""UPDATE purchases SET status = 'failed', error = :error WHERE tenant_id = :tenant AND id = :id
                           AND status IN ('open', 'charging')""", id=id, error=error[:500]))
    if done:
        emit("purchase.failed", purchase(id))
    return done


def purchase(id: int) -> Purchase | None:
    """One of the tenant's purchases, if it is there."""
    found: Purchase | None = db.one(Purchase, "SELECT * FROM purchases WHERE tenant_id = :tenant AND id = :id", id=id)
    return found


@writes
def settle(id: int) -> bool:
    """It is paid: what it bought is credited, once; whether it was now."""
    bought = purchase(id)
    assert bought and bought.payment_intent
    if not db.run("UPDATE purchases SET status = 'paid', error = NULL, paid_at = :now WHERE tenant_id = :tenant AND id = :id AND status <> 'paid'",
                  id=id, now=now()):
        return False
    if bought.kind == "tokens":
        tokens.credit(bought.units, "purchase", bought.package, bought.payment_intent, {"amount_cents": bought.amount_cents})
    else:
        credits.move_credits(bought.user_id, "purchase", bought.units, bought.payment_intent)
    emit("purchase.paid", purchase(id))
    return True

