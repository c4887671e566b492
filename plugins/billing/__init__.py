"""Billing: what a tenant's plan is and allows, and how it is paid through Stripe.

Owns stripe_customers, stripe_prices, subscriptions, plan_grants, plan_days, checkouts, purchases, topups, credit_accounts, credit_ledger
and billing_events.

DESIGN

Stripe is the truth about money, and a row here is what it last said. Whatever Stripe tells - in which order, how often - only makes us
ask it anew, and what we then write follows from its answer alone (`plans.row_of`). An answer to an earlier question never replaces that
to a later one.

Before anything is asked that costs somebody money, the row that asks is written, with its idempotency key. So whoever comes after a crash asks the
same thing again, under the same key, or finds what became of it. A payment is credited with the id of its payment intent as the reference, which a
ledger takes once: by a webhook, a retry and a nightly look at Stripe, together, once.

Nothing of this runs inside a write or holds a thread that others wait for: requests that ask Stripe run in the lane `outside`, and jobs in the
queue for what is outside. Without a key all of it answers 503 and everything else goes on; a plan that an administrator grants needs no Stripe.

Files, each using those before it: prices, till, plans, credits, buying, topups, hearing, seeing.
"""
from orkosi import NotFound, Plugin

plugin = Plugin("Billing", layer="domain", needs=(
    "agents", "costs", "credentials", "integrations", "keys", "notifications", "queue", "schedules", "server", "tasks", "tokens"))
plugin.setting("stripe_secret_key", str, "", "Stripe's secret key; without it, what needs Stripe answers 503", secret=True)
plugin.setting("stripe_webhook_secret", str, "",
               "What Stripe signs its events with; two, with a comma between, while one replaces the other", secret=True)
plugin.setting("stripe_api_base", str, "", "Another address of Stripe's API, as for tests")
plugin.setting("plan_limits", str, "auto", "Whether plans limit tenants, but never the host: on, off, or auto: where Stripe is set up, and "
                                                "tenants that have a plan")
plugin.setting("limit_billing", str, "60/minute", "How often somebody may ask for something that Stripe has to answer")
plugin.setting("credits_charge_runs", bool, False, "Whether the cost of runs is taken from the credits of whoever created their tasks")


class NoPlan(NotFound):
    """The tenant has no plan."""
    code = "no_plan"


from . import prices, till  # noqa: E402, F401, I001  # the plugin comes first: they use it
from .plans import (  # noqa: E402, F401
    LimitReached, Violation, current_plan, grant, limits_of, used, violations, withdraw_grant)
from .buying import change_plan, checkout, payment_intent, portal  # noqa: E402, F401
from .topups import configure, under_way  # noqa: E402, F401
