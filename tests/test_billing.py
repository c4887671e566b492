"""Billing under everything that goes wrong: Stripe that is slow, down or strange, events in any order and number, kills, and people who try."""
import itertools
import json
import random
import threading
import time

import pytest
from conftest import Client, command, eventually, put
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import orkosi
from orkosi import acting, db, system
from plugins import billing, tokens
from plugins.billing import credits, hearing, plans, till, topups
from plugins.queue import executor

# What billing keeps, and what it moves.
KEPT = ("stripe_customers", "subscriptions", "checkouts", "purchases", "topups", "credit_accounts", "credit_ledger", "billing_events", "token_ledger",
        "token_accounts", "jobs", "notifications")
TRIGGERS = ("credit_ledger_stays", "credit_ledger_stays_as_it_is", "token_ledger_stays", "token_ledger_stays_as_it_is")


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def free(monkeypatch):
    """No limit on how often somebody asks."""
    monkeypatch.setitem(orkosi.settings.values, "limit_billing", "off")


def again():
    """Those jobs that wait for another attempt are due now, and those whose hands are gone are taken back."""
    db.write(lambda: db.run("UPDATE jobs SET run_at = '2000-01-01T00:00:00.000Z' WHERE state = 'delayed' AND queue = 'orkosi outside'"))
    db.write(lambda: db.run("UPDATE jobs SET lease_expires_at = '2000-01-01T00:00:00.000Z' WHERE state = 'active' AND queue = 'orkosi outside'"))
    executor.rescue()
    db.write(lambda: db.run("UPDATE jobs SET run_at = '2000-01-01T00:00:00.000Z' WHERE state = 'delayed' AND queue = 'orkosi outside'"))
    executor.promote_due()


def unfinished():
    return db.value("SELECT count(*) FROM jobs WHERE queue = 'orkosi outside' AND state IN ('waiting', 'delayed', 'active')")


def post(application, fake, event, **more):
    raw, headers = fake.signed(event, at=more.pop("at", time.time()), **more)
    return Client(application).post("/billing/webhook", raw=raw, headers=headers)


def ledger(tenant):
    return db.all(tuple, "SELECT type, amount, reference_id FROM token_ledger WHERE tenant_id = :home ORDER BY id", home=tenant)


# ── events ──


@pytest.mark.slow
def test_an_event_a_hundred_times_at_once_credits_once(server, stripe_outside):
    fake = stripe_outside
    running = server(env=fake.env)
    admin = server.admin(running)
    intent = running.call("POST", "/billing/create-payment-intent", {"package_slug": "tokens-1m"}, admin)[1]["data"]["payment_intent_id"]
    fake.confirm(intent)
    event = next(one for one in fake.events if one["type"] == "payment_intent.succeeded")
    statuses, go = [], threading.Barrier(25)

    def tell():
        go.wait()
        for _ in range(4):
            statuses.append(fake.post(running.url + "/api/billing/webhook", event))
    threads = [threading.Thread(target=tell) for _ in range(25)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    balance = lambda: running.call("GET", "/tokens/balance", None, admin)[1]["data"]["balance"]  # noqa: E731
    assert statuses == [200] * 100
    eventually(lambda: balance() == 1_000_000)
    time.sleep(1)  # in which a second one would come
    assert balance() == 1_000_000 and len(running.call("GET", "/tokens/transactions", None, admin)[1]["data"]) == 1


def a_story(owner, fake, told):
    """About fifty events: a plan up, down and gone, packages of both kinds, cards, refunds and a card that is declined."""
    fake.pay(owner.post("/billing/checkout", {"tier": "solo"}).data["session_id"])
    told()
    sub, = fake.subscriptions
    owner.post("/billing/change-plan", {"tier": "team"}), owner.post("/billing/change-plan", {"tier": "solo"})
    bought = [owner.post("/billing/create-payment-intent", {"package_slug": slug}).data["payment_intent_id"]
              for slug in ("tokens-1m", "credits-25", "tokens-100k", "credits-10", "tokens-10m")]
    owner.post("/billing/credit-auto-topup", {"threshold_cents": 1, "package_slug": "credits-10"})
    owner.put("/billing/credit-auto-topup", {"enabled": False})  # or it would be bought, or not, by what is heard first
    for intent in bought[:4]:
        fake.confirm(intent)
    fake.confirm(bought[4], decline=True)
    fake.refund(bought[0], 500), fake.refund(bought[1]), fake.refund(bought[0], 100)
    fake.advance(31 * 86400), fake.advance(31 * 86400)
    fake.set_up(next(iter(fake.setup_intents)))
    fake.update(sub, cancel_at_period_end=True), fake.update(sub, cancel_at_period_end=False)
    fake.cancel(sub)
    for slug in ("tokens-100k", "credits-10"):
        intent = owner.post("/billing/create-payment-intent", {"package_slug": slug}).data["payment_intent_id"]
        fake.confirm(intent, decline=True), fake.confirm(intent)


def state():
    """What came of it, without moments and numbers that follow from the order."""
    rows = lambda sql: sorted(db.all(tuple, sql), key=repr)  # noqa: E731
    return {"subscriptions": rows("SELECT tenant_id, subscription, tier, status, price_cents, held_tier, current_period_end FROM subscriptions"),
            "purchases": rows("SELECT kind, package, status, payment_intent, refunded_units, slot IS NULL FROM purchases"),
            "tokens": rows("SELECT type, amount, reference_id FROM token_ledger"), "credits": rows("SELECT user_id, type, amount_micros FROM credit_ledger"),
            "topups": rows("SELECT kind, enabled, last4 FROM topups"),
            "accounts": rows("SELECT balance FROM token_accounts") + rows("SELECT balance_micros FROM credit_accounts"),
            "told": rows("SELECT title FROM notifications")}


@pytest.mark.slow
def test_fifty_events_in_two_hundred_orders_lead_to_one_state(olga, stripe, told, worked, application, free):
    a_story(olga, stripe, told)
    for trigger in TRIGGERS:
        db.writer.execute(f"DROP TRIGGER {trigger}")
    before = {table: db.all(tuple, f"SELECT * FROM {table}") for table in KEPT}
    events = [one for one in stripe.events if one["id"] not in stripe.delivered]
    assert len(events) >= 50

    def restore():
        for table, rows in before.items():
            db.run(f"DELETE FROM {table}")
            for row in rows:
                db.run(f"INSERT INTO {table} VALUES ({', '.join(f':c{at}' for at in range(len(row)))})", **{f"c{at}": one for at, one in enumerate(row)})
    ends = []
    for seed in range(200):
        dice = random.Random(seed)
        order = dice.sample(events, len(events))
        for at, event in enumerate(order):
            assert post(application, stripe, event).status == 200
            if dice.random() < 0.1:
                worked()
            if dice.random() < 0.1:
                post(application, stripe, order[dice.randrange(at + 1)])
        worked()
        assert unfinished() == 0
        ends.append(state())
        db.write(restore)
    assert all(end == ends[0] for end in ends), next(
        (seed, name, end[name], ends[0][name]) for seed, end in enumerate(ends) for name in end if end[name] != ends[0][name])
    assert ends[0]["subscriptions"][0][3] == "canceled"
    assert [one for one in ends[0]["tokens"] if one[0] == "purchase"] == sorted([("purchase", 10**6, one) for one in [
        row[3] for row in ends[0]["purchases"] if row[1] == "tokens-1m"]] + [("purchase", 10**5, row[3]) for row in ends[0]["purchases"] if row[1] == "tokens-100k"], key=repr)


@pytest.mark.parametrize("secret, at, status", [
    ("whsec_fake", 0, 200), ("whsec_fake", -290, 200), ("whsec_fake", 290, 200), ("whsec_fake", -310, 400), ("whsec_fake", 320, 400), ("whsec_other", 0, 400)])
def test_a_signature_holds_for_five_minutes_and_by_its_secret(application, stripe, secret, at, status):
    event = stripe.emit("customer.created", stripe.make("customer")) and stripe.events[-1]
    answer = post(application, stripe, event, secret=secret, at=time.time() + at)
    assert answer.status == status and (status == 200 or answer.code == "bad_signature")
    assert db.value("SELECT count(*) FROM billing_events") == (status == 200)


def test_two_secrets_hold_while_one_replaces_the_other(application, stripe, monkeypatch):
    event = stripe.emit("customer.created", stripe.make("customer")) and stripe.events[-1]
    monkeypatch.setitem(orkosi.settings.values, "stripe_webhook_secret", "whsec_new, whsec_fake")
    assert [post(application, stripe, event, secret=one).status for one in ("whsec_new", "whsec_fake", "whsec_old", "whsec_")] == [200, 200, 400, 400]
    monkeypatch.setitem(orkosi.settings.values, "stripe_webhook_secret", "")
    none = post(application, stripe, event)
    assert (none.status, none.code) == (503, "stripe_not_configured") and "webhook_secret" in none.error["message"]


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"id": 1}', b'"x"', b"\xff\xfe{}", b"[" * 100_000, b'{"id": "evt_1", "type": "x", "created": 1, "data": {"object": []}}',
                                 b'{"id": "evt_1", "type": "x", "created": "1", "data": {"object": {}}}', b'{"id": "' + b"x" * 300 + b'", "type": "x", "created": 1, "data": {"object": {}}}',
                                 b'{"id": "evt\\u0000", "type": "x", "created": 1, "data": {"object": {}}}'])
def test_what_is_no_event_is_refused_though_it_is_signed(anonymous, stripe, raw):
    raw, headers = stripe.signed("x", at=time.time(), body=raw)
    answer = anonymous.post("/billing/webhook", raw=raw, headers=headers)
    assert answer.status == 400 and db.value("SELECT count(*) FROM billing_events") == 0


@pytest.mark.parametrize("signature", ["", "t=", "t=1", "v1=x", "t=x,v1=y", "t=1,t=2,v1=z", "é", "t=1,v1=" + "0" * 64, "x" * 10_000, "t=99999999999999999999999,v1=00"])
def test_a_signature_that_is_none_is_refused(anonymous, stripe, signature):
    answer = anonymous.post("/billing/webhook", raw=b'{"id": "evt_1"}', headers={"Stripe-Signature": signature, "Content-Type": "application/json"})
    assert (answer.status, answer.code) == (400, "bad_signature")


def test_a_stranger_at_the_webhook_reads_no_secret_and_fills_no_log(client, anonymous, data):
    fields = {"key": "sk_test_of_the_vault", "webhook_secret": "whsec_of_the_vault"}
    assert client.post("/integrations/stripe/configure", {"fields": fields}).status == 200
    for number in range(30):
        refused = anonymous.post("/billing/webhook", raw=b'{"id": "evt_1"}', headers={"Stripe-Signature": f"t={number},v1=00", "Content-Type": "application/json"})
        assert refused.code == "bad_signature"
    assert db.value("SELECT count(*) FROM activity WHERE action = 'credential.read'") <= 2
    client.post("/integrations/stripe/configure", {"fields": {"webhook_secret": "whsec_new"}})
    assert till._signing_secrets() == ["whsec_new"]


def test_an_event_is_never_larger_than_half_a_megabyte(anonymous, stripe):
    raw, headers = stripe.signed("x", at=time.time(), body=b" " * ((512 << 10) + 1))
    assert anonymous.post("/billing/webhook", raw=raw, headers=headers).status == 413


def test_what_an_event_says_is_not_believed(olga, stripe, application, worked):
    """Somebody who has the signing secret alone gets nothing: what the event is about is asked of Stripe."""
    intent = olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m"}).data["payment_intent_id"]
    lie = dict(stripe.fixtures["event"], id="evt_lie", type="payment_intent.succeeded", created=int(time.time()),
               data={"object": dict(stripe.payment_intents[intent], status="succeeded", amount=10**8)})
    assert post(application, stripe, lie).status == 200
    assert worked() == ["requires_payment_method"] and olga.get("/tokens/balance").data["balance"] == 0
    strange = dict(lie, id="evt_gone", data={"object": {"id": "pi_nobody"}})
    assert post(application, stripe, strange).status == 200
    assert "does not take" in worked()[0]


def test_an_event_that_was_lost_is_found_at_night_and_can_be_replayed(olga, stripe, worked, client, data):
    one, two = (olga.post("/billing/create-payment-intent", {"package_slug": slug}).data["payment_intent_id"] for slug in ("tokens-1m", "tokens-100k"))
    stripe.confirm(one), stripe.confirm(two)
    lost = {event["data"]["object"]["id"]: event["id"] for event in stripe.events if event["type"] == "payment_intent.succeeded"}
    with acting(system()):
        assert hearing.replay(lost[one]) == "payment_intent.succeeded: paid" == hearing.replay(lost[one]).replace("paid before", "paid")
        assert olga.get("/tokens/balance").data["balance"] == 1_000_000
        missed = hearing.compare()
        assert missed >= 1 and worked() and hearing.compare() == 0
        with pytest.raises(orkosi.NotFound, match="evt_none"):
            hearing.replay("evt_none")
    assert olga.get("/tokens/balance").data["balance"] == 1_100_000 and len(ledger(olga.home)) == 2


def test_the_nightly_look_is_planned_where_stripe_is_set_up(data, stripe):
    planned = lambda: db.all(tuple, "SELECT name, cron FROM schedules WHERE queue = 'orkosi' AND name = 'billing.compare'")  # noqa: E731
    hearing.keep_comparing("opened", None)
    hearing.keep_comparing("opened", None)
    assert planned() == [("billing.compare", "17 3 * * *")]


def test_a_persons_schedule_that_is_called_like_the_nightly_look_neither_hides_nor_loses_it(client, stripe):
    made = client.post("/schedules", {"name": "billing.compare", "cron": "0 8 * * *", "task": {"title": "Compare the bills"}})
    assert made.status == 201
    for _ in range(2):
        hearing.keep_comparing("opened", None)
    assert db.all(tuple, "SELECT task_type, cron FROM schedules WHERE queue = 'orkosi' ORDER BY id") == [
        ("schedules.file", "0 8 * * *"), ("billing.compare", "17 3 * * *")]
    assert client.get(f"/schedules/{made.data['id']}").data["task"]["title"] == "Compare the bills"


# ── a backup that is older ──


def test_an_older_backup_learns_again_what_was_paid(olga, stripe, told, application, worked):
    """Customers, purchases and the subscription are gone from the rows; Stripe's own objects say whose they are."""
    stripe.pay(olga.post("/billing/checkout", {"tier": "team"}).data["session_id"])
    intent = olga.post("/billing/create-payment-intent", {"package_slug": "credits-25"}).data["payment_intent_id"]
    stripe.confirm(intent)
    db.write(lambda: [db.run(f"DELETE FROM {table}") for table in ("stripe_customers", "subscriptions", "checkouts", "purchases")])
    told(stripe.events)
    assert olga.get("/billing/subscription").data["tier"] == "team" and olga.get("/billing/credit-auto-topup").data["balance_cents"] == 2_500
    told([dict(one, id=one["id"] + "x") for one in stripe.events])
    assert db.value("SELECT sum(amount_micros) FROM credit_ledger") == 25_000_000


def test_customers_of_somebody_else_are_left_alone(client, stripe, told):
    """The same account at Stripe may have other uses."""
    for told_of in ({}, {"orkosi_tenant": "99", "orkosi_user": "0"}, {"orkosi_tenant": "x", "orkosi_user": "-1"}):
        customer = stripe.save_customer({"metadata": told_of}, None)["id"]
        intent = stripe.create_payment_intent({"amount": 5, "currency": "usd", "customer": customer}, None)
        stripe.confirm(intent["id"])
        price = stripe.create_price({"product": "prod_1", "unit_amount": 7, "currency": "usd", "recurring": {"interval": "month"}}, None)
        stripe.pay(stripe.create_checkout({"mode": "subscription", "customer": customer, "line_items": [{"price": price["id"]}], "success_url": "x"}, None)["id"])
        stripe.refund(intent["id"])
    assert set(told()) == {"not ours"}
    assert db.value("SELECT count(*) FROM purchases") == db.value("SELECT count(*) FROM subscriptions") == 0


# ── Stripe as it should not be ──

WEATHER = [("down", lambda fake: fake.fail_next(1, 503), "it answered 503"), ("throttled", lambda fake: fake.rate_limit_next(1), "too many requests"),
           ("a page", lambda fake: fake.html_next(1), "Stripe is not to be had"), ("no answer", lambda fake: fake.lose_next(1), "it does not answer"),
           ("an empty body", lambda fake: fake.fail_next(1, 200, b""), "Stripe is not to be had"), ("not JSON", lambda fake: fake.fail_next(1, 500, b"{"), "it answered 500")]


@pytest.mark.parametrize("how", [one[1:] for one in WEATHER], ids=[one[0] for one in WEATHER])
def test_stripe_in_bad_weather_is_said_in_words_and_loses_nothing(olga, stripe, told, worked, how):
    break_it, said = how
    break_it(stripe)
    refused = olga.post("/billing/checkout", {"tier": "solo"})
    assert (refused.status, refused.code) == (503, "stripe_unavailable") and said in refused.error["message"] and refused.headers["Retry-After"] == "5"
    assert "sk_test" not in json.dumps(refused.json)
    session = olga.post("/billing/checkout", {"tier": "solo"}).data["session_id"]
    assert len(stripe.customers) == len(stripe.checkout_sessions) == 1
    stripe.pay(session)
    break_it(stripe)
    assert any("Stripe is not to be had" in str(one) for one in told())
    again()
    worked()
    assert olga.get("/billing/subscription").data["tier"] == "solo" and unfinished() == 0


def test_a_key_that_is_not_accepted_is_not_quoted(olga, stripe, monkeypatch, caplog):
    monkeypatch.setitem(orkosi.settings.values, "stripe_secret_key", "sk_test_4eC39HqLyjWDarjtT1zdp7dc")
    till.forget("opened", None)
    refused = olga.post("/billing/checkout", {"tier": "solo"})
    assert (refused.status, refused.code) == (503, "stripe_not_configured") and "does not accept the key" in refused.error["message"]
    assert "4eC39" not in caplog.text and "4eC39" not in json.dumps(refused.json)


def test_a_field_that_stripe_did_not_have_does_no_harm(olga, stripe, told):
    stripe.extra = {"tomorrow": {"x": [1]}, "object_version": None}
    stripe.pay(olga.post("/billing/checkout", {"tier": "solo"}).data["session_id"])
    stripe.confirm(olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m"}).data["payment_intent_id"])
    told()
    assert olga.get("/billing/subscription").data["tier"] == "solo" and olga.get("/tokens/balance").data["balance"] == 10**6


@pytest.mark.slow
def test_a_slow_stripe_holds_no_other_lane(server, stripe_outside):
    fake = stripe_outside
    running = server(env=fake.env | {"ORKOSI_LIMIT_BILLING": "off"})
    admin = server.admin(running)
    fake.slow(3)
    askers = [threading.Thread(target=running.call, args=("POST", "/billing/create-payment-intent", {"package_slug": "tokens-1m"}, admin)) for _ in range(30)]
    for one in askers:
        one.start()
    time.sleep(0.5)  # until Stripe is busy with them
    began = time.monotonic()
    for number in range(20):
        assert running.call("POST", "/tasks", {"title": f"t{number}"}, admin)[0] == 201
        assert running.call("GET", "/tasks", None, admin)[0] == 200
    took = time.monotonic() - began
    fake.slow(0)
    for one in askers:
        one.join()
    assert took < 2, took


def test_without_stripe_all_of_it_says_so_and_the_rest_works(olga, client):
    for method, path, body in [("post", "checkout", {"tier": "solo"}), ("post", "create-payment-intent", {"package_slug": "tokens-1m"}), ("post", "webhook", {}),
                               ("post", "auto-topup", {"threshold_tokens": 1, "package_id": "tokens-1m"}), ("post", "change-plan", {"tier": "solo"}),
                               ("post", "credit-auto-topup", {"threshold_cents": 1, "package_slug": "credits-10"})]:
        answer = getattr(olga, method)(f"/billing/{path}", body)
        assert (answer.status, answer.code) == (503, "stripe_not_configured"), path
    assert olga.post("/billing/portal").status == 409 and olga.post("/billing/validate-downgrade", {"tier": "free"}).data["allowed"]
    for path in ("tiers", "pricing", "plan-summary", "auto-topup", "credit-auto-topup"):
        assert olga.get(f"/billing/{path}").status == 200
    assert client.get("/billing/overview").status == 200 and olga.post("/tasks", {"title": "t"}).status == 201
    assert db.value("SELECT count(*) FROM purchases") == 0


# ── people who try ──


def test_another_customers_card_is_refused(paying, as_, stripe):
    nils = as_("nils", tenant=None)
    nils.post("/billing/checkout", {"tier": "solo"})
    theirs = stripe.card(next(id for id in stripe.customers if id != paying.customer))
    mine = stripe.card(paying.customer)
    for card in (theirs, "pm_nobody", stripe.new_card()):
        refused = paying.post("/billing/auto-topup", {"threshold_tokens": 5, "package_id": "tokens-1m", "stripe_payment_method_id": card})
        assert refused.status == 400 and refused.wrong == ["stripe_payment_method_id"]
        refused = paying.post("/billing/credit-auto-topup", {"threshold_cents": 5, "package_slug": "credits-10", "stripe_payment_method_id": card})
        assert refused.status == 400 and refused.wrong == ["stripe_payment_method_id"]
    assert db.value("SELECT count(*) FROM topups") == 0
    assert paying.post("/billing/auto-topup", {"threshold_tokens": 5, "package_id": "tokens-1m", "stripe_payment_method_id": mine}).status == 201
    assert paying.put("/billing/auto-topup", {"stripe_payment_method_id": theirs}).status == 400


@pytest.mark.parametrize("path, body, field", [
    ("checkout", {"tier": "solo", "price_cents": 1}, "price_cents"), ("checkout", {"tier": "solo", "success_url": "https://evil.example"}, "success_url"),
    ("checkout", {"tier": "solo", "price": "price_1"}, "price"), ("create-payment-intent", {"package_slug": "tokens-1m", "amount": 1}, "amount"),
    ("create-payment-intent", {"package_slug": "tokens-1m", "customer": "cus_1"}, "customer"), ("portal", {"return_url": "https://evil.example"}, "return_url"),
    ("change-plan", {"tier": "team", "proration_behavior": "none"}, "proration_behavior"), ("create-payment-intent", {"package_slug": "x" * 41}, "package_slug"),
    ("create-payment-intent", {"package_slug": "tokens-1m", "idempotency_key": ""}, "idempotency_key"), ("auto-topup", {"threshold_tokens": 0, "package_id": "tokens-1m"}, "threshold_tokens"),
    ("auto-topup", {"threshold_tokens": 1, "package_id": "credits-10"}, "package_id"), ("auto-topup", {"threshold_tokens": 1, "package_id": "tokens-1m", "max_monthly_topups": 11}, "max_monthly_topups"),
    ("credit-auto-topup", {"threshold_cents": 1.5, "package_slug": "credits-10"}, "threshold_cents"),
    ("credit-auto-topup", {"threshold_cents": 1, "package_slug": "credits-10", "stripe_payment_method_id": "../../v1/charges"}, "stripe_payment_method_id")])
def test_no_price_no_address_and_no_customer_comes_from_whoever_buys(paying, stripe, path, body, field):
    sent = len(stripe.requests)
    refused = paying.post(f"/billing/{path}", body)
    assert refused.status == 400 and field in json.dumps(refused.error), refused
    assert not [one for one in stripe.requests[sent:] if one[0] == "POST"]


def test_keys_members_and_strangers_pay_nothing(as_, key_for, olga, stripe, anonymous):
    org = olga.post("/organizations", {"name": "o"}).data["id"]
    made = olga.post(f"/organizations/{org}/api-keys", {"name": "k"}).data["key"]
    own = Client(olga.application, made)
    for who, status in ((own, 403), (as_("mia", role="member", tenant=olga.home), 403), (as_("vera", role="viewer", tenant=olga.home), 403), (anonymous, 401)):
        for path, body in (("checkout", {"tier": "solo"}), ("portal", None), ("create-payment-intent", {"package_slug": "tokens-1m"}), ("change-plan", {"tier": "team"}),
                           ("auto-topup", {"threshold_tokens": 5, "package_id": "tokens-1m"})):
            assert who.post(f"/billing/{path}", body).status == status, path
    assert own.post("/billing/credit-auto-topup", {"threshold_cents": 5, "package_slug": "credits-10"}).status == 403
    assert stripe.requests == []


def test_how_often_one_may_ask_stripe_is_limited(olga, stripe, monkeypatch):
    monkeypatch.setitem(orkosi.settings.values, "limit_billing", "3/minute")
    statuses = [olga.post("/billing/checkout", {"tier": "solo"}).status for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2


# ── money back ──


def test_a_refund_takes_back_what_it_bought_as_far_as_it_is_there(olga, stripe, told):
    intent = olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m"}).data["payment_intent_id"]
    stripe.confirm(intent), told()
    stripe.refund(intent, 500), told(), told(stripe.events[-1:])
    assert olga.get("/tokens/balance").data["balance"] == 1_000_000 - 333_333
    olga.post("/tokens/consume", {"amount": 500_000, "action": "x"})
    stripe.refund(intent), told()
    told([dict(one, id=one["id"] + "again") for one in stripe.events])
    assert olga.get("/tokens/balance").data["balance"] == 0 and db.value("SELECT refunded_units FROM purchases") == 1_000_000
    assert [row[:2] for row in ledger(olga.home)] == [("purchase", 10**6), ("consume", -333_333), ("consume", -500_000), ("consume", -166_667)]
    assert credits.reconcile() == tokens.reconcile() == []


@pytest.mark.parametrize("package, door, body, share", [
    ("tokens-100k", "auto-topup", {"threshold_tokens": 50_000, "package_id": "tokens-100k"}, 50),
    ("credits-10", "credit-auto-topup", {"threshold_cents": 500, "package_slug": "credits-10"}, 250)])
def test_what_is_given_back_is_not_bought_again_unasked(paying, stripe, told, worked, package, door, body, share):
    stripe.card(paying.customer)
    intent = paying.post("/billing/create-payment-intent", {"package_slug": package}).data["payment_intent_id"]
    stripe.confirm(intent), told()
    paying.post(f"/billing/{door}", body)
    for one in list(stripe.setup_intents):
        stripe.set_up(one), told()
    stripe.refund(intent, share), told(), topups.look(), worked()
    assert paying.get(f"/billing/{door}").data["enabled"] is True, "enough is left"
    stripe.refund(intent), told(), topups.look(), worked()
    shown = paying.get(f"/billing/{door}").data
    assert len(stripe.payment_intents) == 1 and shown["enabled"] is False and shown["topups_this_month"] == 0 and shown["payment_method"]
    assert [one["title"] for one in paying.get("/notifications").data] == ["Auto top-up is off"]
    assert paying.put(f"/billing/{door}", {"enabled": True}).status == 200 and worked() == ["paid"]


@pytest.mark.parametrize("way, results, charged", [("refused", ["turned off"], 0), ("lost", ["paid"], 1)])
def test_a_top_up_that_was_turned_off_charges_no_card_unless_it_has(paying, stripe, worked, way, results, charged):
    stripe.card(paying.customer)
    stripe.fail_next(1, 500, path="/v1/payment_intents") if way == "refused" else stripe.lose_next(1, path="/v1/payment_intents")
    paying.post("/billing/auto-topup", {"threshold_tokens": 50_000, "package_id": "tokens-100k"})
    worked()
    assert paying.put("/billing/auto-topup", {"enabled": False}).data["enabled"] is False
    again()
    assert worked() == results
    assert len(stripe.payment_intents) == charged and paying.get("/tokens/balance").data["balance"] == 100_000 * charged
    assert db.value("SELECT status FROM purchases") == ("paid" if charged else "failed")


def test_a_founder_ends_the_plan_before_they_go(paying, stripe, told, as_):
    db.write(lambda: db.run("UPDATE users SET role = 'member' WHERE id = :id", id=paying.id))
    as_("mia", tenant=paying.home)
    stripe.card(paying.customer)
    paying.post("/billing/auto-topup", {"threshold_tokens": 1, "package_id": "tokens-100k"})
    refused = paying.delete("/users/me")
    assert refused.status == 409 and "change-plan" in refused.error["message"] and paying.get("/auth/me").status == 200
    assert paying.post("/billing/change-plan", {"tier": "free"}).status == 200
    assert paying.delete("/users/me").status == 200 and stripe.subscriptions[paying.subscription]["cancel_at_period_end"] is True
    assert db.value("SELECT enabled FROM topups WHERE tenant_id = :home AND user_id = 0", home=paying.home) == 0


def test_credits_pay_for_runs_of_tasks_that_one_created(olga, stripe, told, as_, monkeypatch):
    stripe.confirm(olga.post("/billing/create-payment-intent", {"package_slug": "credits-10"}).data["payment_intent_id"])
    told()
    agent = olga.post("/agents", {"name": "felix"}).data
    felix = Client(olga.application, agent["key"])

    def run(creator, cost):
        task = creator.post("/tasks", {"title": f"{cost}", "assignee": "felix"}).data["id"]
        id = felix.post("/agent-runs", {"task_id": task}).data["id"]
        assert felix.patch(f"/agent-runs/{id}", {"status": "done", "cost_micros": cost}).status == 200
        return id
    run(olga, 5_000_000)
    assert olga.get("/billing/credit-auto-topup").data["balance_cents"] == 1_000  # it is off
    monkeypatch.setitem(orkosi.settings.values, "credits_charge_runs", True)
    first = run(olga, 2_345_678)
    run(as_("mia", tenant=olga.home), 1_000_000)  # who has none
    assert olga.get("/billing/credit-auto-topup").data["balance_cents"] == 765
    for cost in (3_345_678, 3_345_678, 1, 3_345_678):  # told once it is over, too
        assert felix.patch(f"/agent-runs/{first}", {"cost_micros": cost}).status == 200
    assert olga.get("/billing/credit-auto-topup").data["balance_cents"] == 665
    run(olga, 99_000_000)
    assert olga.get("/billing/credit-auto-topup").data["balance_cents"] == 0
    assert db.all(tuple, "SELECT type, amount_micros, reference_id FROM credit_ledger ORDER BY id")[1:3] == [
        ("consume", -2_345_678, f"run_{first}"), ("consume", -1_000_000, f"run_{first}:1")]
    assert credits.reconcile() == []


def test_another_account_of_stripes_begins_anew(paying, stripe, told, worked, monkeypatch):
    from fake_stripe import FakeStripe
    stripe.card(paying.customer)
    paying.post("/billing/auto-topup", {"threshold_tokens": 1, "package_id": "tokens-100k"})
    with FakeStripe(stripe.fixtures) as live:
        monkeypatch.setitem(orkosi.settings.values, "stripe_api_base", live.url)
        till.forget("opened", None)
        assert paying.post("/billing/create-payment-intent", {"package_slug": "tokens-100k"}).status == 422, "whom it never saw"
        with acting(system()):
            assert plans.of_stripe() == {"customers": 1, "prices": 1, "plans": 1, "cards": 1}
            plans.forget_stripe()
            assert plans.of_stripe() == {"customers": 0, "prices": 0, "plans": 0, "cards": 0}
        assert paying.get("/billing/subscription").status == 404 and paying.get("/billing/auto-topup").data["enabled"] is False
        intent = paying.post("/billing/create-payment-intent", {"package_slug": "tokens-100k"})
        assert intent.status == 200 and list(live.payment_intents) == [intent.data["payment_intent_id"]] and len(live.customers) == 1
        live.pay(paying.post("/billing/checkout", {"tier": "team"}).data["session_id"])
        for event in live.events:
            assert post(paying.application, live, event).status == 200
        worked()
        assert paying.get("/billing/subscription").data["tier"] == "team"


# ── limits ──


@pytest.fixture
def bounded(olga):
    """Olga, with a plan of the tier free that was given."""
    with acting(system()):
        billing.grant(olga.home, "free")
    return olga


def test_a_plan_allows_so_many_agents_and_says_what_lifts_it(bounded, client):
    for number in range(3):
        assert bounded.post("/agents", {"name": f"agent-{number}"}).status == 200
    refused = bounded.post("/agents", {"name": "one-more"})
    assert (refused.status, refused.code, refused.wrong) == (402, "plan_limit", ["agents"])
    assert "has 3" in refused.error["message"] and 'the plan solo has 10: POST /api/billing/change-plan {"tier": "solo"}' in refused.error["message"]
    assert len(bounded.get("/agents").data) == 3 and db.value("SELECT count(*) FROM api_keys WHERE agent = 'one-more'") == 0
    with acting(system()):
        billing.grant(bounded.home, "solo")
    assert bounded.post("/agents", {"name": "one-more"}).status == 200
    for number in range(12):
        assert client.post("/agents", {"name": f"host-{number}"}).status == 200  # the host has no limits


def test_a_plan_allows_so_many_tasks_a_month(bounded, key_for):
    put("plan_days", tenant_id=bounded.home, day=plans.month()[1], tasks=998)
    made = [bounded.post("/tasks", {"title": f"t{number}"}) for number in range(4)]
    assert [one.status for one in made] == [201, 201, 402, 402] and "tasks_per_month" in made[2].error["message"]
    gone = bounded.delete(f"/tasks/{made[0].data['id']}")
    assert gone.status in (200, 204), gone
    assert bounded.post("/tasks", {"title": "instead"}).status == 402  # what was deleted was used
    key = key_for("tasks:write", tenant=bounded.home)
    assert key.post("/v1/public/tasks", {"title": "t"}).status == 402
    assert len(bounded.get("/tasks").data) == 1


def test_two_at_once_do_not_both_have_the_last_place(bounded):
    put("plan_days", tenant_id=bounded.home, day=plans.month()[1], tasks=999)
    statuses, go = [], threading.Barrier(8)

    def one(number):
        go.wait()
        statuses.append(bounded.post("/tasks", {"title": f"t{number}"}).status)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [402] * 7


def test_a_plan_allows_so_many_keys_and_bytes(bounded, monkeypatch):
    org = bounded.post("/organizations", {"name": "o"}).data["id"]
    bounded.post("/agents", {"name": "felix"})  # whose key does not count
    made = [bounded.post(f"/organizations/{org}/api-keys", {"name": f"k{number}"}) for number in range(3)]
    assert [one.status for one in made] == [201, 201, 402] and made[2].wrong == ["api_keys"]
    assert bounded.delete(f"/organizations/{org}/api-keys/{made[0].data['id']}").status in (200, 204)
    assert bounded.post(f"/organizations/{org}/api-keys", {"name": "k"}).status == 201
    db.write(lambda: db.run("UPDATE tenant_shares SET bytes = 1073741824 WHERE tenant_id = :home", home=bounded.home))
    plans.forget("opened", None)
    refused = bounded.post("/tasks", {"title": "big", "description": "x" * 1000})
    assert refused.status in (402, 507) and "the plan solo has 10,737,418,240" in refused.error["message"], refused


@pytest.mark.parametrize("setting, configured, given, status", [("auto", False, False, 201), ("auto", True, False, 402), ("auto", False, True, 402), ("on", False, False, 402),
                                                                ("off", True, True, 201)])
def test_when_plans_limit(olga, monkeypatch, setting, configured, given, status):
    monkeypatch.setitem(orkosi.settings.values, "plan_limits", setting)
    monkeypatch.setitem(orkosi.settings.values, "stripe_secret_key", "sk_test_x" if configured else "")
    if given:
        with acting(system()):
            billing.grant(olga.home, "free")
    put("plan_days", tenant_id=olga.home, day=plans.month()[1], tasks=1_000)
    assert olga.post("/tasks", {"title": "t"}).status == status


def test_a_plan_is_given_and_taken_back_by_a_command(olga, data):
    said = command("plan", "grant", str(olga.home), "team", "--until", "2099-01-02", folder=data).stdout
    assert f"Tenant {olga.home} has the plan team now, until 2099-01-0" in said
    assert olga.get("/billing/plan-summary").data["tier"] == "team" and "team (granted)" in command("plan", "show", str(olga.home), folder=data).stdout
    assert "has no plan" in command("plan", "withdraw", str(olga.home), folder=data).stdout and olga.get("/billing/plan-summary").data["tier"] == "free"
    for words, why in ((("grant", "1", "team"), "needs no plan"), (("grant", "99", "team"), "no tenant 99"), (("grant", str(olga.home), "gold"), "free, solo, team"),
                       (("grant", str(olga.home)), "plan grant"), (("withdraw", str(olga.home)), "was given no plan")):
        done = command("plan", *words, folder=data, check=False)
        assert done.returncode and why in done.stderr, words
    done = command("plan", "grant", str(olga.home), "team", "--until", "2001-01-01", folder=data, check=False)
    assert done.returncode and "is over" in done.stderr
    put("plan_grants", tenant_id=olga.home, tier="team", granted_by="system", granted_at="2001-01-01T00:00:00.000Z", until="2001-02-01T00:00:00.000Z")
    assert olga.get("/billing/subscription").status == 404  # it is over


def test_prices_of_ones_own_stand_in_the_data_folder(olga, data, stripe):
    own = '[[tiers]]\ntier = "free"\nname = "Free"\nprice_cents = 0\nlimits = {}\n[[tiers]]\ntier = "club"\nname = "Club"\nprice_cents = 4_242\nlimits = { agents = 1 }\n'
    (data / "billing.toml").write_text(own)
    assert [one["tier"] for one in olga.get("/billing/tiers").data] == ["free", "club"]
    olga.post("/billing/checkout", {"tier": "club"})
    assert [one["unit_amount"] for one in stripe.prices.values()] == [4_242]


@pytest.mark.parametrize("text, why", [("x", "cannot be read"), ("tiers = []", "cannot be read"), ('[[tiers]]\ntier = "a"\nname = "A"\nprice_cents = 5\nlimits = {}', "costs nothing"),
                                       ('[[tiers]]\ntier = "a"\nname = "A"\nprice_cents = 0\nlimits = {}\ncolour = 1', "colour"),
                                       ('[[tiers]]\ntier = "a"\nname = "A"\nprice_cents = 0\nlimits = {}\n' * 2, "stands twice")])
def test_prices_that_make_no_sense_are_named(olga, data, text, why):
    (data / "billing.toml").write_text(text)
    answer = olga.get("/billing/tiers")
    assert answer.status == 400 and "billing.toml" in answer.error["message"] and why in answer.error["message"]


# ── plans ──


def test_a_card_that_is_declined_changes_no_plan(paying, stripe, told):
    stripe.declines.add(stripe.subscriptions[paying.subscription]["default_payment_method"])
    refused = paying.post("/billing/change-plan", {"tier": "team"})
    assert (refused.status, refused.code) == (402, "card_declined")
    told()
    assert paying.get("/billing/subscription").data["tier"] == "solo"


def test_an_answer_to_an_earlier_question_changes_nothing(paying, stripe):
    row = plans.row_of(stripe.subscriptions[paying.subscription])
    with acting(system(paying.home)):
        plans.note(row | {"tier": "team"}, orkosi.now())
        plans.note(row | {"tier": "solo"}, "2001-01-01T00:00:00.000Z")
        assert plans.current_plan().tier == "team"


def test_two_who_check_out_at_once_get_one_page(olga, stripe, free):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(olga.post("/billing/checkout", {"tier": "solo"}).data["session_id"])) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(answers)) == 1 == len(stripe.checkout_sessions) == len(stripe.customers) == len(stripe.prices)


def test_an_invoice_that_is_not_paid_is_told_once(paying, stripe, told):
    stripe.declines.add(stripe.subscriptions[paying.subscription]["default_payment_method"])
    stripe.advance(31 * 86400)
    told(), told([dict(one, id=one["id"] + "x") for one in stripe.events])
    titles = [one["title"] for one in paying.get("/notifications").data]
    assert titles.count("An invoice was not paid") == 1 and paying.get("/billing/subscription").data["status"] == "past_due"


def test_whoever_is_erased_is_forgotten_at_stripe(as_, client, stripe, told, worked):
    mia = as_("mia", role="viewer")
    id = mia.get("/auth/me").data["id"]
    mia.post("/billing/credit-auto-topup", {"threshold_cents": 500, "package_slug": "credits-10"})
    stripe.set_up(next(iter(stripe.setup_intents))), told()
    customer, = stripe.customers
    assert db.value("SELECT count(*) FROM topups") == 1 and stripe.payment_methods
    assert mia.delete("/users/me").data["deleted"]
    assert "forgotten" in worked() and stripe.customers[customer] == {"id": customer, "object": "customer", "deleted": True} and not stripe.payment_methods
    assert db.value("SELECT count(*) FROM topups") == db.value("SELECT count(*) FROM stripe_customers") == 0
    assert "not ours" in told([dict(one, id=one["id"] + "x") for one in stripe.events if one["type"] == "payment_intent.succeeded"])
    assert db.value("SELECT balance_micros FROM credit_accounts WHERE user_id = :id", id=id) == 10_000_000 and credits.reconcile() == []


# ── kills ──


class Bomb:
    """Every write is counted; the one it is set to is the last thing that this process does, before it or after it."""

    def __init__(self, monkeypatch):
        self.real, self.left, self.after, self.gone = db.write, 0, False, False
        monkeypatch.setattr(db, "write", self.write)

    def set(self, left, after):
        self.left, self.after, self.gone = left, after, False

    def write(self, call, **more):
        if threading.get_ident() == db._writer_thread or not self.left:
            return self.real(call, **more)
        self.left -= 1
        if self.left or self.after:
            done = self.real(call, **more)
            if self.left:
                return done
        self.gone = True
        raise Killed


@pytest.fixture
def bomb(data, monkeypatch):
    return Bomb(monkeypatch)


def succeeded(stripe):
    return [one for one in stripe.payment_intents.values() if one["status"] == "succeeded"]


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_top_up_that_is_killed_at_any_commit_is_charged_once_and_credited_once(paying, stripe, worked, told, bomb, after, heard):
    stripe.card(paying.customer)
    with acting(system(paying.home)):
        tokens.credit(10**7, "bonus", "x")
    assert paying.post("/billing/auto-topup", {"threshold_tokens": 10**6, "package_id": "tokens-100k", "max_monthly_topups": 10}).status == 201
    for moment in itertools.count(1):
        balance = paying.get("/tokens/balance").data["balance"]
        paying.post("/tokens/consume", {"amount": balance - 10**6 + 50_000 if moment == 1 else 100_000, "action": "x"})
        assert topups_paid() == moment - 1 and unfinished() == 1
        bomb.set(moment, after)
        try:
            worked()
        except Killed:
            pass
        bomb.left = 0
        if heard:
            told()
        again()
        worked()
        paid = [one for one in ledger(paying.home) if one[0] == "purchase"]
        assert len(succeeded(stripe)) == moment == topups_paid() and [(100_000, one["id"]) for one in succeeded(stripe)] == [one[1:] for one in paid]
        assert unfinished() == 0 and tokens.reconcile() == []
        if not bomb.gone:
            break
    assert moment >= 5, "it was killed at each of its commits"


def topups_paid():
    return db.value("SELECT count(*) FROM purchases WHERE status = 'paid' AND slot IS NOT NULL")


@pytest.mark.parametrize("how", ["lost", "lost, and its card is another now", "lost, and forgotten by Stripe"])
def test_a_payment_whose_answer_was_lost_is_not_made_again(paying, stripe, worked, how):
    stripe.card(paying.customer)
    paying.post("/billing/auto-topup", {"threshold_tokens": 10**6, "package_id": "tokens-100k"})
    stripe.lose_next(1, "/v1/payment_intents")
    assert "does not answer" in worked()[0] and len(succeeded(stripe)) == 1
    if "another" in how:
        paying.put("/billing/auto-topup", {"stripe_payment_method_id": stripe.card(paying.customer)})
    if "forgotten" in how:
        stripe.forget_keys()
        db.write(lambda: db.run("UPDATE purchases SET created_at = :old", old=orkosi.now(-30 * 3600)))
        next(iter(succeeded(stripe)))["created"] -= 30 * 3600
    again()
    assert worked() == ["paid"] and len(succeeded(stripe)) == 1 and paying.get("/tokens/balance").data["balance"] == 100_000


def test_a_bank_that_wants_to_be_asked_turns_it_off(paying, stripe, worked):
    card = stripe.card(paying.customer, needs_action=True)
    paying.post("/billing/auto-topup", {"threshold_tokens": 10**6, "package_id": "tokens-100k", "stripe_payment_method_id": card})
    assert worked() == ["declined"] and not succeeded(stripe)
    found = paying.get("/billing/auto-topup").data
    assert not found["enabled"] and found["last_error"]
    paying.post("/tokens/consume", {"amount": 1, "action": "x"})
    assert worked() == []


def test_no_more_top_ups_than_a_month_has_whatever_becomes_of_them(paying, stripe, worked):
    stripe.card(paying.customer)
    paying.post("/billing/auto-topup", {"threshold_tokens": 10**9, "package_id": "tokens-100k", "max_monthly_topups": 3})
    for _ in range(8):
        worked()
        paying.post("/tokens/consume", {"amount": 1, "action": "x"})
    assert len(succeeded(stripe)) == topups_paid() == 3 and paying.get("/billing/auto-topup").data["topups_this_month"] == 3
    db.write(lambda: db.run("UPDATE purchases SET slot = '2001-01' || substr(slot, 8)"))  # the month is over
    paying.post("/tokens/consume", {"amount": 1, "action": "x"})
    assert worked() == ["paid"]


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_tops_up_charges_once_and_credits_once(server, stripe_outside, tmp_path):
    fake, kills = stripe_outside, 9
    env = fake.env | {"ORKOSI_LIMIT_BILLING": "off"}
    running = server(env=env)
    admin = server.admin(running)
    running.call("POST", "/tokens/grant", {"company_id": 1, "amount": 1_000_000}, admin)
    running.call("POST", "/billing/create-payment-intent", {"package_slug": "tokens-100k"}, admin)
    customer, = fake.customers
    fake.card(customer)
    status, made = running.call("POST", "/billing/auto-topup", {"threshold_tokens": 500_000, "package_id": "tokens-100k", "max_monthly_topups": 10}, admin)
    assert status == 201 and made["data"]["payment_method"]
    running.call("POST", "/tokens/consume", {"amount": 450_000, "action": "x"}, admin)
    fake.slow(0.15, "/v1/payment_intents")
    paid = lambda: running.call("GET", "/tokens/balance", None, admin)[1]["data"]["purchased"] // 100_000  # noqa: E731
    for kill in range(1, kills + 1):
        assert running.call("POST", "/tokens/consume", {"amount": 100_000, "action": "x"}, admin)[0] == 200
        time.sleep(0.04 * kill)  # at other moments of its payment
        running.kill()
        running = server(env=env)
        if kill % 2:
            fake.deliver(running.url + "/api/billing/webhook")
        eventually(lambda kill=kill: paid() == kill, patience=40)
        assert len(succeeded(fake)) == kill
    time.sleep(0.5)  # in which another one would come
    assert paid() == kills == len(succeeded(fake))
    assert "agrees" in command("sums", "check", folder=running.folder).stdout


# ── anything, at random ──


class Money(RuleBasedStateMachine):
    """A tenant, its customers at Stripe, and everything that may happen to them, with kills and bad weather between; at the end both sides agree."""
    world = None  # what the test has: a maker of tenants, Stripe, what works, and the bomb
    numbers = itertools.count(1)

    @initialize(subscribed=st.sampled_from([None, "solo", "team"]), topped_up=st.booleans())
    def begin(self, subscribed, topped_up):
        self.make, self.stripe, self.worked, self.bomb, self.application = self.world
        self.owner = self.make(f"owner{next(self.numbers)}", "admin", tenant=None)
        self.home = self.owner.get("/tokens/balance").data["company_id"]
        self.user = self.owner.get("/auth/me").data["id"]
        self.session, self.intents, self.months = None, [], 0
        if subscribed:
            self.check_out(subscribed), self.pay(False)
        if topped_up:
            self.buy("credits-10", None), self.card(True, True), self.top_up("credits", True, 3, 1)
            if subscribed:
                self.top_up("tokens", True, 4, 10**6)

    def ask(self, method, path, body=None):
        """What the server answers; None where it was killed meanwhile."""
        try:
            answer = getattr(self.owner, method)(f"/billing/{path}", body)
        except Killed:
            return None
        assert answer.status in (200, 201, 400, 402, 404, 409, 422, 503), answer
        return answer.data if answer.status < 300 else None

    def customer(self, user=0):
        """The tenant's customer, or its owner's, as Stripe has it."""
        found = [id for id, one in self.stripe.customers.items() if one["metadata"] == {"orkosi_tenant": str(self.home), "orkosi_user": str(user)}]
        assert len(found) <= 1, "no customer is made twice"
        return found[0] if found else None

    def subscriptions(self):
        mine = self.customer()
        return [one for one in self.stripe.subscriptions.values() if one["customer"] == mine]

    def live(self):
        return [one for one in self.subscriptions() if one["status"] in ("active", "past_due")]

    def payments(self):
        return [one for one in self.stripe.payment_intents.values() if one["metadata"].get("orkosi_tenant") == str(self.home)]

    @rule(tier=st.sampled_from(["solo", "team"]))
    def check_out(self, tier):
        self.session = self.ask("post", "checkout", {"tier": tier}) or self.session

    @rule(declined=st.booleans())
    def pay(self, declined):
        if not self.session:
            self.check_out("solo")
        if self.session and self.stripe.checkout_sessions[self.session["session_id"]]["status"] == "open":
            self.stripe.pay(self.session["session_id"], "declined" if declined else "good")

    @rule(tier=st.sampled_from(["free", "solo", "team"]))
    def change_plan(self, tier):
        found = self.ask("post", "change-plan", {"tier": tier})
        if found and found["session_id"]:
            self.session = found

    @rule(how=st.sampled_from(["cancel", "stay", "now"]))
    def in_the_portal(self, how):
        for one in self.live()[:1]:
            self.stripe.cancel(one["id"]) if how == "now" else self.stripe.update(one["id"], cancel_at_period_end=how == "cancel")

    @rule(slug=st.sampled_from(["tokens-1m", "tokens-100k", "credits-10"]), key=st.sampled_from([None, "a", "b"]))
    def buy(self, slug, key):
        if found := self.ask("post", "create-payment-intent", {"package_slug": slug, "idempotency_key": key}):
            self.intents.append(found["payment_intent_id"])

    @rule(at=st.integers(0, 9), declined=st.booleans())
    def confirm(self, at, declined):
        if not self.intents:
            self.buy("tokens-100k", None)
        waiting = [one for one in self.intents if self.stripe.payment_intents[one]["status"] not in ("succeeded", "canceled")]
        if waiting:
            self.stripe.confirm(waiting[at % len(waiting)], decline=declined)

    @rule(at=st.integers(0, 9), part=st.integers(1, 3))
    def refund(self, at, part):
        paid = [one for one in self.payments() if one["status"] == "succeeded" and not self.stripe.charges[one["latest_charge"]]["refunded"]]
        if paid:
            one = paid[at % len(paid)]
            charge = self.stripe.charges[one["latest_charge"]]
            self.stripe.refund(one["id"], max(1, (charge["amount"] - charge["amount_refunded"]) // part))

    @rule(kind=st.sampled_from(["tokens", "credits"]), enabled=st.booleans(), most=st.integers(1, 4), threshold=st.sampled_from([1, 10**6]))
    def top_up(self, kind, enabled, most, threshold):
        path, low = ("auto-topup", "threshold_tokens") if kind == "tokens" else ("credit-auto-topup", "threshold_cents")
        body = {low: threshold, "enabled": enabled, "max_monthly_topups": most, "package_slug": f"{kind}-1" + ("m" if kind == "tokens" else "0")}
        if not self.ask("put", path, body):
            slug = body.pop("package_slug")
            self.ask("post", path, body | {"package_id" if kind == "tokens" else "package_slug": slug})

    @rule(good=st.booleans(), user=st.booleans())
    def card(self, good, user):
        if who := self.customer(self.user if user else 0):
            self.stripe.card(who, decline=not good)

    @rule(amount=st.sampled_from([1, 50_000, 10**6]))
    def consume(self, amount):
        try:
            assert self.owner.post("/tokens/consume", {"amount": amount, "action": "x"}).status in (200, 402)
        except Killed:
            pass

    @rule()
    def a_month_passes(self):
        if self.months < 2:
            self.months += 1
            self.stripe.advance(31 * 86400)

    @rule(seed=st.integers(0, 99))
    def hear(self, seed):
        dice = random.Random(seed)
        for event in dice.sample(self.stripe.events, min(len(self.stripe.events), 12)):
            self.tell(event)

    def tell(self, event):
        try:
            if post(self.application, self.stripe, event).status == 200:
                self.stripe.delivered.add(event["id"])
        except Killed:
            pass

    @rule()
    def work(self):
        try:
            self.worked()
        except Killed:
            pass
        left, self.bomb.left = self.bomb.left, 0
        again()
        self.bomb.left = left

    @rule(how=st.sampled_from(["fail_next", "lose_next", "rate_limit_next", "html_next"]), many=st.integers(1, 2))
    def weather(self, how, many):
        getattr(self.stripe, how)(many)

    @rule(moment=st.integers(1, 6), after=st.booleans())
    def kill(self, moment, after):
        self.bomb.set(moment, after)

    @invariant()
    def nothing_is_below_nothing_or_twice(self):
        if hasattr(self, "home"):
            paid = [one["metadata"]["orkosi_purchase"] for one in self.payments() if one["status"] == "succeeded"]
            assert len(paid) == len(set(paid)) and len(self.live()) <= 1

    def teardown(self):
        if not hasattr(self, "home"):
            return
        self.bomb.left = 0
        self.stripe.faults.clear()
        for event in [one for one in self.stripe.events if one["id"] not in self.stripe.delivered]:
            self.tell(event)
        for _ in range(30):
            self.worked()
            again()
            if not unfinished() and all(one["id"] in self.stripe.delivered for one in self.stripe.events):
                break
            for event in [one for one in self.stripe.events if one["id"] not in self.stripe.delivered]:
                self.tell(event)  # what was bought at last tells something, too
        self.agree()
        for one in self.live():
            self.stripe.cancel(one["id"])

    def agree(self):
        """Stripe's objects, and our rows."""
        rows = lambda sql, **more: db.all(tuple, sql, home=self.home, **more)  # noqa: E731
        best = max(self.subscriptions(), key=lambda one: (one["status"] != "canceled", one["items"]["data"][0]["price"]["unit_amount"], one["created"], one["id"]), default=None)
        kept = rows("SELECT subscription, status, price_cents, cancel_at_period_end, tier FROM subscriptions WHERE tenant_id = :home")
        cents = best and best["items"]["data"][0]["price"]["unit_amount"]
        assert kept == ([(best["id"], best["status"], cents, best["cancel_at_period_end"], {1_900: "solo", 9_900: "team"}[cents])] if best else [])
        paid = [one for one in self.payments() if one["status"] == "succeeded"]
        for kind, found in (("tokens", rows("SELECT reference_id, amount FROM token_ledger WHERE tenant_id = :home AND type = 'purchase'")),
                            ("credits", rows("SELECT reference_id, amount_micros FROM credit_ledger WHERE tenant_id = :home AND type = 'purchase'"))):
            assert sorted(found) == sorted((one["id"], int(one["metadata"]["units"])) for one in paid if one["metadata"]["kind"] == kind)
        for intent, status, units, refunded in rows("SELECT payment_intent, status, units, refunded_units FROM purchases WHERE tenant_id = :home"):
            there = self.stripe.payment_intents.get(intent)
            assert (status == "paid") == bool(there and there["status"] == "succeeded") and status != "charging"
            if status == "paid":
                charge = self.stripe.charges[there["latest_charge"]]
                assert refunded == units * charge["amount_refunded"] // charge["amount"]
        assert max([many for many, in rows("SELECT count(*) FROM purchases WHERE tenant_id = :home AND slot IS NOT NULL GROUP BY kind")], default=0) <= 4
        assert credits.reconcile() == tokens.reconcile() == []


@pytest.mark.slow
def test_whatever_happens_stripes_objects_and_our_rows_agree_in_the_end(as_, stripe, worked, bomb, application, free):
    Money.world = as_, stripe, worked, bomb, application
    run_state_machine_as_test(Money, settings=settings(max_examples=120, stateful_step_count=30, deadline=None, print_blob=True,
                                                       suppress_health_check=list(HealthCheck)))
