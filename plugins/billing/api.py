"""The wire of billing."""
from typing import Annotated, Any, Literal, cast

from orkosi import PUBLIC, Actor, Document, Flat, Meta, Page, Request, Struct, may
from plugins import billing
from plugins.billing import hearing, plans, plugin, prices, seeing, till, topups
from plugins.billing.buying import CheckoutOpened, PaymentAsked, PlanChange
from plugins.billing.plans import Plan, Violation
from plugins.billing.seeing import BillingOverview, PlanSummary, Pricing, Tier, Usage

OWNER, ONESELF = may("admin", owner=True), may("viewer")
LARGEST = 512 << 10  # of an event
TierName = Annotated[str, Meta(min_length=1, max_length=40)]
Slug = Annotated[str, Meta(min_length=1, max_length=40)]
Times = Annotated[int, Meta(ge=1, le=10, description="How many top-ups a month may have")]
Method = Annotated[str, Meta(pattern=r"\A(pm|card|src)_[A-Za-z0-9_]{1,120}\Z", description="A payment method of Stripe's, such as pm_1Pgc75")]
Tokens = Annotated[int, Meta(ge=1, le=10**9)]
Cents = Annotated[int, Meta(ge=1, le=10**8)]


class ToTier(Struct, forbid_unknown_fields=True):
    tier: TierName


class PaymentOrder(Struct, forbid_unknown_fields=True):
    package_slug: Slug
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class UsageQuery(Struct, forbid_unknown_fields=True):
    format: Literal["json", "csv"] = "json"


class NewTopup(Struct, forbid_unknown_fields=True):
    threshold_tokens: Tokens
    package_id: Slug
    enabled: bool = True
    max_monthly_topups: Times = 3
    stripe_payment_method_id: Method | None = None


class TopupPatch(Struct, forbid_unknown_fields=True):
    enabled: bool | None = None
    package_slug: Slug | None = None
    threshold_tokens: Tokens | None = None
    max_monthly_topups: Times | None = None
    stripe_payment_method_id: Method | None = None


class NewCreditTopup(Struct, forbid_unknown_fields=True):
    threshold_cents: Cents
    package_slug: Slug
    enabled: bool = True
    max_monthly_topups: Times = 3
    stripe_payment_method_id: Method | None = None


class CreditTopupPatch(Struct, forbid_unknown_fields=True):
    enabled: bool | None = None
    package_slug: Slug | None = None
    threshold_cents: Cents | None = None
    max_monthly_topups: Times | None = None
    stripe_payment_method_id: Method | None = None


class PortalOpened(Struct):
    """Where cards, invoices and the subscription are."""
    url: str


class Validation(Struct):
    """Whether a tenant may go to a tier, and what is in the way."""
    allowed: bool
    violations: list[Violation]


class Heard(Flat):
    """An event was taken in."""
    received: bool


class AutoTopup(Struct):
    """How tokens are topped up. Without a card, `setup_client_secret` is what a browser hands Stripe one with; then it begins by itself."""
    enabled: bool
    threshold_tokens: int | None
    package_slug: str | None
    max_monthly_topups: int | None
    topups_this_month: int
    payment_method: topups.Card | None
    last_topup_at: str | None
    last_error: str | None
    balance_tokens: int
    packages: list[prices.TokenPackage]
    setup_client_secret: str | None = None


class CreditAutoTopup(Struct):
    """How credits are topped up. Without a card, `setup_client_secret` is what a browser hands Stripe one with; then it begins by itself."""
    enabled: bool
    threshold_cents: int | None
    package_slug: str | None
    max_monthly_topups: int | None
    topups_this_month: int
    payment_method: topups.Card | None
    last_topup_at: str | None
    last_error: str | None
    balance_cents: int
    packages: list[prices.CreditPackage]
    setup_client_secret: str | None = None


# ── what there is ──


@plugin.get("/api/billing/tiers", auth=PUBLIC)
def tiers() -> Page[Tier]:
    """List the tiers that can be had, the least first"""
    found = seeing.tiers()
    return Page(found, len(found), len(found), 0)


@plugin.get("/api/billing/pricing", auth=PUBLIC)
def pricing() -> Pricing:
    """List all that can be bought, and what a dollar buys"""
    return seeing.pricing()


@plugin.get("/api/billing/subscription", auth=OWNER, raises=(404,))
def subscription() -> Plan:
    """Show the tenant's plan, paid or given"""
    found = plans.current_plan()
    if found is None:
        raise billing.NoPlan("There is no subscription; begin one at POST /api/billing/checkout")
    return found


@plugin.get("/api/billing/usage", auth=OWNER, raises=(404,))
def usage(query: UsageQuery) -> Usage:
    """Say what was used this month, by day, agent and product

    `format=csv` answers a table for a spreadsheet."""
    found = seeing.usage()
    if query.format == "json":
        return found
    name = f'attachment; filename="usage-{found.period.start[:7]}.csv"'
    return cast(Usage, Document(seeing.as_csv(found), "text/csv; charset=utf-8", {"Content-Disposition": name}))


@plugin.get("/api/billing/plan-summary", auth=OWNER)
def plan_summary() -> PlanSummary:
    """Show every limit of the plan, and how near it is"""
    return seeing.summary()


@plugin.post("/api/billing/validate-downgrade", auth=OWNER)
def validate_downgrade(body: ToTier) -> Validation:
    """Say whether what is used would fit a tier; nothing is changed"""
    found = plans.violations(prices.find(body.tier))
    return Validation(not found, found)


@plugin.get("/api/billing/overview", auth=may("admin", host=True))
def overview() -> BillingOverview:
    """Show what comes in a month, and what goes out

    Of all tenants. What was given away brings nothing."""
    return seeing.overview()


# ── buying ──


@plugin.post("/api/billing/checkout", auth=OWNER, lane="outside", limit="billing", raises=(402, 409, 422))
def checkout(body: ToTier) -> CheckoutOpened:
    """Open a page of Stripe's where a plan is bought

    While it is open, asking again answers the same one. The plan begins once Stripe says that it was paid."""
    return billing.checkout(body.tier)


@plugin.post("/api/billing/portal", auth=OWNER, lane="outside", limit="billing", raises=(402, 409, 422))
def portal() -> PortalOpened:
    """Open a page of Stripe's with cards, invoices and the subscription"""
    return PortalOpened(billing.portal())


@plugin.post("/api/billing/create-payment-intent", auth=OWNER, lane="outside", limit="billing", raises=(402, 409, 422))
def create_payment_intent(body: PaymentOrder) -> PaymentAsked:
    """Ask for the payment of a package of tokens or credits

    A browser confirms it with Stripe. What it buys is credited once Stripe says that it was paid. With an `idempotency_key`, the same again."""
    return billing.payment_intent(body.package_slug, body.idempotency_key)


@plugin.post("/api/billing/change-plan", auth=OWNER, lane="outside", limit="billing", raises=(402, 409, 422))
def change_plan(body: ToTier) -> PlanChange:
    """Go to another tier

    Up at once, for what the rest of the period costs; down at its end. Without a subscription, a checkout. 422 lists the limits in the way."""
    return billing.change_plan(body.tier)


# ── top-ups ──


@plugin.get("/api/billing/auto-topup", auth=OWNER)
def show_topup() -> AutoTopup:
    """Show how tokens are topped up, and the packages there are"""
    return _tokens()


@plugin.post("/api/billing/auto-topup", auth=OWNER, lane="outside", limit="billing", status=201, raises=(402, 409, 422))
def set_topup(body: NewTopup) -> AutoTopup:
    """Have tokens bought by themselves when fewer than a number are left

    `package_id` is a package's slug. It is paid by the card that is named, or the one the tenant pays with."""
    return _tokens(topups.configure("tokens", 0, new=True, method=body.stripe_payment_method_id, field="package_id", enabled=body.enabled,
                                    threshold=body.threshold_tokens, package=body.package_id, max_monthly=body.max_monthly_topups))


@plugin.put("/api/billing/auto-topup", auth=OWNER, lane="outside", limit="billing", raises=(402, 404, 409, 422))
def change_topup(body: TopupPatch) -> AutoTopup:
    """Change how tokens are topped up; what is not sent stays"""
    return _tokens(topups.configure("tokens", 0, new=False, method=body.stripe_payment_method_id,
                                    **_given(enabled=body.enabled, threshold=body.threshold_tokens, package=body.package_slug,
                                             max_monthly=body.max_monthly_topups)))


@plugin.get("/api/billing/credit-auto-topup", auth=ONESELF)
def show_credit_topup(me: Actor) -> CreditAutoTopup:
    """Show how one's credits are topped up, and the packages there are"""
    return _credits(me)


@plugin.post("/api/billing/credit-auto-topup", auth=ONESELF, lane="outside", limit="billing", status=201, raises=(402, 409, 422))
def set_credit_topup(body: NewCreditTopup, me: Actor) -> CreditAutoTopup:
    """Have credits bought by themselves when fewer than a number of cents are left

    They pay the cost of runs of tasks that one created. It is paid by a card of one's own, not the tenant's."""
    return _credits(me, topups.configure("credits", me.user or 0, new=True, method=body.stripe_payment_method_id, enabled=body.enabled,
                                         threshold=body.threshold_cents, package=body.package_slug, max_monthly=body.max_monthly_topups))


@plugin.put("/api/billing/credit-auto-topup", auth=ONESELF, lane="outside", limit="billing", raises=(402, 404, 409, 422))
def change_credit_topup(body: CreditTopupPatch, me: Actor) -> CreditAutoTopup:
    """Change how one's credits are topped up; what is not sent stays"""
    return _credits(me, topups.configure("credits", me.user or 0, new=False, method=body.stripe_payment_method_id,
                                         **_given(enabled=body.enabled, threshold=body.threshold_cents, package=body.package_slug,
                                                  max_monthly=body.max_monthly_topups)))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tokens(secret: str | None = None) -> AutoTopup:
    one, (many, last) = topups.find("tokens"), topups.paid_this_month("tokens", 0)
    return AutoTopup(*_shown(one), many, _card(one), last, one.last_error if one else None, topups.balance("tokens", 0),
                     prices.prices().token_packages, secret)


def _credits(me: Actor, secret: str | None = None) -> CreditAutoTopup:
    user = me.user or 0
    one, (many, last) = topups.find("credits", user), topups.paid_this_month("credits", user)
    return CreditAutoTopup(*_shown(one), many, _card(one), last, one.last_error if one else None, topups.balance("credits", user),
                           prices.prices().credit_packages, secret)


def _shown(one: topups.Topup | None) -> tuple[bool, int | None, str | None, int | None]:
    return (one.enabled, one.threshold, one.package, one.max_monthly) if one else (False, None, None, None)


def _card(one: topups.Topup | None) -> topups.Card | None:
    return topups.Card(one.brand or "", one.last4 or "") if one and one.payment_method else None


# ── what Stripe tells ──


@plugin.post("/api/billing/webhook", auth=PUBLIC, raises=(413,), max_body=LARGEST)
def webhook(request: Request) -> Heard:
    """Take in an event of Stripe's

    Its signature is what proves it; what it says is asked of Stripe anew, in a job. The same event again changes nothing."""
    raw = request.body(LARGEST)
    till.verified(raw, request.header("Stripe-Signature"))
    hearing.hear(hearing.understand(raw))
    return Heard(True)
