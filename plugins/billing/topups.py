"""Top-ups: packages that are bought by themselves when a balance runs low; tokens for a tenant, credits for a user.

Surprise: a top-up is a row before it is a payment, and has a slot of its month: two that notice a low balance at once make one row, and
however often one is retried, no month has more than its owner allows. A card that is declined turns the top-up off: no bank should be
asked again and again.
"""
from typing import Any, Literal
from uuid import uuid4

from orkosi import HOST_TENANT, Conflict, NotFound, Struct, across_tenants, acting, current, db, emit, now, seconds, system, writes
from plugins import notifications, queue, tenants, tokens
from plugins.fields import wrong

from . import buying, credits, plans, plugin, prices, till
from .buying import Purchase

Kind = Literal["tokens", "credits"]
PAUSE = 20 * 3600.0  # seconds after which Stripe may have forgotten a key


class Topup(Struct):
    """A row of `topups`."""
    kind: Kind
    user_id: int
    enabled: bool
    threshold: int
    package: str
    max_monthly: int
    payment_method: str | None
    brand: str | None
    last4: str | None
    setup_key: str
    last_error: str | None


class Card(Struct):
    """A card, as much as may be shown of it."""
    brand: str
    last4: str


def find(kind: Kind, user: int = 0) -> Topup | None:
    """How the tenant's tokens, or a user's credits, are topped up, where that was set."""
    found: Topup | None = db.one(Topup, "SELECT * FROM topups WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind", kind=kind, user=user)
    return found


def balance(kind: Kind, user: int) -> int:
    """What is left: tokens, or cents."""
    return tokens.balance().balance if kind == "tokens" else credits.balance(user) // credits.CENT


def taken_slots(kind: Kind, user: int) -> list[str]:
    """The slots of this month that were used, whatever became of them."""
    month = now()[:7]
    return [row[0] for row in db.all(tuple, """SELECT slot FROM purchases WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind
                                                AND slot >= :first AND slot < :last""", kind=kind, user=user, first=month, last=month + "~")]


def paid_this_month(kind: Kind, user: int) -> tuple[int, str | None]:
    """How many top-ups of this month were begun, and when the last one of all was paid."""
    last = db.value("""SELECT max(paid_at) FROM purchases WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind AND slot IS NOT NULL""",
                    kind=kind, user=user)
    return len(taken_slots(kind, user)), last


def under_way(kind: Kind, user: int) -> bool:
    """Whether a top-up is being paid at this moment."""
    return bool(db.value("SELECT 1 FROM purchases WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind AND status = 'charging'",
                         kind=kind, user=user))


# ── setting up ──


def configure(kind: Kind, user: int, *, new: bool, method: str | None = None, field: str = "package_slug", **given: Any) -> str | None:
    """Set how something is topped up; the client secret with which a browser hands Stripe a card, where there is none yet.

    Conflict where it is set already and `new`, NotFound where it is not and is to change, Invalid for a card that is not theirs.
    """
    before = find(kind, user)
    if new and before:
        raise Conflict("Auto top-up is configured already; change it with PUT")
    if not new and before is None:
        raise NotFound("Auto top-up is not configured yet; do that with POST")
    if "package" in given:
        prices.package(kind, given["package"], field)
    with buying.turn(user):
        wants_card = method or (given.get("enabled", new) and not (before and before.payment_method))
        card = _card(user, method) if wants_card else None
        made = put(kind, user, new, card, **given)
        check(kind, user)
        if made.payment_method or not wants_card:
            return None
        who = buying.customer(user)
        return str(till.ask(lambda v1: v1.setup_intents.create(
            params={"customer": who, "usage": "off_session", "metadata": {"orkosi_tenant": str(current().tenant), "kind": kind}},
            options={"idempotency_key": made.setup_key}))["client_secret"])


def _card(user: int, method: str | None) -> dict[str, Any] | None:
    """A payment method of the tenant's own customer: the one that was named, or the one they pay with. Invalid where it is another's."""
    who = buying.customer(user)
    if method is None:
        found = till.ask(lambda v1: v1.customers.retrieve(who)).get("invoice_settings") or {}
        method = found.get("default_payment_method")
        if not method:
            return next(iter(till.ask(lambda v1: v1.payment_methods.list(params={"customer": who, "type": "card", "limit": 1}))["data"]), None)
    try:
        card = till.ask(lambda v1: v1.payment_methods.retrieve(method))
    except till.StripeRefused:
        card = {}
    if card.get("customer") != who:
        raise wrong("stripe_payment_method_id", "There is no such payment method of yours; add one in the portal, or leave this out")
    return card


@writes
def put(kind: Kind, user: int, new: bool, card: dict[str, Any] | None, **given: Any) -> Topup:
    """Write down how something is topped up. Conflict where somebody else did so first."""
    shown = (card or {}).get("card") or {}
    if card:
        given |= {"payment_method": card["id"], "brand": shown.get("brand") or card.get("type") or "card", "last4": shown.get("last4") or ""}
    if given.get("enabled"):
        given["last_error"] = None
    moment = now()
    if new:
        if not db.run("""
                INSERT INTO topups (tenant_id, user_id, kind, enabled, threshold, package, max_monthly, setup_key, created_at, updated_at)
                VALUES (:tenant, :user, :kind, :enabled, :threshold, :package, :most, :key, :now, :now) ON CONFLICT DO NOTHING""",
                      user=user, kind=kind, enabled=int(given["enabled"]), threshold=given["threshold"], package=given["package"],
                      most=given["max_monthly"], key=f"setup-{uuid4()}", now=moment):
            raise Conflict("Auto top-up is configured already; change it with PUT")
    one = find(kind, user)
    assert one
    kept = ("enabled", "threshold", "package", "max_monthly", "payment_method", "brand", "last4", "last_error")
    row = {name: given.get(name, getattr(one, name)) for name in kept}
    db.run("""UPDATE topups SET enabled = :enabled, threshold = :threshold, package = :package, max_monthly = :max_monthly,
                     payment_method = :payment_method, brand = :brand, last4 = :last4, last_error = :last_error, updated_at = :now
               WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind""",
           user=user, kind=kind, now=moment, **row | {"enabled": int(row["enabled"])})
    emit("topup.configured", TopupOf(current().tenant or 0, kind))
    changed = find(kind, user)
    assert changed
    return changed


class TopupOf(Struct):
    """What is topped up, for whoever hears of it."""
    tenant_id: int
    id: str


@writes
def set_card(kind: Kind, user: int, card: dict[str, Any]) -> None:
    """A browser has handed Stripe a card: from now on it is used, where there was none."""
    one = find(kind, user)
    if one and not one.payment_method:
        put(kind, user, False, card)
        check(kind, user)


# ── noticing ──


@plugin.on("tokens.consumed")
def tokens_went(event: str, moved: Any) -> None:
    """The tenant's balance is less now."""
    check("tokens", 0, moved.balance_after)


@plugin.on("credits.consumed")
def credits_went(event: str, moved: Any) -> None:
    """A user's balance is less now."""
    check("credits", moved.user_id)


@plugin.every("10m")
def look() -> None:
    """Top up what is low and was not: a month has begun, or nothing was left to be taken."""
    for tenant, kind, user in enabled():
        with acting(system(tenant)):
            check(kind, user)


@across_tenants
def enabled() -> list[tuple[int, Kind, int]]:
    """(tenant, kind, user) of everything that is topped up."""
    return db.all(tuple, "SELECT tenant_id, kind, user_id FROM topups WHERE enabled = 1 AND payment_method IS NOT NULL")


@writes
def check(kind: Kind, user: int, left: int | None = None) -> None:
    """Begin a top-up, where the balance is low, none is under way, and the month has a slot left."""
    one = find(kind, user)
    if one is None or not one.enabled or not one.payment_method:
        return
    if (balance(kind, user) if left is None else left) >= one.threshold or under_way(kind, user):
        return
    taken = taken_slots(kind, user)
    if len(taken) >= one.max_monthly or not any(one.package == there.slug for there in _packages(kind)):
        return
    bought = buying.plan_purchase(kind, one.package, user, slot=f"{now()[:7]}:{len(taken) + 1:03d}")
    queue.later("billing.charge", Charge(bought.id), key=f"charge:{bought.id}", attempts=25, outside=True)


def _packages(kind: Kind) -> list[Any]:
    return list(prices.prices().token_packages if kind == "tokens" else prices.prices().credit_packages)


# ── paying ──


class Charge(Struct):
    """Which purchase is to be paid by the card on record."""
    id: int


@plugin.job("billing.charge")
def charge(order: Charge) -> str:
    """Pay a top-up; once, however often this is tried."""
    bought = buying.purchase(order.id)
    if bought is None or bought.status != "charging":
        return "over"
    one = find(bought.kind, bought.user_id)  # type: ignore[arg-type]
    if one is None or not one.payment_method:
        buying.fail_purchase(bought.id, "There is no card any more")
        return "no card"
    with buying.turn(bought.user_id):
        try:
            found = _pay(bought, one, buying.customer(bought.user_id))
        except _TurnedOff:
            buying.fail_purchase(bought.id, "Auto top-up was turned off before it was paid")
            return "turned off"
        except till.CardDeclined as declined:
            turn_off(bought, declined.message)
            return "declined"
        except till.StripeRefused as refused:
            turn_off(bought, refused.message)
            return "refused"
    return finish(bought, found)


class _TurnedOff(Exception):
    """Its owner wants no more of it, and Stripe was not asked yet."""


def _pay(bought: Purchase, one: Topup, who: str) -> dict[str, Any]:
    if bought.payment_intent:
        return till.ask(lambda v1: v1.payment_intents.retrieve(bought.payment_intent))
    if not one.enabled:
        if there := _made_before(bought, who):
            return there
        raise _TurnedOff
    if seconds(now()) - seconds(bought.created_at) > PAUSE and (there := _made_before(bought, who)):
        return there
    asked = buying.terms(bought, who) | {"payment_method": one.payment_method, "off_session": True, "confirm": True}
    try:
        return till.ask(lambda v1: v1.payment_intents.create(params=asked, options={"idempotency_key": bought.idempotency_key}))
    except Conflict:  # it was asked for before, with the card that was there then
        if there := _made_before(bought, who):
            return there
        raise


def _made_before(bought: Purchase, who: str) -> dict[str, Any] | None:
    """The payment of a purchase that Stripe was asked for so long ago that it may not know the key any more."""
    made = till.everything(lambda v1, params: v1.payment_intents.list(params=params), customer=who,
                           created={"gte": int(seconds(bought.created_at)) - 300})
    return next((one for one in made if one["metadata"].get("orkosi_purchase") == bought.idempotency_key), None)


def finish(bought: Purchase, found: dict[str, Any]) -> str:
    """Note what a payment has come to, by what Stripe says of it now."""
    if bought.payment_intent is None:
        buying.note_intent(bought.id, found["id"])
    if found["status"] == "succeeded":
        return "paid" if buying.settle(bought.id) else "paid before"
    if found["status"] in ("requires_payment_method", "requires_action", "canceled") and bought.slot:
        asks = found["status"] == "requires_action"
        turn_off(bought, "The bank wants its customer to confirm, and nobody was there" if asks else "The card was declined")
    elif found["status"] == "canceled":
        buying.fail_purchase(bought.id, "It was called off")
    return str(found["status"])


@writes
def turn_off(bought: Purchase, why: str) -> None:
    """A card was not charged: its owner is told, and nothing more is bought until they turn it on again."""
    if not buying.fail_purchase(bought.id, why):
        return
    db.run("""UPDATE topups SET enabled = 0, last_error = :why, updated_at = :now WHERE tenant_id = :tenant AND user_id = :user AND kind = :kind""",
           user=bought.user_id, kind=bought.kind, why=why[:500], now=now())
    path = "auto-topup" if bought.kind == "tokens" else "credit-auto-topup"
    notifications.notify("A top-up was not paid", f"{why}. Auto top-up is off now; turn it on again with PUT /api/billing/{path}.", type="error",
                         source="billing", link=f"/api/billing/{path}", user_id=bought.user_id or None)


@writes
def rest(bought: Purchase, left: int) -> None:
    """What was bought is given back, and so little is left that it would be bought again at once: its owner is asked first."""
    one = find(bought.kind, bought.user_id)  # type: ignore[arg-type]
    if one is None or not one.enabled or left >= one.threshold:
        return
    put(one.kind, bought.user_id, False, None, enabled=False)
    path = "auto-topup" if bought.kind == "tokens" else "credit-auto-topup"
    notifications.notify("Auto top-up is off", "A payment was given back, and what is left would be topped up at once. Turn it on again with "
                         f"PUT /api/billing/{path}.", type="warning", source="billing", link=f"/api/billing/{path}", user_id=bought.user_id or None)


# ── whoever is gone ──


@plugin.on("user.leaving")
def hold_back(event: str, user: Any, **facts: Any) -> None:
    """Whoever pays for a plan ends it first: nobody else of the tenant may, and it would be charged on. Conflict."""
    with acting(system(user.tenant_id)):
        paid = plans.subscribed()
        if paid and paid.live and not paid.cancel_at_period_end and tenants.is_founder(user.tenant_id, user.id):
            raise Conflict(f"Your plan {paid.has} would be paid for on and on; end it first: POST /api/billing/change-plan {{\"tier\": \"free\"}}")


class Forgotten(Struct):
    """Whom Stripe is to forget."""
    customer: str


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """Nothing is bought for somebody who is gone, and Stripe forgets them with their cards. What was paid stays on record, under a number."""
    db.run("DELETE FROM topups WHERE tenant_id = :home AND user_id = :id", home=gone.tenant_id, id=gone.id)
    if tenants.is_founder(gone.tenant_id, gone.id):  # nobody else could turn it off
        db.run("UPDATE topups SET enabled = 0 WHERE tenant_id = :home AND user_id = 0", home=gone.tenant_id)
    who = db.value("SELECT customer FROM stripe_customers WHERE tenant_id = :home AND user_id = :id", home=gone.tenant_id, id=gone.id)
    db.run("DELETE FROM stripe_customers WHERE tenant_id = :home AND user_id = :id", home=gone.tenant_id, id=gone.id)
    if who:
        with acting(system(HOST_TENANT)):
            queue.later("billing.forget", Forgotten(who), key=f"forget:{who}", attempts=25, outside=True)


@plugin.job("billing.forget")
def forget(order: Forgotten) -> str:
    """Have Stripe forget a customer."""
    try:
        till.ask(lambda v1: v1.customers.delete(order.customer))
    except till.StripeRefused:
        return "forgotten before"
    return "forgotten"
