"""Credits: what a user has paid ahead for the cost of runs of the tasks they created. A credit is a cent.

Surprise: they are kept in millionths of a dollar, as the cost of runs is: a run may cost less than a cent.
"""
from typing import Any

from orkosi import Struct, across_tenants, db, emit, now, settings, writes

from . import plugin

CENT = 10_000  # micros


class Moved(Struct):
    """A movement of credits, for whoever hears of it."""
    id: int
    tenant_id: int
    user_id: int
    balance_after_micros: int


def balance(user: int) -> int:
    """What a user has, in millionths of a dollar."""
    return db.value("SELECT balance_micros FROM credit_accounts WHERE tenant_id = :tenant AND user_id = :user", user=user) or 0


@writes
def move_credits(user: int, type: str, amount: int, reference: str) -> bool:
    """Add or take credits, once for each reference of a type; whether they moved now. What is not there cannot be taken."""
    if db.value("""SELECT 1 FROM credit_ledger WHERE tenant_id = :tenant AND user_id = :user AND type = :type AND reference_id = :reference""",
                user=user, type=type, reference=reference):
        return False
    moment = now()
    db.run("""INSERT INTO credit_accounts (tenant_id, user_id, balance_micros, updated_at) VALUES (:tenant, :user, 0, :now)
              ON CONFLICT DO NOTHING""", user=user, now=moment)
    db.run("UPDATE credit_accounts SET balance_micros = balance_micros + :amount, updated_at = :now WHERE tenant_id = :tenant AND user_id = :user",
           user=user, amount=amount, now=moment)
    after = balance(user)
    id = db.add("""INSERT INTO credit_ledger (tenant_id, user_id, type, amount_micros, balance_after_micros, reference_id, created_at)
                   VALUES (:tenant, :user, :type, :amount, :after, :reference, :now)""",
                user=user, type=type, amount=amount, after=after, reference=reference, now=moment)
    made = Moved(id or 0, db.value("SELECT :tenant"), user, after)
    if amount < 0:
        emit("credits.consumed", made)
    else:
        emit("credits.credited", made)
    return True


@plugin.on("run.finished")
@plugin.on("run.corrected")
def charge(event: str, run: Any, before: Any = None) -> None:
    """Take what a run cost, and what is told of it later on, from the credits of whoever created its task, as far as they have any; each once."""
    if not settings.credits_charge_runs or run.task_id is None:
        return
    by = db.value("SELECT created_by FROM tasks WHERE tenant_id = :tenant AND id = :task", task=run.task_id) or ""
    cost = db.value("SELECT cost_micros FROM agent_runs WHERE tenant_id = :tenant AND id = :run", run=run.id) or 0
    if not by.startswith("user:") or not by[5:].isdigit() or cost <= 0:
        return
    user, reference = int(by[5:]), f"run_{run.id}"
    moves, taken = db.one(tuple, """
        SELECT count(*), ifnull(-sum(amount_micros), 0) FROM credit_ledger WHERE tenant_id = :tenant AND user_id = :user AND type = 'consume'
           AND (reference_id = :reference OR (reference_id > :reference || ':' AND reference_id < :reference || ';'))""",
                          user=user, reference=reference)
    due = cost - taken if before is None else min(cost - taken, cost - before.cost_micros)
    if (pays := min(due, balance(user))) > 0:
        move_credits(user, "consume", -pays, f"{reference}:{moves}" if moves else reference)


@across_tenants
def reconcile() -> list[str]:
    """What does not agree between the ledger of credits and the accounts, in sentences."""
    kept = {row[:2]: row[2] for row in db.all(tuple, "SELECT tenant_id, user_id, balance_micros FROM credit_accounts")}
    sums = {row[:2]: row[2] for row in db.all(tuple, "SELECT tenant_id, user_id, sum(amount_micros) FROM credit_ledger GROUP BY tenant_id, user_id")}
    return [f"user {user} of tenant {tenant}: the ledger has {sums.get((tenant, user), 0)}, the account {kept.get((tenant, user), 0)}"
            for tenant, user in sorted(kept.keys() | sums.keys()) if kept.get((tenant, user), 0) != sums.get((tenant, user), 0)]
