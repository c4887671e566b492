"""The commands of billing; they work beside a running server and without one."""
from datetime import datetime
from pathlib import Path

import click

from orkosi import DATA, Invalid, Problem, acting, settings, system
from plugins import billing, storage
from plugins.billing import credits, hearing, plans, plugin, prices
from plugins.queue import iso


@plugin.command("plan")
@click.argument("action", type=click.Choice(["grant", "withdraw", "show"]))
@click.argument("tenant", type=int)
@click.argument("tier", required=False)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="grant: the local day on which it ends; default: never")
@DATA
def plan(action: str, tenant: int, tier: str | None, until: datetime | None, data: Path | None) -> None:
    """Give a tenant a plan that nobody pays for, `plan grant TENANT TIER`, take it back, or show what a tenant has."""
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            click.echo(_done(action, tenant, tier, until))
    finally:
        storage.close_data()


def _done(action: str, tenant: int, tier: str | None, until: datetime | None) -> str:
    if action == "grant":
        if tier is None:
            raise Invalid(f"Say which: plan grant {tenant} TIER; there are {', '.join(one.tier for one in prices.prices().tiers)}")
        given = billing.grant(tenant, tier, iso(until.timestamp()) if until else None)
        return f"Tenant {tenant} has the plan {given.tier} now{f', until {given.until}' if given.until else ''}"
    with acting(system(tenant)):
        if action == "withdraw":
            billing.withdraw_grant()
        found = plans.current_plan()
    return f"Tenant {tenant} has the plan {found.tier} ({found.status})" if found else f"Tenant {tenant} has no plan"


@plugin.command("billing")
@click.argument("action", type=click.Choice(["replay", "compare", "reconcile", "forget"]))
@click.argument("event", required=False)
@click.option("--yes", is_flag=True, help="forget: do it")
@DATA
def command(action: str, event: str | None, yes: bool, data: Path | None) -> None:
    """See to an event of Stripe's again, `billing replay EVENT`; to all of two days that were missed, `compare`; or prove the credits' ledger.

    `billing forget --yes`, once another account of Stripe's was set up, or the live key in place of the test key: customers, prices, plans
    and cards of the one before are forgotten, and made anew as they are needed. Nothing is cancelled there, and no balance changes.
    """
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            click.echo(_forgotten(yes) if action == "forget" else _billed(action, event))
    finally:
        storage.close_data()


def _forgotten(yes: bool) -> str:
    known = plans.of_stripe()
    told = ", ".join(f"{many} {what}" for what, many in known.items())
    if not yes:
        raise Invalid(f"That forgets what is known of Stripe: {told}. What is paid there goes on being charged until it is cancelled there. "
                      "If that is what you want: billing forget --yes")
    plans.forget_stripe()
    return f"Forgotten: {told}"


def _billed(action: str, event: str | None) -> str:
    if action == "replay":
        if event is None:
            raise Invalid("Say which: billing replay EVENT; Stripe's dashboard lists them, they begin with evt_")
        return hearing.replay(event)
    if action == "compare":
        many = hearing.compare()
        return f"{many} {'event was' if many == 1 else 'events were'} missed, and {'is' if many == 1 else 'are'} seen to by the running server"
    if wrongs := credits.reconcile():
        raise Problem("The ledger and the balances of credits do not agree:\n" + "\n".join(wrongs))
    return "The ledger and the balances of credits agree"
