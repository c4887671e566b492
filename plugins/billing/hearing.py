"""Hearing: what Stripe tells by itself, what we make of it, and the nightly look at what was not heard.

Surprise: of an event only its id, its type and the id of what it is about are kept. What that says is never believed: it may be old, or
come after what it was before. It is asked anew, in a job that is tried until Stripe answers, and so every order and number of deliveries
leads to one end.
"""
from collections.abc import Callable
from typing import Any

import msgspec

from orkosi import HOST_TENANT, NotFound, Struct, across_tenants, acting, clean, db, now, seconds, system, writes
from plugins import notifications, queue, schedules, tokens
from plugins.fields import wrong
from plugins.queue import iso

from . import buying, credits, plans, plugin, till, topups
from .buying import Purchase

NIGHTLY = "billing.compare"
KEPT = 60 * 86400.0  # seconds for which an event is known; Stripe tells of none that is older than thirty days
LOOKS = 2 * 86400    # seconds of Stripe's events that are looked at each night


class Told(Struct):
    """An event, as little of it as is needed."""
    id: str
    type: str
    object: str
    created: int


class Order(Struct):
    """Which event is to be seen to."""
    event: str


def understand(raw: bytes) -> Told:
    """An event of Stripe's, from its bytes. Invalid."""
    try:
        found = msgspec.json.decode(raw)
        about = found["data"]["object"]
        told = Told(found["id"], found["type"], about.get("id") or "", found["created"])
        if not all(isinstance(one, str) and len(one) <= 255 and one.isprintable() for one in (told.id, told.type, told.object)):
            raise ValueError
        return msgspec.convert(msgspec.to_builtins(told), Told)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise wrong("body", "This is no event of Stripe's") from None


@writes
@across_tenants
def hear(told: Told, again: bool = False) -> bool:
    """Put an event on record, and have it seen to; whether it was new. `again` has one seen to that was heard before."""
    new = bool(db.run("""INSERT INTO billing_events (id, type, object, created_at, received_at) VALUES (:id, :type, :object, :created, :now)
                         ON CONFLICT DO NOTHING""", id=told.id, type=told.type, object=told.object, created=iso(told.created), now=now()))
    if told.type not in _handlers:
        db.run("UPDATE billing_events SET outcome = 'nothing to do' WHERE id = :id", id=told.id)
    elif new or again:
        db.run("UPDATE billing_events SET outcome = NULL WHERE id = :id", id=told.id)
        with acting(system(HOST_TENANT)):
            queue.later("billing.hear", Order(told.id), key=f"{told.id}:{now()}" if again else told.id, attempts=25, outside=True)
    return new


@plugin.job("billing.hear")
def see_to(order: Order) -> str:
    """See to an event that was heard."""
    found = event(order.event)
    outcome = "gone" if found is None else _handlers[found.type](found.object)
    _done(order.event, outcome)
    return outcome


@across_tenants
def event(id: str) -> Told | None:
    """An event on record."""
    row = db.all(tuple, "SELECT id, type, object, created_at FROM billing_events WHERE id = :id", id=id)
    return Told(row[0][0], row[0][1], row[0][2], int(seconds(row[0][3]))) if row else None


@writes
@across_tenants
def _done(id: str, outcome: str) -> None:
    db.run("UPDATE billing_events SET outcome = :outcome WHERE id = :id", id=id, outcome=outcome)


# ── what each is about ──

_handlers: dict[str, Callable[[str], str]] = {}


def _about(*types: str) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    def keep(handler: Callable[[str], str]) -> Callable[[str], str]:
        _handlers.update(dict.fromkeys(types, handler))
        return handler
    return keep


@across_tenants
def whose(customer: str | None) -> tuple[int, int] | None:
    """(tenant, user) of a customer at Stripe; None for one that is not ours."""
    rows = db.all(tuple, "SELECT tenant_id, user_id FROM stripe_customers WHERE customer = :customer", customer=customer)
    return rows[0] if rows else None


def owner_of(customer: str | None) -> tuple[int, int] | None:
    """The same; where a backup is older than the customer, by what Stripe knows of it."""
    if not customer or (known := whose(customer)):
        return known if customer else None
    told = till.ask(lambda v1: v1.customers.retrieve(customer)).get("metadata") or {}
    tenant, user = told.get("orkosi_tenant", ""), told.get("orkosi_user", "")
    if not (tenant.isdigit() and user.isdigit() and adopt(int(tenant), int(user), customer)):
        return None
    return int(tenant), int(user)


@writes
@across_tenants
def adopt(tenant: int, user: int, customer: str) -> bool:
    """Take in a customer that Stripe has and we have forgotten; whether there is such a tenant, and it has no other."""
    if not db.value("SELECT 1 FROM tenants WHERE id = :id", id=tenant):
        return False
    return bool(db.run("""INSERT INTO stripe_customers (tenant_id, user_id, customer, idempotency_key, created_at)
                          VALUES (:home, :user, :customer, :customer, :now) ON CONFLICT DO NOTHING""",
                       home=tenant, user=user, customer=customer, now=now()))


@_about("customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted", "customer.subscription.paused",
        "customer.subscription.resumed")
def subscription_changed(id: str) -> str:
    """Somebody's subscription is otherwise than it was."""
    return _sync(till.ask(lambda v1: v1.subscriptions.retrieve(id))["customer"])


@_about("checkout.session.completed")
def checked_out(id: str) -> str:
    """Somebody has paid at a checkout."""
    return _sync(till.ask(lambda v1: v1.checkout.sessions.retrieve(id))["customer"])


@_about("invoice.paid", "invoice.payment_failed")
def invoiced(id: str) -> str:
    """An invoice was paid, or was not."""
    found = till.ask(lambda v1: v1.invoices.retrieve(id))
    outcome = _sync(found["customer"])
    owner = whose(found["customer"])
    if owner and found["status"] == "open" and found.get("attempted"):
        with acting(system(owner[0])):
            _tell_of_unpaid(found["id"])
    return outcome


@writes
def _tell_of_unpaid(invoice: str) -> None:
    if not db.value("SELECT 1 FROM notifications WHERE tenant_id = :tenant AND source = :source", source=f"billing:{invoice}"):
        notifications.notify("An invoice was not paid", "The card on record was not charged, which is tried again, and then the plan ends; "
                             "set another card in the portal: POST /api/billing/portal.", type="error", source=f"billing:{invoice}",
                             link="/api/billing/subscription")


def _sync(customer: str | None) -> str:
    owner = owner_of(customer)
    if owner is None or customer is None:
        return "not ours"
    with acting(system(owner[0])), buying.turn():
        found = plans.sync(customer)
    return f"{found.has} {found.status}" if found else "no subscription"


@_about("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled")
def payment_changed(id: str) -> str:
    """A payment has come to something."""
    found = till.ask(lambda v1: v1.payment_intents.retrieve(id))
    if not (found.get("metadata") or {}).get("orkosi_purchase"):
        return "not ours"  # an invoice's, or made elsewhere
    owner = owner_of(found["customer"])
    if owner is None:
        return "not ours"
    with acting(system(owner[0])), buying.turn(owner[1]):
        bought = of_payment(found)
        return topups.finish(bought, found) if bought else "not paid"


@writes
def of_payment(found: dict[str, Any]) -> Purchase | None:
    """The purchase that a payment is of. Where a backup is older than it and it was paid, it is put on record anew, as the payment says."""
    told = found["metadata"]
    there = db.one(Purchase, "SELECT * FROM purchases WHERE tenant_id = :tenant AND idempotency_key = :key", key=told["orkosi_purchase"])
    if there or found["status"] != "succeeded":
        return there
    made: Purchase = db.insert(Purchase, "purchases", user_id=int(told["orkosi_user"]), kind=told["kind"], package=told["package"],
                               amount_cents=found["amount"], units=int(told["units"]), status="open", idempotency_key=told["orkosi_purchase"],
                               payment_intent=found["id"], created_at=iso(found["created"]))
    return made


@_about("charge.refunded")
def refunded(id: str) -> str:
    """A payment was given back, or a part of it: so much of what it bought is taken back, as far as it is there."""
    found = till.ask(lambda v1: v1.charges.retrieve(id))
    if found.get("payment_intent"):
        payment_changed(found["payment_intent"])  # that it was paid may not be known here yet
    bought = paid_by(found.get("payment_intent"))
    if bought is None:
        return "not ours"
    with acting(system(bought.tenant_id)), buying.turn(bought.user_id):
        return take_back(bought.id, found["amount_refunded"], found["id"])


@across_tenants
def paid_by(intent: str | None) -> Purchase | None:
    """The purchase that a payment paid."""
    found: Purchase | None = db.one(Purchase, "SELECT * FROM purchases WHERE payment_intent = :intent AND status = 'paid'", intent=intent)
    return found


@writes
def take_back(id: int, cents: int, charge: str) -> str:
    """Take back what so many cents of a purchase bought, less what was taken back already, and no more than there is."""
    bought = buying.purchase(id)
    assert bought
    due = bought.units * min(cents, bought.amount_cents) // bought.amount_cents - bought.refunded_units
    has = tokens.balance().balance if bought.kind == "tokens" else credits.balance(bought.user_id)
    takes, reference = min(due, has), f"{charge}:{cents}"
    if due <= 0:
        return "taken back before"
    db.run("UPDATE purchases SET refunded_units = refunded_units + :due WHERE tenant_id = :tenant AND id = :id", id=id, due=due)
    topups.rest(bought, (has - takes) // (1 if bought.kind == "tokens" else credits.CENT))
    if takes and bought.kind == "tokens":
        tokens.consume(takes, "refunded payment", reference)
    elif takes:
        credits.move_credits(bought.user_id, "refund", -takes, reference)
    return f"{takes} of {due} taken back"


@_about("setup_intent.succeeded")
def set_up(id: str) -> str:
    """A browser has handed Stripe a card."""
    found = till.ask(lambda v1: v1.setup_intents.retrieve(id))
    owner, kind = owner_of(found["customer"]), (found.get("metadata") or {}).get("kind")
    if owner is None or kind not in ("tokens", "credits") or found["status"] != "succeeded":
        return "not ours"
    card = till.ask(lambda v1: v1.payment_methods.retrieve(found["payment_method"]))
    with acting(system(owner[0])), buying.turn(owner[1]):
        topups.set_card(kind, owner[1], card)
    return "card noted"


# ── again, and what was missed ──


def replay(id: str) -> str:
    """Ask Stripe for an event, and see to it now, whether it was heard or not; what became of it. NotFound."""
    try:
        found = till.ask(lambda v1: v1.events.retrieve(id))
    except till.StripeRefused:
        raise NotFound(f"Stripe knows no event {clean(id, 60)}; it keeps them for thirty days") from None
    told = Told(found["id"], found["type"], found["data"]["object"].get("id") or "", found["created"])
    if told.type not in _handlers:
        return f"{told.type}: nothing to do"
    hear(told, again=True)
    return f"{told.type}: {see_to(Order(told.id))}"


@plugin.on("opened")
@plugin.on("integration.configured")
def keep_comparing(event: str, subject: object) -> None:
    """Every night, what Stripe has told is compared with what was heard; where it is set up."""
    with acting(system(HOST_TENANT)):
        if till.configured() and not schedules.own(NIGHTLY, {}):
            schedules.keep_own(NIGHTLY, NIGHTLY, {}, cron="17 3 * * *", catch_up="once", max_attempts=5)


@plugin.job(NIGHTLY)
def nightly(due: schedules.Due) -> int:
    """Compare, every night."""
    return compare()


def compare() -> int:
    """Hear what Stripe told in the last two days and was not heard, and see again to what got stuck; how many events that were."""
    if not till.configured():
        return 0
    forget_events()
    found = till.everything(lambda v1, params: v1.events.list(params=params), most=20_000, created={"gte": int(seconds(now())) - LOOKS})
    missed = [one for one in found if hear(Told(one["id"], one["type"], one["data"]["object"].get("id") or "", one["created"]))]
    for tenant, id in stuck():
        with acting(system(tenant)):
            queue.later("billing.charge", topups.Charge(id), key=f"charge:{id}:{now()}", attempts=25, outside=True)
    return len([one for one in missed if one["type"] in _handlers])


@across_tenants
def stuck() -> list[tuple[int, int]]:
    """(tenant, purchase) of the top-ups that are being paid for longer than any retry takes."""
    return db.all(tuple, "SELECT tenant_id, id FROM purchases WHERE status = 'charging' AND created_at < :before", before=now(-LOOKS))


@writes
@across_tenants
def forget_events() -> None:
    """Forget events that Stripe has forgotten."""
    db.run("DELETE FROM billing_events WHERE received_at < :before", before=now(-KEPT))
