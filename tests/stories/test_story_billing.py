"""Stories of billing: what there is to buy, plans and what they allow, and how each is paid at Stripe; compared with Stripe's own objects."""
import csv
import datetime
import io
import time
from zoneinfo import ZoneInfo

import pytest
from conftest import Like, put

from orkosi import acting, settings, system
from plugins import billing, tokens
from plugins.schedules.slots import here

KB = 1024
TIERS = [("free", "Free", 0, (3, 1_000, 2, KB**3)), ("solo", "Solo", 1_900, (10, 10_000, 10, 10 * KB**3)), ("team", "Team", 9_900, (50, 100_000, 50, 100 * KB**3))]
TOKENS = [("tokens-100k", 100_000, 200), ("tokens-1m", 1_000_000, 1_500), ("tokens-10m", 10_000_000, 12_000)]
CREDITS = [("credits-10", 1_000), ("credits-25", 2_500), ("credits-100", 10_000)]
TOKEN_PACKAGES = [{"slug": slug, "tokens": many, "price_cents": cents} for slug, many, cents in TOKENS]
CREDIT_PACKAGES = [{"slug": slug, "credit_cents": cents, "price_cents": cents} for slug, cents in CREDITS]
LIMITS = ("agents", "tasks_per_month", "api_keys", "storage_bytes")
OF = {tier: dict(zip(LIMITS, limits, strict=True)) for tier, _, _, limits in TIERS}
FEATURES = {"free": ["3 agents", "1,000 tasks a month", "2 API keys", "1 GB"],
            "solo": ["10 agents", "10,000 tasks a month", "10 API keys", "10 GB"],
            "team": ["50 agents", "100,000 tasks a month", "50 API keys", "100 GB"]}


def stamp(moment):
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def period(stripe, id):
    item = stripe.subscriptions[id]["items"]["data"][0]
    return {"current_period_start": stamp(item["current_period_start"]), "current_period_end": stamp(item["current_period_end"])}


def today():
    return datetime.datetime.now(ZoneInfo(here())).date()


# ── what there is ──


@pytest.mark.story("GET /api/billing/tiers")
def test_tiers_are_listed_with_their_price_at_stripe_once_it_was_asked(anonymous, olga, stripe):
    rows = [{"tier": tier, "name": name, "price_cents": cents, "interval": "month", "limits": OF[tier], "features": FEATURES[tier], "stripe_price_id": None}
            for tier, name, cents, _ in TIERS]
    meta = {"total": 3, "limit": 3, "offset": 0, "has_more": False, "next_after": None}
    assert anonymous.get("/billing/tiers").json == {"data": rows, "meta": meta}
    olga.post("/billing/checkout", {"tier": "team"})
    price, = stripe.prices.values()
    assert (price["unit_amount"], price["recurring"]["interval"], price["currency"]) == (9_900, "month", "usd")
    rows[2]["stripe_price_id"] = price["id"]
    assert anonymous.get("/billing/tiers").json == {"data": rows, "meta": meta}


@pytest.mark.story("GET /api/billing/pricing")
def test_pricing_is_worked_out_of_the_same_data(anonymous, olga, stripe):
    olga.post("/billing/checkout", {"tier": "solo"})
    each = {slug: many * 100 // cents for slug, many, cents in TOKENS}
    assert anonymous.get("/billing/pricing").data == {
        "tiers": anonymous.get("/billing/tiers").data, "token_packages": TOKEN_PACKAGES, "credit_packages": CREDIT_PACKAGES,
        "economics": {"tokens_per_dollar": 83_333, "tokens_per_dollar_of_package": each, "credit_cents_per_dollar": 100, "largest_discount_percent": 40.0}}
    assert each == {"tokens-100k": 50_000, "tokens-1m": 66_666, "tokens-10m": 83_333}


@pytest.mark.story("GET /api/billing/subscription")
def test_a_subscription_is_as_stripe_has_it(paying, stripe, told, client):
    row = {"tier": "solo", "status": "active", **period(stripe, paying.subscription), "cancel_at_period_end": False, "pending_tier": None, "granted_by": None}
    assert paying.get("/billing/subscription").data == row
    stripe.update(paying.subscription, cancel_at_period_end=True)
    told()
    assert paying.get("/billing/subscription").data == row | {"cancel_at_period_end": True, "pending_tier": "free"}
    stripe.update(paying.subscription, cancel_at_period_end=False, status="past_due")
    told()
    assert paying.get("/billing/subscription").data == row | {"status": "past_due"}
    stripe.cancel(paying.subscription)
    told()
    gone = paying.get("/billing/subscription")
    assert (gone.status, gone.code) == (404, "no_plan")
    assert client.get("/billing/subscription").status == 404


@pytest.mark.story("GET /api/billing/subscription")
def test_a_plan_that_was_given(olga, client, lately):
    with acting(system()):
        billing.grant(olga.home, "team", "2999-01-01T00:00:00.000Z")
    assert olga.get("/billing/subscription").data == {
        "tier": "team", "status": "granted", "current_period_start": lately, "current_period_end": "2999-01-01T00:00:00.000Z",
        "cancel_at_period_end": False, "pending_tier": None, "granted_by": "system"}
    assert client.get("/billing/subscription").status == 404


@pytest.mark.story("GET /api/billing/usage")
def test_usage_is_summed_from_rows(olga, as_, anonymous):
    assert olga.get("/billing/usage").status == 404 and as_("nils", tenant=None).get("/billing/usage").code == "not_found"
    first, day = str(today().replace(day=1)), str(today())
    rows = [("felix", day, "shop", 2, 100, 50, 7_000), ("felix", first, "", 1, 10, 5, 900), ("ada", day, "shop", 3, 1, 2, 3), ("ada", "2001-02-03", "old", 9, 9, 9, 9)]
    for agent, date, product, runs, tokens_in, tokens_out, cost in rows:
        put("cost_sums", tenant_id=olga.home, agent=agent, day=date, product=product, model="m", runs=runs, done=runs, wasted=0, tokens_in=tokens_in,
            tokens_out=tokens_out, cost_micros=cost, ms=5)
    put("cost_sums", tenant_id=1, agent="theirs", day=day, product="", model="m", runs=1, done=1, wasted=0, tokens_in=7, tokens_out=7, cost_micros=7, ms=1)
    for title in "abcd":
        olga.post("/tasks", {"title": title})
    olga.delete(f"/tasks/{olga.post('/tasks', {'title': 'deleted'}).data['id']}")
    olga.post("/agents", {"name": "felix"})
    org = olga.post("/organizations", {"name": "Olga's"}).data["id"]
    olga.post(f"/organizations/{org}/api-keys", {"name": "one"})
    zone, month = ZoneInfo(here()), today().replace(day=1)
    after = (month + datetime.timedelta(days=32)).replace(day=1)
    begins, ends = (stamp(datetime.datetime.combine(one, datetime.time(), zone).timestamp()) for one in (month, after))
    ours = [one for one in rows if one[1] >= first]

    def total(those):
        return {"runs": sum(one[3] for one in those), "tokens": sum(one[4] + one[5] for one in those), "cost_micros": sum(one[6] for one in those)}
    days = [str(month + datetime.timedelta(days=at)) for at in range((today() - month).days + 1)]
    by_day = [{"date": date, "tasks": 5 if date == day else 0, **total([one for one in ours if one[1] == date])} for date in days]
    by_agent = [{"agent": name, **total([one for one in ours if one[0] == name])} for name in ("felix", "ada")]
    by_product = [{"product_slug": name or None, **total([one for one in ours if one[2] == name])} for name in ("shop", "")]
    found = olga.get("/billing/usage").data
    bytes_ = found["usage"].pop("storage_bytes")
    assert found == {
        "period": {"start": begins, "end": ends}, "tier": "free", "limits": dict.fromkeys(LIMITS), "by_day": by_day, "by_agent": by_agent, "by_product": by_product,
        "usage": {"agents": 1, "tasks": 5, "api_keys": 1, "tokens": 168, "cost_micros": 7_903}}
    assert 1_000 < bytes_ < 20_000
    table = olga.get("/billing/usage?format=csv")
    assert table.headers["Content-Type"].startswith("text/csv") and table.headers["Content-Disposition"] == f'attachment; filename="usage-{begins[:7]}.csv"'
    lines = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert [(one["by"], one["key"], one["tasks"], int(one["runs"]), int(one["tokens"]), int(one["cost_micros"])) for one in lines] == [
        *[("day", one["date"], str(one["tasks"]), one["runs"], one["tokens"], one["cost_micros"]) for one in by_day],
        *[("agent", one["agent"], "", one["runs"], one["tokens"], one["cost_micros"]) for one in by_agent],
        *[("product", one["product_slug"] or "", "", one["runs"], one["tokens"], one["cost_micros"]) for one in by_product]]


@pytest.mark.story("GET /api/billing/plan-summary")
def test_a_summary_shows_how_near_each_limit_is(client, olga, paying):
    for name in ("felix", "ada"):
        olga.post("/agents", {"name": name})
    for title in "abc":
        olga.post("/tasks", {"title": title})
    found = paying.get("/billing/plan-summary").data
    used = found["limits"]["storage_bytes"]["used"]
    assert used == paying.get("/billing/usage").data["usage"]["storage_bytes"] > 600
    assert found == {"tier": "solo", "name": "Solo", "price_cents": 1_900, "status": "active", "limited": True, "limits": {
        "agents": {"limit": 10, "used": 2, "remaining": 8, "percent": 20.0},
        "tasks_per_month": {"limit": 10_000, "used": 3, "remaining": 9_997, "percent": 0.0},
        "api_keys": {"limit": 10, "used": 0, "remaining": 10, "percent": 0.0},
        "storage_bytes": {"limit": 10 * KB**3, "used": used, "remaining": 10 * KB**3 - used, "percent": 0.0}}}
    client.post("/agents", {"name": "host"})
    host = client.get("/billing/plan-summary").data
    assert (host["tier"], host["limited"], host["status"], host["limits"]["agents"]) == (
        "free", False, None, {"limit": None, "used": 1, "remaining": None, "percent": None})


@pytest.mark.story("POST /api/billing/validate-downgrade")
def test_a_tier_that_is_too_small(olga):
    for name in ("a", "b", "c", "d", "e"):
        assert olga.post("/agents", {"name": name + "gent"}).status in (200, 201)
    put("plan_days", tenant_id=olga.home, day=str(today()), tasks=12_345)
    over = [{"limit": "agents", "used": 5, "allowed": 3}, {"limit": "tasks_per_month", "used": 12_345, "allowed": 1_000}]
    before = olga.get("/billing/plan-summary").data
    assert olga.post("/billing/validate-downgrade", {"tier": "free"}).data == {"allowed": False, "violations": over}
    assert olga.post("/billing/validate-downgrade", {"tier": "solo"}).data == {"allowed": False, "violations": [over[1] | {"allowed": 10_000}]}
    assert olga.post("/billing/validate-downgrade", {"tier": "team"}).data == {"allowed": True, "violations": []}
    unknown = olga.post("/billing/validate-downgrade", {"tier": "gold"})
    assert unknown.status == 400 and unknown.wrong == ["tier"] and "free, solo, team" in unknown.error["message"]
    assert olga.get("/billing/plan-summary").data == before


@pytest.mark.story("GET /api/billing/overview")
def test_the_overview_is_of_all_tenants(client, paying, as_, stripe, told):
    nils = as_("nils", tenant=None)
    stripe.pay(nils.post("/billing/checkout", {"tier": "team"}).data["session_id"])
    mia = as_("mia", tenant=None)
    stripe.pay(mia.post("/billing/checkout", {"tier": "solo"}).data["session_id"])
    gone = as_("gone", tenant=None)
    session = gone.post("/billing/checkout", {"tier": "team"}).data["session_id"]
    stripe.pay(session)
    stripe.cancel(stripe.checkout_sessions[session]["subscription"])
    told()
    day = str(today())
    for tenant, agent, cost in ((1, "felix", 20_000_000), (paying.home, "ada", 5_004_999), (paying.home, "idle", 0)):
        put("cost_sums", tenant_id=tenant, agent=agent, day=day, product="", model="m", runs=1, done=1, wasted=0, tokens_in=1, tokens_out=1, cost_micros=cost, ms=1)
    put("cost_sums", tenant_id=1, agent="felix", day=str(today() - datetime.timedelta(days=30)), product="", model="m", runs=1, done=1, wasted=0,
        tokens_in=1, tokens_out=1, cost_micros=99, ms=1)
    assert client.get("/billing/overview").data == {
        "mrr_cents": 9_900 + 2 * 1_900, "subscribers": 3,
        "mrr_by_product": [{"product": "team", "name": "Team", "subscribers": 1, "mrr_cents": 9_900},
                           {"product": "solo", "name": "Solo", "subscribers": 2, "mrr_cents": 3_800}],
        "infrastructure": [{"name": "Electricity of the Mac mini", "cents_per_month": 500}, {"name": "Domain", "cents_per_month": 100}],
        "infrastructure_cents": 600, "ai_cost_micros_30d": 25_004_999,
        "ai_by_agent": [{"tenant_id": 1, "agent": "felix", "cost_micros": 20_000_000}, {"tenant_id": paying.home, "agent": "ada", "cost_micros": 5_004_999}],
        "net_cents": 13_700 - 600 - 2_500}
    assert paying.get("/billing/overview").status == 403


# ── buying ──


@pytest.mark.story("POST /api/billing/checkout")
def test_a_checkout_is_opened_once(olga, stripe, told):
    made = olga.post("/billing/checkout", {"tier": "solo"})
    session, = stripe.checkout_sessions.values()
    customer, = stripe.customers.values()
    price, = stripe.prices.values()
    assert made.json == {"data": {"session_id": session["id"], "url": f"{stripe.url}/pay/{session['id']}"}}
    told_ = {"orkosi_tenant": str(olga.home), "tier": "solo"}
    assert (session["mode"], session["customer"], session["metadata"], session["client_reference_id"]) == ("subscription", customer["id"], told_, str(olga.home))
    assert customer["metadata"] == {"orkosi_tenant": str(olga.home), "orkosi_user": "0"} and not customer["email"] and not customer["name"]
    assert [session["success_url"], session["cancel_url"]] == [f"http://127.0.0.1:3001/billing/{page}" for page in ("done", "cancelled")]
    assert olga.post("/billing/checkout", {"tier": "solo"}).data["session_id"] == session["id"] and len(stripe.checkout_sessions) == 1
    other = olga.post("/billing/checkout", {"tier": "team"}).data["session_id"]
    assert stripe.checkout_sessions[session["id"]]["status"] == "expired" and stripe.checkout_sessions[other]["status"] == "open"
    stripe.pay(other)
    before_the_event = olga.post("/billing/checkout", {"tier": "solo"})
    assert before_the_event.status == 409 and "change-plan" in before_the_event.error["message"]
    told()
    assert olga.post("/billing/checkout", {"tier": "solo"}).status == 409 and len(stripe.subscriptions) == len(stripe.customers) == 1
    assert stripe.carts[other][0][0] == {"price": next(one["id"] for one in stripe.prices.values() if one["unit_amount"] == 9_900), "quantity": 1}
    assert price["lookup_key"] == "orkosi_solo_1900"
    for tier, status in (("free", 400), ("gold", 400)):
        assert olga.post("/billing/checkout", {"tier": tier}).status == status


@pytest.mark.story("POST /api/billing/portal")
def test_the_portal_is_opened_for_who_has_bought(olga, stripe):
    none = olga.post("/billing/portal")
    assert (none.status, none.code) == (409, "conflict") and not stripe.customers
    olga.post("/billing/checkout", {"tier": "solo"})
    made = olga.post("/billing/portal").data
    session, = stripe.billing_portal_sessions.values()
    assert made == {"url": session["url"]} and [session["customer"]] == list(stripe.customers) and session["return_url"] == "http://127.0.0.1:3001/"


@pytest.mark.story("POST /api/billing/create-payment-intent")
def test_a_payment_is_asked_for_and_credited_when_stripe_says_it_is_paid(olga, stripe, told):
    made = olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m", "idempotency_key": "order 7"}).data
    intent, = stripe.payment_intents.values()
    assert made == {"payment_intent_id": intent["id"], "client_secret": intent["client_secret"], "amount_cents": 1_500, "tokens": 1_000_000, "credit_cents": 0}
    assert (intent["amount"], intent["currency"], [intent["customer"]]) == (1_500, "usd", list(stripe.customers))
    assert olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m", "idempotency_key": "order 7"}).data == made
    other = olga.post("/billing/create-payment-intent", {"package_slug": "tokens-100k", "idempotency_key": "order 7"})
    assert other.status == 409 and "idempotency_key" in other.error["message"]
    told()
    assert olga.get("/tokens/balance").data["balance"] == 0
    stripe.confirm(intent["id"])
    told()
    told(stripe.events)
    moved, = olga.get("/tokens/transactions").data
    assert moved == {"id": Like(r"\d+") if isinstance(moved["id"], str) else moved["id"], "type": "purchase", "amount": 1_000_000, "balance_after": 1_000_000,
                     "action": "tokens-1m", "reference_id": intent["id"], "metadata": {"amount_cents": 1_500}, "actor": "system", "created_at": moved["created_at"]}
    assert olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m", "idempotency_key": "order 7"}).data == made
    assert olga.post("/billing/create-payment-intent", {"package_slug": "tokens-1m"}).data["payment_intent_id"] != intent["id"]


@pytest.mark.story("POST /api/billing/create-payment-intent", "GET /api/billing/credit-auto-topup")
def test_credits_are_of_the_user_who_bought_them(olga, stripe, told):
    made = olga.post("/billing/create-payment-intent", {"package_slug": "credits-25"}).data
    intent, = stripe.payment_intents.values()
    assert made == {"payment_intent_id": intent["id"], "client_secret": intent["client_secret"], "amount_cents": 2_500, "tokens": 0, "credit_cents": 2_500}
    assert stripe.customers[intent["customer"]]["metadata"] == {"orkosi_tenant": str(olga.home), "orkosi_user": str(olga.id)}
    stripe.confirm(intent["id"])
    told()
    assert olga.get("/billing/credit-auto-topup").data["balance_cents"] == 2_500 and olga.get("/tokens/balance").data["balance"] == 0


@pytest.mark.story("POST /api/billing/change-plan")
def test_up_at_once_and_down_at_the_end(paying, stripe, told, monkeypatch):
    sub = stripe.subscriptions[paying.subscription]
    price = lambda: sub["items"]["data"][0]["price"]["unit_amount"]  # noqa: E731
    row = {"tier": "team", "status": "active", **period(stripe, paying.subscription), "cancel_at_period_end": False, "pending_tier": None, "granted_by": None}
    assert paying.post("/billing/change-plan", {"tier": "team"}).data == {"outcome": "now", "subscription": row, "session_id": None, "url": None}
    assert paying.get("/billing/subscription").data == row and price() == 9_900 and sub["latest_invoice"] in stripe.invoices
    bill = stripe.invoices[sub["latest_invoice"]]
    assert bill["billing_reason"] == "subscription_update" and 7_900 < bill["amount_due"] <= 8_000
    assert paying.post("/billing/change-plan", {"tier": "team"}).data["outcome"] == "unchanged"
    invoices = len(stripe.invoices)
    down = row | {"pending_tier": "solo"}
    assert paying.post("/billing/change-plan", {"tier": "solo"}).data == {"outcome": "at_period_end", "subscription": down, "session_id": None, "url": None}
    told()
    assert paying.get("/billing/subscription").data == down and len(stripe.invoices) == invoices and price() == 1_900
    assert paying.get("/billing/plan-summary").data["limits"]["agents"]["limit"] == 50
    assert paying.post("/billing/change-plan", {"tier": "team"}).data["subscription"] == row and len(stripe.invoices) == invoices
    assert paying.post("/billing/change-plan", {"tier": "free"}).data["subscription"] == row | {"cancel_at_period_end": True, "pending_tier": "free"}
    assert paying.post("/billing/change-plan", {"tier": "solo"}).data["subscription"] == down
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 31 * 86400)
    assert paying.get("/billing/plan-summary").status == 401  # so long nobody is logged in
    with acting(system(paying.home)):
        assert billing.current_plan().tier == "solo"
    stripe.advance(0)
    told()
    with acting(system(paying.home)):
        found = billing.current_plan()
    assert (found.tier, found.pending_tier, found.current_period_end) == ("solo", None, period(stripe, paying.subscription)["current_period_end"])
    assert stripe.invoices[stripe.subscriptions[paying.subscription]["latest_invoice"]]["amount_due"] == 1_900


@pytest.mark.story("POST /api/billing/change-plan")
def test_without_a_subscription_a_checkout_and_without_room_nothing(olga, stripe, told):
    made = olga.post("/billing/change-plan", {"tier": "team"}).data
    session, = stripe.checkout_sessions.values()
    assert made == {"outcome": "checkout", "subscription": None, "session_id": session["id"], "url": session["url"]}
    assert olga.post("/billing/change-plan", {"tier": "free"}).data == {"outcome": "unchanged", "subscription": None, "session_id": None, "url": None}
    stripe.pay(session["id"])
    told()
    for number in range(11):
        assert olga.post("/agents", {"name": f"agent-{number}"}).status == 200 or number
    before = stripe.subscriptions.copy()
    refused = olga.post("/billing/change-plan", {"tier": "solo"})
    assert (refused.status, refused.code, refused.error["details"]) == (422, "beyond_tier", [
        {"field": "agents", "message": "11 are used, 10 are allowed", "limit": "agents", "used": 11, "allowed": 10}])
    assert stripe.subscriptions == before and olga.get("/billing/subscription").data["tier"] == "team"


# ── top-ups ──

UNSET = {"enabled": False, "package_slug": None, "max_monthly_topups": None, "topups_this_month": 0, "payment_method": None, "last_topup_at": None,
         "last_error": None, "setup_client_secret": None}


@pytest.mark.story("GET /api/billing/auto-topup", "POST /api/billing/auto-topup", "PUT /api/billing/auto-topup")
def test_tokens_are_topped_up_by_the_card_one_pays_with(paying, stripe, told, worked, lately):
    unset = UNSET | {"threshold_tokens": None, "balance_tokens": 0, "packages": TOKEN_PACKAGES}
    assert paying.get("/billing/auto-topup").data == unset
    assert paying.put("/billing/auto-topup", {"enabled": True}).status == 404
    with acting(system(paying.home)):
        tokens.credit(60_000, "bonus", "hello")
    stripe.card(paying.customer)
    made = paying.post("/billing/auto-topup", {"threshold_tokens": 50_000, "package_id": "tokens-100k", "max_monthly_topups": 2})
    row = unset | {"enabled": True, "threshold_tokens": 50_000, "package_slug": "tokens-100k", "max_monthly_topups": 2, "balance_tokens": 60_000,
                   "payment_method": {"brand": "visa", "last4": "4242"}}
    assert (made.status, made.data) == (201, row) and paying.get("/billing/auto-topup").data == row
    assert paying.post("/billing/auto-topup", {"threshold_tokens": 1, "package_id": "tokens-1m"}).status == 409
    assert worked() == [] and not stripe.payment_intents
    paying.post("/tokens/consume", {"amount": 20_000, "action": "chat"})
    paying.post("/tokens/consume", {"amount": 1_000, "action": "chat"})
    assert worked() == ["paid"]
    intent, = stripe.payment_intents.values()
    assert (intent["amount"], intent["status"], intent["customer"], intent["payment_method"]) == (200, "succeeded", paying.customer,
                                                                                                  stripe.customers[paying.customer]["invoice_settings"]["default_payment_method"])
    told()
    row |= {"balance_tokens": 139_000, "topups_this_month": 1, "last_topup_at": lately}
    assert paying.get("/billing/auto-topup").data == row
    paying.post("/tokens/consume", {"amount": 100_000, "action": "chat"}), worked()
    paying.post("/tokens/consume", {"amount": 100_000, "action": "chat"})
    assert worked() == [] and paying.get("/billing/auto-topup").data["topups_this_month"] == 2 and len(stripe.payment_intents) == 2
    changed = paying.put("/billing/auto-topup", {"max_monthly_topups": 3, "package_slug": "tokens-1m", "threshold_tokens": 45_000}).data
    assert changed == row | {"topups_this_month": 3, "balance_tokens": 39_000, "max_monthly_topups": 3, "package_slug": "tokens-1m", "threshold_tokens": 45_000}
    assert worked() == ["paid"] and paying.get("/billing/auto-topup").data["balance_tokens"] == 1_039_000
    assert paying.put("/billing/auto-topup", {"enabled": False}).data["enabled"] is False and paying.put("/billing/auto-topup", {}).status == 200


@pytest.mark.story("GET /api/billing/credit-auto-topup", "POST /api/billing/credit-auto-topup", "PUT /api/billing/credit-auto-topup")
def test_credits_are_topped_up_by_a_card_that_a_browser_hands_over(as_, stripe, told, worked, monkeypatch, lately):
    mia = as_("mia", role="viewer")
    unset = UNSET | {"threshold_cents": None, "balance_cents": 0, "packages": CREDIT_PACKAGES}
    assert mia.get("/billing/credit-auto-topup").data == unset and mia.put("/billing/credit-auto-topup", {}).status == 404
    made = mia.post("/billing/credit-auto-topup", {"threshold_cents": 500, "package_slug": "credits-10"})
    intent, = stripe.setup_intents.values()
    row = unset | {"enabled": True, "threshold_cents": 500, "package_slug": "credits-10", "max_monthly_topups": 3}
    assert (made.status, made.data) == (201, row | {"setup_client_secret": intent["client_secret"]})
    assert mia.get("/billing/credit-auto-topup").data == row
    assert mia.post("/billing/credit-auto-topup", {"threshold_cents": 500, "package_slug": "credits-10"}).status == 409
    assert mia.put("/billing/credit-auto-topup", {"enabled": True}).data["setup_client_secret"] == intent["client_secret"] and len(stripe.setup_intents) == 1
    stripe.set_up(intent["id"])
    assert "card noted" in told()
    assert mia.get("/billing/credit-auto-topup").data == row | {"payment_method": {"brand": "visa", "last4": "4242"}, "balance_cents": 1_000,
                                                                "topups_this_month": 1, "last_topup_at": lately}
    card = stripe.card(next(iter(stripe.customers)), default=False)
    stripe.payment_methods[card]["card"] |= {"brand": "amex", "last4": "0005"}
    changed = mia.put("/billing/credit-auto-topup", {"stripe_payment_method_id": card, "package_slug": "credits-25", "threshold_cents": 1_001,
                                                     "max_monthly_topups": 2, "enabled": True})
    row |= {"package_slug": "credits-25", "threshold_cents": 1_001, "max_monthly_topups": 2, "payment_method": {"brand": "amex", "last4": "0005"},
            "topups_this_month": 2, "last_topup_at": lately}
    assert changed.data == row | {"balance_cents": 1_000}
    assert worked() == ["paid"] and list(stripe.payment_intents.values())[-1]["payment_method"] == card
    assert mia.get("/billing/credit-auto-topup").data == row | {"balance_cents": 3_500}
    assert as_("nils").get("/billing/credit-auto-topup").data == unset


@pytest.mark.story("POST /api/billing/auto-topup", "PUT /api/billing/auto-topup", "POST /api/billing/credit-auto-topup", "PUT /api/billing/credit-auto-topup")
def test_a_card_that_is_named_and_one_that_is_declined(paying, stripe, worked):
    """Off at first; turned on, its card is declined: it is off again, and says why."""
    for path, kind, slug, low, package in (("/billing/auto-topup", "tokens", "package_id", "threshold_tokens", "tokens-1m"),
                                           ("/billing/credit-auto-topup", "cents", "package_slug", "threshold_cents", "credits-25")):
        customer = paying.customer if kind == "tokens" else stripe.payment_intents[
            paying.post("/billing/create-payment-intent", {"package_slug": "credits-10"}).data["payment_intent_id"]]["customer"]
        good, bad = stripe.card(customer, default=False), stripe.card(customer, decline=True, default=False)
        stripe.payment_methods[good]["card"] |= {"last4": "1111"}
        made = paying.post(path, {low: 5, slug: package, "enabled": False, "max_monthly_topups": 7, "stripe_payment_method_id": good}).data
        row = {low: 5, "package_slug": package, "enabled": False, "max_monthly_topups": 7, "payment_method": {"brand": "visa", "last4": "1111"},
               "topups_this_month": 0, "last_topup_at": None, "last_error": None, f"balance_{kind}": 0, "setup_client_secret": None,
               "packages": TOKEN_PACKAGES if kind == "tokens" else CREDIT_PACKAGES}
        assert made == paying.get(path).data == row and worked() == []
        changed = paying.put(path, {"enabled": True, "stripe_payment_method_id": bad}).data
        row |= {"topups_this_month": 1, "payment_method": {"brand": "visa", "last4": "4242"}}
        assert changed == row | {"enabled": True}
        assert worked() == ["declined"]
        said = row | {"last_error": "Your card was declined."}
        assert paying.get(path).data == said == paying.put(path, {"threshold_" + kind: 5}).data
        assert "A top-up was not paid" in [one["title"] for one in paying.get("/notifications").data]
        assert paying.put(path, {"enabled": True, "stripe_payment_method_id": good}).data["last_error"] is None and worked() == ["paid"]


@pytest.mark.story("POST /api/billing/webhook")
def test_an_event_is_heard_once_and_seen_to(anonymous, stripe, olga, worked):
    intent = olga.post("/billing/create-payment-intent", {"package_slug": "tokens-100k"}).data["payment_intent_id"]
    stripe.confirm(intent)
    event = next(one for one in stripe.events if one["type"] == "payment_intent.succeeded")
    raw, headers = stripe.signed(event)
    for _ in range(3):
        assert anonymous.post("/billing/webhook", raw=raw, headers=headers).json == {"received": True}
    assert worked() == ["paid"] and olga.get("/tokens/balance").data["purchased"] == 100_000
    unknown = dict(event, id="evt_other", type="plan.created")
    raw, headers = stripe.signed(unknown)
    assert anonymous.post("/billing/webhook", raw=raw, headers=headers).json == {"received": True} and worked() == []
    assert settings.stripe_webhook_secret == "whsec_fake"


@pytest.mark.story("GET /billing/{page}")
def test_the_pages_that_stripe_returns_to(anonymous):
    for page, said in (("done", "Thank you"), ("cancelled", "Nothing was bought")):
        answer = anonymous.get(f"/billing/{page}?session_id=cs_1", root="")
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8" and f"<h1>{said}</h1>" in answer.body.decode()
    assert anonymous.get("/billing/elsewhere", root="").status == 400 and anonymous.get("/billing/done/x", root="").status == 404
