"""The commands of tokens; they work beside a running server and without one."""
from pathlib import Path

import click

from orkosi import DATA, Invalid, Problem, acting, db, settings, system
from plugins import storage, tokens
from plugins.tokens import LARGEST, Grant, plugin


@plugin.command("tokens")
@click.argument("action", type=click.Choice(["grant", "reconcile"]))
@click.argument("tenant", type=int, required=False)
@click.argument("amount", type=click.IntRange(1, LARGEST), required=False)
@click.option("--type", "type_", type=click.Choice(["bonus", "admin_grant", "refund"]), default="admin_grant", help="grant: what it is")
@click.option("--note", default="granted", help="grant: what it is for")
@DATA
def command(action: str, tenant: int | None, amount: int | None, type_: Grant, note: str, data: Path | None) -> None:
    """Grant tokens to a tenant, `tokens grant TENANT AMOUNT`, or prove that ledger and balances agree: `tokens reconcile`."""
    settings.load(data=data)
    storage.must_be_there()
    storage.open_data()
    try:
        with acting(system()):
            click.echo(_reconciled() if action == "reconcile" else _granted(tenant, amount, type_, note))
    finally:
        storage.close_data()


def _granted(tenant: int | None, amount: int | None, type: Grant, note: str) -> str:
    if tenant is None or amount is None:
        raise Invalid("Say to whom and how many: tokens grant TENANT AMOUNT")
    if not db.value("SELECT 1 FROM tenants WHERE id = :id", id=tenant):
        raise Invalid(f"There is no tenant {tenant}; `user list` shows everybody's")
    with acting(system(tenant)):
        made = tokens.credit(amount, type, note)
    return f"Transaction {made.id}: tenant {tenant} has {made.balance_after} tokens now"


def _reconciled() -> str:
    if wrongs := tokens.reconcile():
        raise Problem("The ledger and the balances do not agree:\n" + "\n".join(wrongs))
    count = tokens.accounts()
    return f"The ledger and the balances of {count} {'tenant' if count == 1 else 'tenants'} agree"
