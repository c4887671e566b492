"""A fake of Stripe's API for tests: an HTTP server on loopback, with controls for what buyers, cards and time do.

It owns its objects in memory (fake.customers, fake.checkout_sessions, ... by id), their events (oldest first) and the clock.
Every object is a copy of a fixture; setting a field that the fixture lacks raises, and is kept in fake.errors.

What surprises: a subscription has exactly one item, and its period is on that item only. Months have 30 days. An invoice names its
subscription in parent.subscription_details only. Of the proration behaviours only `always_invoice` bills; a credit goes to the customer's
balance and lowers the next invoice. An unknown id is a 404 in a path and a 400 in a parameter. An idempotency key keeps what was carried
out, card errors too, but no refused parameter and no answer of fail_next. Webhooks are signed at fake.now(), which may be in the future.
"""
import contextlib
import copy
import hashlib
import hmac
import http.client
import json
import queue
import random
import re
import secrets
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

Thing = dict[str, Any]
Answer = tuple[int, bytes, dict[str, str]]
DAY = 24 * 3600
PERIODS = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 365 * DAY}
# Resource: its path, which names its store too, and how its ids begin.
RESOURCES = {
    "customer": ("customers", "cus"), "product": ("products", "prod"), "price": ("prices", "price"),
    "checkout.session": ("checkout/sessions", "cs_test"), "billing_portal.session": ("billing_portal/sessions", "bps"),
    "payment_intent": ("payment_intents", "pi"), "setup_intent": ("setup_intents", "seti"), "payment_method": ("payment_methods", "pm"),
    "subscription": ("subscriptions", "sub"), "subscription_item": ("subscription_items", "si"), "invoice": ("invoices", "in"),
    "charge": ("charges", "ch"), "refund": ("refunds", "re"), "event": ("events", "evt")}
# Fields that the fixtures fill with examples, and that a new object has as null.
NULLS = set("""discount shipping default_price description package_dimensions custom_unit_amount transform_quantity after_expiration
    payment_intent shipping_cost total_details currency_conversion collected_information flow canceled_at last_payment_error next_action
    processing transfer_data last_setup_error cancel_at ended_at trial_start trial_end pause_collection pending_update billing_thresholds
    billing_cycle_anchor_config billing_schedules next_pending_invoice_item_invoice pending_invoice_item_interval due_date from_invoice
    last_finalization_error next_payment_attempt source balance_transaction destination_details customer_details
    invoice_creation consent_collection shipping_address_collection managed_payments""".split())
# Method, path, handler, accepted parameters (! = required). {x} in a path names the resource whose id stands there.
ROUTES = """
GET balance balance
POST customers save_customer email name metadata invoice_settings[default_payment_method]
DELETE customers/{customer} delete_customer
POST customers/{customer} save_customer email name metadata invoice_settings[default_payment_method]
GET customers page:customer email limit created[gte] starting_after
GET customers/{customer}/payment_methods page:payment_method type limit
POST products create:product name! description metadata
POST prices create_price product! unit_amount! currency! recurring[interval] lookup_key transfer_lookup_key metadata nickname
GET prices page:price lookup_keys[] active limit
POST checkout/sessions create_checkout mode! customer line_items[][price] line_items[][quantity] success_url! cancel_url \
    client_reference_id metadata subscription_data[metadata] allow_promotion_codes
GET checkout/sessions page:checkout.session customer subscription limit
POST checkout/sessions/{checkout.session}/expire expire_checkout
POST billing_portal/sessions create:billing_portal.session customer! return_url
POST payment_intents create_payment_intent amount! currency! customer metadata automatic_payment_methods[enabled] payment_method \
    off_session confirm setup_future_usage description
GET payment_intents page:payment_intent customer created[gte] limit starting_after
POST payment_intents/{payment_intent}/cancel cancel_payment_intent
POST setup_intents create:setup_intent customer usage metadata automatic_payment_methods[enabled]
GET payment_methods page:payment_method customer type limit
GET subscriptions page:subscription customer status limit
POST subscriptions/{subscription} update_subscription items[][id] items[][price] items[][quantity] proration_behavior payment_behavior \
    cancel_at_period_end metadata default_payment_method proration_date
DELETE subscriptions/{subscription} cancel_subscription
GET invoices page:invoice customer subscription limit
GET charges page:charge payment_intent customer limit
POST refunds create_refund payment_intent charge amount reason metadata
GET refunds page:refund payment_intent charge limit
GET events page:event created[gte] type types[] limit starting_after delivery_success
""".strip().splitlines() + [f"GET {RESOURCES[kind][0]}/{{{kind}}} fetch" for kind in RESOURCES
                                   if kind not in ("billing_portal.session", "subscription_item")]
INTEGERS = {"unit_amount", "quantity", "amount", "limit", "gte", "proration_date"}
BOOLEANS = set("enabled off_session confirm allow_promotion_codes cancel_at_period_end active transfer_lookup_key delivery_success".split())
CHOICES = {"mode": "payment setup subscription", "interval": "day week month year", "proration_behavior": "none create_prorations always_invoice",
           "payment_behavior": "allow_incomplete error_if_incomplete", "reason": "duplicate fraudulent requested_by_customer"}
RULES = ({name: r"\d+" for name in INTEGERS} | dict.fromkeys(BOOLEANS, "true|false")
         | {name: words.replace(" ", "|") for name, words in CHOICES.items()} | {"amount": r"0*[1-9]\d*", "limit": r"[1-9]\d?|100"})
# Parameters that say what to do, and are no field of the object.
OPTIONS = set("expand items line_items confirm off_session subscription_data transfer_lookup_key proration_behavior payment_behavior "
              "proration_date".split())


class Refusal(Exception):
    """An error of Stripe: its HTTP status and the content of `error`. Controls such as fake.update raise it too."""
    def __init__(self, status: int, message: str, type: str = "invalid_request_error", **more: Any):
        super().__init__(message)
        self.status, self.error = status, {"type": type, "message": message} | more

    def answer(self) -> Answer:
        return self.status, to_json({"error": self.error}), {}


def to_json(body: Any) -> bytes:
    return msgspec.json.format(json.dumps(body), indent=2).encode()  # as json.dumps(indent=2) does, which is in Python, and slow


def typed(name: str, value: Any) -> Any:
    """Turn the text of a parameter into what its name asks: boolean, integer, list or nested dict; metadata stay text."""
    if isinstance(value, dict) and name != "metadata":
        if value and all(key.isdigit() for key in value):
            return [typed(name, value[key]) for key in sorted(value, key=int)]
        return {key: typed(key, part) for key, part in value.items()}
    if name in BOOLEANS:
        return value == "true"
    return int(value) if name in INTEGERS and re.fullmatch(RULES[name], value) else value


def parse_parameters(pairs: list[tuple[str, str]]) -> Thing:
    """Read Stripe's bracket notation: items[0][price]=x becomes {"items": [{"price": "x"}]}."""
    tree: Thing = {}
    for key, text in pairs:
        *parents, last = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", key) or [key]
        node = tree
        for name in parents:
            node[name] = node[name] if isinstance(node.get(name), dict) else {}
            node = node[name]
        node[last or str(len(node))] = text
    return typed("", tree)


def card_error(code: str) -> Thing:
    return {"type": "card_error", "code": code, "decline_code": "generic_decline" if code == "card_declined" else code,
            "message": "Your card was declined." + " This transaction requires authentication." * (code != "card_declined")}


def item_of(subscription: Thing) -> Thing:
    return subscription["items"]["data"][0]


class Objects:
    """The objects, the events and the clock, and what cards, payments and invoices do whoever asks."""
    def __init__(self, fixtures: dict[str, Any]):
        self.fixtures: dict[str, Thing] = fixtures.get("resources", fixtures)
        self.lock, self.ahead, self.url = threading.RLock(), 0.0, ""
        self.sink: queue.Queue[Thing | None] | None = None
        self.errors: list[str] = []
        self.events: list[Thing] = []
        self.declines: set[str] = set()
        self.needs_action: set[str] = set()
        self.delivered: set[str] = set()
        self.carts: dict[str, tuple[list[Thing], dict[str, str]]] = {}
        self.stores: dict[str, dict[str, Thing]] = {kind: {} for kind in RESOURCES}
        for kind in RESOURCES.keys() - {"event", "subscription_item"}:
            setattr(self, RESOURCES[kind][0].replace("/", "_"), self.stores[kind])
        self.cause = {"id": None, "idempotency_key": None}

    def now(self) -> float:
        """The time in the fake."""
        return time.time() + self.ahead

    def put(self, thing: Thing, **fields: Any) -> None:
        """Set fields of an object; its fixture must know them."""
        if unknown := fields.keys() - self.fixtures[thing["object"]].keys():
            self.errors.append(f"the fixture of {thing['object']} does not know {sorted(unknown)}")
            raise AssertionError(self.errors[-1])
        thing.update(copy.deepcopy(fields))

    def make(self, kind: str, **fields: Any) -> Thing:
        """Make an object and keep it."""
        thing, name = copy.deepcopy(self.fixtures[kind]), f"{RESOURCES[kind][1]}_{secrets.token_hex(12)}"
        secret = f"{name}_secret_{secrets.token_hex(8)}" if thing.get("client_secret") else None
        url = f"{self.url}/{'pay' if kind == 'checkout.session' else 'portal'}/{name}" if thing.get("url") else None
        usual = {"livemode": False, "metadata": {}, "created": int(self.now()), "client_secret": secret, "url": url} | dict.fromkeys(NULLS)
        self.put(thing, id=name, **{field: value for field, value in usual.items() if field in thing} | fields)
        if kind != "subscription_item":  # it lives in its subscription
            self.stores[kind][name] = thing
        return thing

    def save(self, kind: str, params: Thing, thing: Thing | None = None, **more: Any) -> Thing:
        """Make or change an object as the parameters ask: an empty text clears a field, metadata are merged."""
        fields = {name: None if value == "" else value for name, value in params.items() if name not in OPTIONS}
        if "metadata" in params:
            both = (thing["metadata"] if thing else {}) | (fields["metadata"] or {})
            fields["metadata"] = {key: text for key, text in both.items() if text != "" and fields["metadata"] is not None}
        if thing is None:
            return self.make(kind, **fields | more)
        self.put(thing, **fields | more)
        return thing

    def emit(self, event_type: str, thing: Thing) -> Thing:
        """Append an event that holds the object as it is now; return the object."""
        self.events.append(self.make("event", type=event_type, data={"object": thing}, request=self.cause))
        if self.sink:
            self.sink.put(self.events[-1])
        return thing

    def why_refused(self, card: str | None) -> str | None:
        """The error code that a payment with this card meets now; no card at all is declined."""
        if card is None or card in self.declines or self.payment_methods[card]["metadata"].get("decline"):
            return "card_declined"
        return "authentication_required" if card in self.needs_action else None

    def new_card(self, customer: str | None = None) -> str:
        card = self.make("payment_method", customer=customer)
        if customer:
            self.emit("payment_method.attached", card)
        return card["id"]

    def must_own(self, customer: str | None, card: str | None) -> None:
        if card and (customer is None or self.payment_methods[card]["customer"] != customer):
            raise Refusal(400, f"The payment method {card} does not belong to the customer {customer}.", param="payment_method")

    def card_of(self, subscription: Thing) -> str | None:
        settings = self.customers[subscription["customer"]]["invoice_settings"]
        return subscription["default_payment_method"] or settings["default_payment_method"]

    def collect(self, intent: Thing, card: str) -> Thing | None:
        """Pay a payment intent with a card; return the card error if it is refused."""
        if code := self.why_refused(card):
            error = card_error(code) | {"payment_method": self.payment_methods[card]}
            self.put(intent, status="requires_payment_method", payment_method=None, last_payment_error=error)
            self.emit("payment_intent.payment_failed", intent)
            return error
        shared = {name: intent[name] for name in ("amount", "currency", "customer", "description", "metadata")}
        charge = self.make("charge", **shared, payment_intent=intent["id"], payment_method=card, captured=True, amount_captured=intent["amount"])
        self.put(intent, status="succeeded", payment_method=card, latest_charge=charge["id"], amount_received=intent["amount"],
                 last_payment_error=None)
        self.emit("charge.succeeded", charge)
        self.emit("payment_intent.succeeded", intent)
        return None

    def set_item(self, item: Thing, price: Thing, quantity: int, start: int | None = None) -> None:
        """Give a subscription item a price and, with `start`, a new period."""
        interval = price["recurring"]["interval"]
        plan = {"id": price["id"], "amount": price["unit_amount"], "product": price["product"], "interval": interval, "interval_count": 1}
        self.put(item, price=price, quantity=quantity, plan=item["plan"] | plan)
        if start is not None:
            self.put(item, current_period_start=start, current_period_end=start + PERIODS[interval])

    def bill(self, subscription: Thing, total: int, reason: str, event_type: str) -> None:
        """Make an invoice, collect it with the subscription's card, and emit the subscription's event and the invoice's."""
        item, customer, now = item_of(subscription), self.customers[subscription["customer"]], int(self.now())
        start, end, balance = item["current_period_start"], item["current_period_end"], total + customer["balance"]
        due = max(balance, 0)
        paid = not due or not self.why_refused(self.card_of(subscription))
        details = {"metadata": subscription["metadata"], "subscription": subscription["id"]}
        invoice = self.make(
            "invoice", billing_reason=reason, customer=customer["id"], currency=item["price"]["currency"], total=total, subtotal=total,
            subtotal_excluding_tax=total, total_excluding_tax=total, amount_due=due, amount_paid=due * paid, amount_remaining=due * (not paid),
            amount_overpaid=0, starting_balance=customer["balance"], ending_balance=balance - due, status="paid" if paid else "open",
            attempted=True, attempt_count=1, effective_at=now, period_start=start, period_end=end,
            parent={"type": "subscription_details", "quote_details": None, "subscription_details": details},
            status_transitions={"finalized_at": now, "marked_uncollectible_at": None, "paid_at": now if paid else None, "voided_at": None})
        invoice["lines"]["data"][0] |= {"amount": total, "subtotal": total, "invoice": invoice["id"], "period": {"start": start, "end": end}}
        self.put(customer, balance=balance - due)
        self.put(subscription, latest_invoice=invoice["id"], status=subscription["status"] if paid else "past_due")
        self.emit(event_type, subscription)
        self.emit("invoice.paid" if paid else "invoice.payment_failed", invoice)


class Api(Objects):
    """What the API answers: find_route gives a request to one of these methods."""
    def find_route(self, method: str, path: str) -> tuple[str, Thing | None, list[str]]:
        """The handler, the object that the path names, and the parameters that may be given."""
        for line in ROUTES:
            verb, pattern, handler, *names = line.split()
            if verb == method and (match := re.fullmatch("/v1/" + re.sub("{.+}", "([^/]+)", pattern), path)):
                owner = re.search("{(.+)}", pattern)
                if owner and match[1] not in self.stores[owner[1]]:
                    raise Refusal(404, f"No such {owner[1]}: '{match[1]}'", code="resource_missing", param="id")
                return handler, self.stores[owner[1]][match[1]] if owner else None, names
        raise Refusal(404, f"Unrecognized request URL ({method}: {path}).")

    def check(self, pairs: list[tuple[str, str]], names: list[str]) -> None:
        """Refuse parameters that are unknown, missing or malformed, and ids of objects that do not exist."""
        shapes = [re.sub(r"\[\d*\]", "[]", re.sub(r"(metadata\]?)\[.+\]$", r"\1", key)) for key, _ in pairs]
        for shape, (key, text) in zip(shapes, pairs, strict=True):
            if shape not in {name.rstrip("!") for name in names} | {"expand", "expand[]"}:
                raise Refusal(400, f"Received unknown parameter: {key}", code="parameter_unknown", param=key)
            name = re.findall(r"\w+", shape)[-1]
            kind = name.removeprefix("default_")
            if name in RULES and not re.fullmatch(RULES[name], text):
                raise Refusal(400, f"Invalid {key}: {text}", code="parameter_invalid_integer" if name in INTEGERS else "parameter_invalid", param=key)
            if text and kind in self.stores and text not in self.stores[kind]:
                raise Refusal(400, f"No such {kind}: '{text}'", code="resource_missing", param=key)
        for name in (name.rstrip("!") for name in names if name.endswith("!")):
            if name not in shapes:
                raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)

    def fetch(self, _: Thing, thing: Thing) -> Thing:
        return thing

    def balance(self, *_: Any) -> Thing:
        money = [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}]
        return {"object": "balance", "available": money, "livemode": False, "pending": money}

    def page(self, kind: str, params: Thing, owner: Thing | None) -> Thing:
        """A page of a resource, newest first."""
        store, start, limit = self.stores[kind], params.pop("starting_after", None), params.pop("limit", 10)
        wanted = {name: value for name, value in params.items() if name != "expand"} | ({"customer": owner["id"]} if owner else {})
        if start is not None and start not in store:
            raise Refusal(400, f"No such {kind}: '{start}'", code="resource_missing", param="starting_after")
        if kind == "subscription":
            wanted.setdefault("status", None)
        names = list(store)[:list(store).index(start) if start else None]
        found = [store[name] for name in reversed(names) if all(self.matches(kind, store[name], *pair) for pair in wanted.items())]
        path = f"customers/{owner['id']}/payment_methods" if owner else RESOURCES[kind][0]
        return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": f"/v1/{path}"}

    def matches(self, kind: str, thing: Thing, name: str, wanted: Any) -> bool:
        if name == "created":
            return thing["created"] >= wanted["gte"]
        if name in ("lookup_keys", "types"):
            return thing[name.removesuffix("s")] in wanted
        if name == "delivery_success":
            return (thing["id"] in self.delivered) == wanted
        if (kind, name) == ("subscription", "status") and wanted in (None, "all"):
            return wanted == "all" or thing["status"] != "canceled"
        if (kind, name) == ("invoice", "subscription"):
            thing = thing["parent"]["subscription_details"]
        return thing[name] == wanted

    def create(self, kind: str, params: Thing, *_: Any, **more: Any) -> Thing:
        return self.emit(f"{kind}.created", self.save(kind, params, **more))

    def save_customer(self, params: Thing, customer: Thing | None) -> Thing:
        settings = params.pop("invoice_settings", {})
        self.must_own(customer and customer["id"], settings.get("default_payment_method"))
        old = (customer or self.fixtures["customer"])["invoice_settings"]
        event = "customer.updated" if customer else "customer.created"
        return self.emit(event, self.save("customer", params, customer, invoice_settings=old | settings))

    def delete_customer(self, _: Thing, customer: Thing) -> Thing:
        """Delete a customer: the cards go along, and subscriptions end."""
        for subscription in [one for one in self.subscriptions.values() if one["customer"] == customer["id"] and one["status"] != "canceled"]:
            self.cancel_subscription({}, subscription)
        for card in [id for id, one in self.payment_methods.items() if one["customer"] == customer["id"]]:
            del self.payment_methods[card]
        self.emit("customer.deleted", customer)
        self.customers[customer["id"]] = {"id": customer["id"], "object": "customer", "deleted": True}
        return self.customers[customer["id"]]

    def create_price(self, params: Thing, _: None) -> Thing:
        key, interval = params.get("lookup_key"), params.pop("recurring", {}).get("interval")
        for other in (price for price in self.prices.values() if key and price["lookup_key"] == key):
            if not params.get("transfer_lookup_key"):
                raise Refusal(400, f"A price (`{other['id']}`) already uses that lookup key.", param="lookup_key")
            self.put(other, lookup_key=None)
        recurring = self.fixtures["price"]["recurring"] | {"interval": interval} if interval else None
        return self.create("price", params, recurring=recurring, type="recurring" if interval else "one_time",
                           unit_amount_decimal=str(params["unit_amount"]))

    def create_checkout(self, params: Thing, _: None) -> Thing:
        mode, cart = params["mode"], params.get("line_items", [])
        prices = [self.prices[line["price"]] for line in cart]
        if not cart and mode != "setup":
            raise Refusal(400, "You must pass line_items.", code="parameter_missing", param="line_items")
        if mode == "subscription" and (len(cart) > 1 or not prices[0]["recurring"]):
            raise Refusal(400, "The fake's subscription mode takes one line item, with a recurring price.", param="line_items")
        total = sum(price["unit_amount"] * line.get("quantity", 1) for price, line in zip(prices, cart, strict=True)) if cart else None
        money = {"amount_total": total, "amount_subtotal": total, "currency": prices[0]["currency"] if cart else None}
        session = self.save("checkout.session", params, **money, expires_at=int(self.now()) + DAY)
        self.carts[session["id"]] = cart, params.get("subscription_data", {}).get("metadata", {})
        if mode == "setup":
            self.put(session, setup_intent=self.create("setup_intent", {"customer": params.get("customer")})["id"])
        return session

    def expire_checkout(self, _: Thing, session: Thing) -> Thing:
        if session["status"] != "open":
            raise Refusal(400, "Only Checkout Sessions with a status in [\"open\"] can be expired.")
        self.put(session, status="expired", url=None)
        return self.emit("checkout.session.expired", session)

    def create_payment_intent(self, params: Thing, _: None) -> Thing:
        customer, card, confirm = params.get("customer"), params.get("payment_method"), params.get("confirm")
        self.must_own(customer, card)
        if confirm and not card:
            raise Refusal(400, "You cannot confirm this PaymentIntent because it's missing a payment method.",
                          code="payment_intent_unexpected_state")
        intent = self.create("payment_intent", params, status="requires_confirmation" if card else "requires_payment_method")
        if confirm and (error := self.collect(intent, card)):
            raise Refusal(402, **error, payment_intent=copy.deepcopy(intent))
        return intent

    def cancel_payment_intent(self, _: Thing, intent: Thing) -> Thing:
        if intent["status"] in ("succeeded", "canceled"):
            raise Refusal(400, f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
                          code="payment_intent_unexpected_state")
        self.put(intent, status="canceled", canceled_at=int(self.now()))
        return self.emit("payment_intent.canceled", intent)

    def update_subscription(self, params: Thing, subscription: Thing) -> Thing:
        old, [change, *others] = item_of(subscription), params.get("items") or [{"id": item_of(subscription)["id"]}]
        if others or change.get("id") != old["id"]:
            raise Refusal(400, f"The fake's subscriptions have one item: items[0][id] must be {old['id']}.", param="items[0][id]")
        if subscription["status"] == "canceled" and params.keys() - {"metadata", "expand"}:
            raise Refusal(400, "A canceled subscription can only update its cancellation_details and metadata.")
        self.must_own(subscription["customer"], params.get("default_payment_method"))
        new, price = copy.deepcopy(old), self.prices[change.get("price", old["price"]["id"])]
        if not price["recurring"]:
            raise Refusal(400, f"The price {price['id']} is not recurring.", param="items[0][price]")
        self.set_item(new, price, change.get("quantity", old["quantity"]))
        start, end = old["current_period_start"], old["current_period_end"]
        left = end - min(max(params.get("proration_date", self.now()), start), end)
        costs = [item["price"]["unit_amount"] * item["quantity"] for item in (old, new)]
        total = round((costs[1] - costs[0]) * left / (end - start))
        billed = params.get("proration_behavior") == "always_invoice" and costs[0] != costs[1]
        code = self.why_refused(params.get("default_payment_method") or self.card_of(subscription))
        due = total + self.customers[subscription["customer"]]["balance"]
        if billed and due > 0 and code and params.get("payment_behavior") == "error_if_incomplete":
            raise Refusal(402, **card_error(code))
        if (ends := params.get("cancel_at_period_end")) is not None:
            params |= {"canceled_at": int(self.now()) if ends else None, "cancel_at": end if ends else None}
        self.save("subscription", params, subscription, items=subscription["items"] | {"data": [new]})
        if billed:
            self.bill(subscription, total, "subscription_update", "customer.subscription.updated")
        else:
            self.emit("customer.subscription.updated", subscription)
        return subscription

    def cancel_subscription(self, _: Thing, subscription: Thing) -> Thing:
        if subscription["status"] == "canceled":
            raise Refusal(404, f"No such subscription: '{subscription['id']}'", code="resource_missing", param="id")
        self.put(subscription, status="canceled", canceled_at=subscription["canceled_at"] or int(self.now()), ended_at=int(self.now()))
        return self.emit("customer.subscription.deleted", subscription)

    def create_refund(self, params: Thing, _: None) -> Thing:
        intent = self.payment_intents.get(params.get("payment_intent"), {})
        charge = self.charges.get(params.get("charge") or intent.get("latest_charge"))
        if charge is None:
            raise Refusal(400, "There is no successful charge to refund.", param="payment_intent")
        left = charge["amount"] - charge["amount_refunded"]
        amount = params.get("amount", left)
        if not 0 < amount <= left:
            code = "parameter_invalid_integer" if left else "charge_already_refunded"
            raise Refusal(400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", code=code, param="amount")
        refunded = charge["amount_refunded"] + amount
        self.put(charge, amount_refunded=refunded, refunded=refunded == charge["amount"])
        refund = self.create("refund", params | {"amount": amount}, charge=charge["id"], payment_intent=charge["payment_intent"],
                             currency=charge["currency"])
        self.emit("charge.refunded", charge)
        return refund


class Server(Api):
    """From an HTTP request to its answer: faults, the key, idempotency, expansion."""
    def __init__(self, fixtures: dict[str, Any], secret_key: str):
        super().__init__(fixtures)
        self.secret_key = secret_key
        self.requests: list[tuple[str, str, Thing, str | None]] = []
        self.faults: list[tuple[str, Answer | None]] = []
        self.delays: list[tuple[str, float]] = []
        self.extra: Thing = {}
        self.keys: dict[str, tuple[Any, Answer | None]] = {}
        self.connections: list[socket.socket] = []

    def serve(self, method: str, target: str, form: str, headers: Any) -> Answer | None:
        """Answer one request; None means: close the connection without an answer."""
        path, query = urlsplit(target)[2:4]
        pairs = parse_qsl(query, True) + parse_qsl(form, True)
        key = headers.get("Idempotency-Key") if method == "POST" else None
        with self.lock:
            self.requests.append((method, path, parse_parameters(pairs), key))
            fault = next((fault for fault in self.faults if fault[0] in path), None)
            if fault:
                self.faults.remove(fault)
            wait = max((seconds for part, seconds in self.delays if part in path), default=0)
        if fault and fault[1]:
            time.sleep(wait)
            return fault[1]
        if headers.get("Authorization") == f"Bearer {self.secret_key}":
            answer = self.once(method, path, pairs, key, wait)
        else:
            answer = Refusal(401, "Invalid API Key provided").answer()
        return None if fault else answer

    def once(self, method: str, path: str, pairs: list[tuple[str, str]], key: str | None, wait: float) -> Answer:
        """Carry a request out, unless its idempotency key was seen before."""
        signature = path, sorted(pairs)
        with self.lock:
            seen, first = self.keys.get(key or "", (signature, None))
            if seen != signature:
                message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
                return Refusal(400, message, "idempotency_error").answer()
            if first:
                return first[0], first[1], first[2] | {"Idempotent-Replayed": "true"}
            if key in self.keys:
                return Refusal(409, "Another request with this idempotency key is in progress.", code="idempotency_key_in_use").answer()
            if key:
                self.keys[key] = signature, None
        time.sleep(wait)
        with self.lock:
            answer, carried_out = self.carry_out(method, path, pairs, key)
            if key and carried_out:
                self.keys[key] = signature, answer
            else:
                self.keys.pop(key or "", None)
        return answer

    def carry_out(self, method: str, path: str, pairs: list[tuple[str, str]], key: str | None) -> tuple[Answer, bool]:
        """The answer, and whether a handler ran."""
        started = False
        self.cause = {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": key}
        try:
            handler, thing, names = self.find_route(method, path)
            self.check(pairs, names)
            (name, _, kind), params, started = handler.partition(":"), parse_parameters(pairs), True
            paths = params.get("expand", [])
            body = copy.deepcopy(getattr(self, name)(*[kind] * bool(kind), params, thing))
            for path in paths:
                self.expand(body, path.split("."))
            self.add_extra(body)
            answer = 200, to_json(body), {"Request-Id": self.cause["id"]}
        except Refusal as refusal:
            answer = refusal.answer()
        except Exception as error:
            if not isinstance(error, AssertionError):  # put() has kept those
                self.errors.append(f"{method} {path}: {error!r}")
            answer = Refusal(500, f"The fake failed: {error!r}", "api_error").answer()
        finally:
            self.cause = {"id": None, "idempotency_key": None}
        return answer, started

    def expand(self, node: Any, names: list[str]) -> None:
        """Put objects in the place of their ids, along a path such as data.latest_invoice."""
        if isinstance(node, list):
            for part in node:
                self.expand(part, names)
        elif names and node is not None:
            name, *rest = names
            if name not in node:
                raise Refusal(400, f"This property cannot be expanded ({name}).", param="expand")
            if isinstance(value := node[name], str):
                node[name] = copy.deepcopy(next((store[value] for store in self.stores.values() if value in store), value))
            self.expand(node[name], rest)

    def add_extra(self, node: Any) -> None:
        if isinstance(node, dict) and isinstance(node.get("object"), str):
            node |= self.extra
        for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            self.add_extra(part)


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.fake.connections.append(self.connection)

    def answer(self) -> None:
        form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        answer = self.server.fake.serve(self.command, self.path, form, self.headers)
        if answer is None:
            self.close_connection = True
            return
        status, body, headers = answer
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        pass


class FakeStripe(Server):
    """The fake, to be used as a context manager; its methods are what tests do in the place of buyers, cards and time."""
    def __init__(self, fixtures: dict[str, Any], secret_key: str = "sk_test_fake", webhook_secret: str = "whsec_fake"):
        super().__init__(fixtures, secret_key)
        self.webhook_secret = webhook_secret

    def __enter__(self) -> "FakeStripe":
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.fake = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self.sink:
            self.sink.put(None)

    def advance(self, seconds: float) -> None:
        """Let time pass; every active subscription whose period has ended is renewed, or ends."""
        with self.lock:
            self.ahead += seconds
            for subscription in list(self.subscriptions.values()):
                item = item_of(subscription)
                while subscription["status"] == "active" and item["current_period_end"] <= self.now():
                    if subscription["cancel_at_period_end"]:
                        self.cancel_subscription({}, subscription)
                    else:
                        self.set_item(item, item["price"], item["quantity"], item["current_period_end"])
                        total = item["price"]["unit_amount"] * item["quantity"]
                        self.bill(subscription, total, "subscription_cycle", "customer.subscription.updated")

    def card(self, customer_id: str, decline: bool = False, needs_action: bool = False, default: bool = True) -> str:
        """Add a card to a customer; the id of the payment method."""
        with self.lock:
            card = self.new_card(customer_id)
            self.declines |= {card} if decline else set()
            self.needs_action |= {card} if needs_action else set()
            if default:
                self.save_customer({"invoice_settings": {"default_payment_method": card}}, self.customers[customer_id])
            return card

    def pay(self, session_id: str, card: str = "good") -> Thing:
        """Complete a checkout as a buyer does; with card="declined" it stays open. `card` may be a payment method of the customer."""
        with self.lock:
            session = self.checkout_sessions[session_id]
            if session["status"] != "open":
                raise ValueError(f"{session_id} is {session['status']}")
            if not session["customer"]:
                self.put(session, customer=self.save_customer({}, None)["id"])
            if card == "declined" or card != "good" and self.why_refused(card):
                return session
            if card == "good":
                card = self.new_card(session["customer"] if session["mode"] != "payment" else None)
            paid = "no_payment_required" if session["mode"] == "setup" else "paid"
            made = {"subscription": self.subscribe, "payment": self.pay_once, "setup": self.set_up_session}[session["mode"]](session, card)
            email = {"email": self.customers[session["customer"]]["email"]}
            self.put(session, **made, status="complete", payment_status=paid, url=None,
                     customer_details=self.fixtures["checkout.session"]["customer_details"] | email)
            return self.emit("checkout.session.completed", session)

    def subscribe(self, session: Thing, card: str) -> Thing:
        """Start the subscription of a checkout session."""
        cart, metadata = self.carts[session["id"]]
        now, price = int(self.now()), self.prices[cart[0]["price"]]
        subscription = self.make("subscription", customer=session["customer"], default_payment_method=card, metadata=metadata, status="active",
                                 cancel_at_period_end=False, billing_cycle_anchor=now, start_date=now, currency=price["currency"])
        item = self.make("subscription_item", subscription=subscription["id"])
        self.set_item(item, price, cart[0].get("quantity", 1), now)
        url = f"/v1/subscription_items?subscription={subscription['id']}"
        self.put(subscription, items=subscription["items"] | {"data": [item], "url": url})
        self.bill(subscription, session["amount_total"], "subscription_create", "customer.subscription.created")
        return {"subscription": subscription["id"], "invoice": subscription["latest_invoice"]}

    def pay_once(self, session: Thing, card: str) -> Thing:
        intent = self.create("payment_intent", {"amount": session["amount_total"], "currency": session["currency"],
                                                "customer": session["customer"]})
        self.collect(intent, card)
        return {"payment_intent": intent["id"]}

    def set_up_session(self, session: Thing, card: str) -> Thing:
        return {"setup_intent": self.set_up(session["setup_intent"], session["customer"], card)["id"]}

    def set_up(self, setup_intent_id: str, customer: str | None = None, card: str | None = None) -> Thing:
        """Let a setup intent succeed, with a new card of its customer unless one is given."""
        with self.lock:
            intent = self.setup_intents[setup_intent_id]
            customer = customer or intent["customer"]
            self.put(intent, status="succeeded", customer=customer, payment_method=card or self.new_card(customer))
            return self.emit("setup_intent.succeeded", intent)

    def confirm(self, payment_intent_id: str, decline: bool = False) -> Thing:
        """Confirm a payment intent with a new card, as the buyer's browser does."""
        with self.lock:
            intent = self.payment_intents[payment_intent_id]
            if intent["status"] in ("succeeded", "canceled"):
                raise ValueError(f"{payment_intent_id} is {intent['status']}")
            card = self.new_card(intent["customer"] if intent["setup_future_usage"] and not decline else None)
            self.declines |= {card} if decline else set()
            self.collect(intent, card)
            return intent

    def cancel(self, subscription_id: str) -> Thing:
        """Cancel a subscription at once, as in the portal."""
        with self.lock:
            return self.cancel_subscription({}, self.subscriptions[subscription_id])

    def update(self, subscription_id: str, **params: Any) -> Thing:
        """Change a subscription as in the portal: parameters of the API, `price` and `quantity` of its item, or fields such as status."""
        with self.lock:
            subscription = self.subscriptions[subscription_id]
            if change := {name: params.pop(name) for name in ("price", "quantity") if name in params}:
                params["items"] = [{"id": item_of(subscription)["id"]} | change]
            return self.update_subscription(params, subscription)

    def refund(self, payment_intent_id: str, amount: int | None = None) -> Thing:
        """Refund a payment, the rest of it unless an amount is given, as in the dashboard."""
        with self.lock:
            return self.create_refund({"payment_intent": payment_intent_id} | ({"amount": amount} if amount is not None else {}), None)

    def signed(self, event: Thing | str, secret: str | None = None, at: float | None = None, body: bytes | None = None,
               ) -> tuple[bytes, dict[str, str]]:
        """The body (or the one given) and the signed headers with which Stripe sends an event."""
        if body is None:
            body = to_json(self.stores["event"][event] if isinstance(event, str) else event)
        moment = int(self.now() if at is None else at)
        digest = hmac.new((secret or self.webhook_secret).encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        return body, {"Content-Type": "application/json", "Stripe-Signature": f"t={moment},v1={digest}"}

    def post(self, url: str, event: Thing, secret: str | None = None) -> int:
        """Send an event once; its status, 0 without an answer."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        try:
            connection.request("POST", parts._replace(scheme="", netloc="").geturl() or "/", *self.signed(event, secret))
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        self.delivered |= {event["id"]} if 200 <= status < 300 else set()
        return status

    def deliver(self, url: str, events: list[Thing | str] | None = None, times: int = 1, shuffle: int | None = None,
                secret: str | None = None) -> list[int]:
        """Send events, by default those that no receiver has taken, each `times` times; with `shuffle`, a seed, out of order."""
        with self.lock:
            chosen = [event for event in self.events if event["id"] not in self.delivered] if events is None else events
        batch = [self.stores["event"][event] if isinstance(event, str) else event for event in chosen for _ in range(times)]
        if shuffle is not None:
            random.Random(shuffle).shuffle(batch)
        return [self.post(url, event, secret) for event in batch]

    def deliver_to(self, url: str) -> None:
        """From now on send every event as soon as it happens; fake.sink.join() waits for those on their way."""
        sink: queue.Queue[Thing | None] = queue.Queue()

        def send() -> None:
            while event := sink.get():
                for pause in (0.1, 0.3, 1, 0):
                    if 200 <= self.post(url, event) < 300:
                        break
                    time.sleep(pause)
                sink.task_done()

        with self.lock:
            self.sink = sink
        threading.Thread(target=send, daemon=True).start()

    def fail_next(self, count: int, status: int = 500, body: Any = None, headers: dict[str, str] | None = None, path: str | None = None) -> None:
        """Answer the next requests so, before anything is carried out."""
        body = {"error": {"type": "api_error", "message": "An unknown error occurred"}} if body is None else body
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else to_json(body)
        with self.lock:
            self.faults += [(path or "", (status, raw, headers or {}))] * count

    def lose_next(self, count: int, path: str | None = None) -> None:
        """Carry the next requests out, but close the connection without an answer."""
        with self.lock:
            self.faults += [(path or "", None)] * count

    def html_next(self, count: int) -> None:
        """Answer the next requests with a page, as a proxy does."""
        self.fail_next(count, 200, "<html><body>Sign in to the network</body></html>", {"Content-Type": "text/html"})

    def rate_limit_next(self, count: int) -> None:
        """Answer the next requests with 429 and Retry-After: 1."""
        error = {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}
        self.fail_next(count, 429, {"error": error}, {"Retry-After": "1"})

    def slow(self, seconds: float, path: str | None = None) -> None:
        """Let every request wait; the latest word for a path counts, 0 ends it."""
        with self.lock:
            self.delays = [delay for delay in self.delays if delay[0] != (path or "")] + [(path or "", seconds)]

    def forget_keys(self) -> None:
        """Forget the idempotency keys, as Stripe does after a day."""
        with self.lock:
            self.keys.clear()
