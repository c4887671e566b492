"""Tokens: what a tenant may still spend, and a ledger of every movement.

Owns token_accounts and token_ledger. The ledger is append-only, held by triggers; an account's sums are kept in the
transaction of each movement, and a balance below nothing is refused by the table itself. `reconcile` proves that both agree.
Surprise: a movement with a `reference_id` happens once for its type: nobody can take the name of a purchase or a bonus by
consuming under it. Sent again, it answers as it did the first time; with another amount or action it is a Conflict, for then
somebody means something else by it. `run_<id>` is what runs are charged under, and nobody else's.
"""
import re
from typing import Annotated, Any, Literal

from orkosi import (
    HOST_TENANT,
    Conflict,
    Meta,
    Page,
    Paging,
    PaymentDue,
    Plugin,
    Struct,
    across_tenants,
    acting,
    current,
    db,
    emit,
    jsoned,
    now,
    settings,
    system,
    writes,
)
from plugins import lists, queue
from plugins.agents import runs
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.tenants import shares

plugin = Plugin("Tokens", layer="domain", needs=("agents",))
plugin.setting("signup_bonus_tokens", int, 0, "Tokens that a new tenant is given when somebody founds it")
plugin.setting("tokens_charge_runs", str, "auto", "Whether agents' runs are charged to their tenant: on, off, or auto: "
                                                       "those that pay for a plan or bought some")

LARGEST = 10**9          # of one movement
FULLEST = 2**53 - 1      # of a balance: what every JSON reader still counts exactly
METADATA = 16 << 10      # bytes
OURS = re.compile(r"run_\d+(:\d+)?")

Type = Literal["consume", "purchase", "bonus", "signup_bonus", "admin_grant", "refund"]
Grant = Literal["bonus", "admin_grant", "refund"]
Amount = Annotated[int, Meta(ge=1, le=LARGEST, description="1 to 1,000,000,000")]


class Balance(Struct):
    """What a tenant has: `balance` = granted + purchased - consumed."""
    company_id: int
    balance: int
    granted: int
    purchased: int
    consumed: int
    updated_at: str | None


class Transaction(Struct):
    """One movement; `amount` is what it adds, and less than nothing where it takes."""
    id: int
    type: Type
    amount: int
    balance_after: int
    action: str
    reference_id: str | None
    metadata: dict[str, Any] | None
    actor: str
    created_at: str


class TransactionQuery(Paging):
    """What a list of transactions may be narrowed by."""
    company_id: int | None = None
    type: Type | None = None


TRANSACTIONS = Listing(of=Transaction, source="token_ledger", heavy="ifnull(octet_length(metadata), 0)", light=20,
                       filters={"type": "type = :type", "actor": "actor = :actor"})

OPEN = """INSERT INTO token_accounts (tenant_id, balance, granted, purchased, consumed, updated_at)
          VALUES (:tenant, 0, 0, 0, 0, :now) ON CONFLICT DO NOTHING"""
MOVE = """UPDATE token_accounts SET balance = balance + :amount, granted = granted + :granted, purchased = purchased + :purchased,
                 consumed = consumed + :consumed, updated_at = :now,
                 out_since = CASE WHEN :amount > 0 THEN NULL ELSE out_since END WHERE tenant_id = :tenant"""
ENTER = """INSERT INTO token_ledger (tenant_id, type, amount, balance_after, action, reference_id, metadata, actor, created_at)
           VALUES (:tenant, :type, :amount, :after, :action, :reference_id, :metadata, :actor, :now)"""


# ── reading ──


def balance() -> Balance:
    """What the tenant has; nothing where nothing ever moved."""
    found = db.one(Balance, "SELECT *, tenant_id AS company_id FROM token_accounts WHERE tenant_id = :tenant")
    return found or Balance(current().tenant or 0, 0, 0, 0, 0, None)


def page(query: TransactionQuery) -> Page[Transaction]:
    """Movements, newest first; an agent's key sees those of its agent."""
    me = current()
    return lists.page(TRANSACTIONS, query, company_id=None, actor=me.ref if me.kind == "agent" else None)


def _find(id: int | None) -> Transaction:
    found: Transaction = db.one(Transaction, "SELECT * FROM token_ledger WHERE id = :id AND tenant_id = :tenant", id=id)
    return found


# ── moving ──


@writes
def consume(amount: int, action: str, reference_id: str | None = None, metadata: dict[str, Any] | None = None) -> tuple[Transaction, bool]:
    """Take tokens; the transaction, and whether it was there already. PaymentDue with what is missing; then nothing moves. Conflict."""
    there = _repeated(reference_id, "consume", -amount, action)
    if there:
        return there, True
    has = balance().balance
    if has < amount:
        raise PaymentDue(f"This takes {amount} tokens and the balance is {has}: {amount - has} are missing",
                         {"needed": amount, "balance": has, "missing": amount - has})
    if metadata:  # a run that ends, and what was paid for, are noted however full it is
        shares.require(bytes=len(jsoned(metadata)))
    return _move("consume", -amount, action, reference_id, metadata), False


@writes
def credit(amount: int, type: Type, action: str, reference_id: str | None = None, metadata: dict[str, Any] | None = None) -> Transaction:
    """Add tokens; the same `reference_id` adds them once. Conflict, Invalid where the balance would be too large to count."""
    there = _repeated(reference_id, type, amount, action)
    if there:
        return there
    if balance().balance + amount > FULLEST:
        raise wrong("amount", f"A balance ends at {FULLEST}")
    return _move(type, amount, action, reference_id, metadata)


def _repeated(reference_id: str | None, type: str, amount: int, action: str) -> Transaction | None:
    """The movement that has this reference. Conflict where it is another one."""
    if reference_id is None:
        return None
    found: Transaction | None = db.one(Transaction, """SELECT * FROM token_ledger WHERE tenant_id = :tenant AND type = :type
                                                          AND reference_id = :reference""", type=type, reference=reference_id)
    if found and (found.amount, found.action) != (amount, action):
        raise Conflict(f"reference_id: {reference_id!r} stands for another {type}, of {abs(found.amount)} for {found.action!r}; send a new one")
    return found


def _move(type: Type, amount: int, action: str, reference_id: str | None, metadata: dict[str, Any] | None) -> Transaction:
    told = None if metadata is None else jsoned(metadata)
    if told and len(told.encode()) > METADATA:
        raise wrong("metadata", f"At most {METADATA} bytes of JSON")
    moment = now()
    db.run(OPEN, now=moment)
    db.run(MOVE, amount=amount, now=moment, consumed=-amount if amount < 0 else 0, purchased=amount if type == "purchase" else 0,
           granted=amount if amount > 0 and type != "purchase" else 0)
    made = _find(db.add(ENTER, type=type, amount=amount, after=balance().balance, action=action, reference_id=reference_id, metadata=told,
                        actor=current().ref, now=moment))
    emit("tokens.consumed" if amount < 0 else "tokens.credited", made)
    return made


@plugin.on("tenant.founded")
def welcome(event: str, tenant: Any) -> None:
    """A new tenant has the bonus that the settings promise."""
    if settings.signup_bonus_tokens > 0:
        with acting(system(tenant.id)):
            credit(min(settings.signup_bonus_tokens, LARGEST), "signup_bonus", "sign-up", reference_id="signup_bonus")


# ── runs ──


def charges_runs() -> bool:
    """Whether runs of the tenant are charged."""
    if settings.tokens_charge_runs in ("on", "off"):
        return bool(settings.tokens_charge_runs == "on")
    return current().tenant != HOST_TENANT and bool(db.value("""
        SELECT 1 FROM token_accounts WHERE tenant_id = :tenant AND purchased > 0
         UNION ALL SELECT 1 FROM subscriptions WHERE tenant_id = :tenant AND status IN ('active', 'trialing', 'past_due') LIMIT 1"""))


@plugin.on("run.finished")
@plugin.on("run.corrected")
def charge(event: str, run: Any, before: Any = None) -> None:
    """Take what a run used, and what is told of it later on, each once.

    What is not covered stays on the run, and agents get nothing more until there is something again. What was told too high, only an
    administrator gives back.
    """
    used, reference = run.tokens_in + run.tokens_out, f"run_{run.id}"
    if not used or not charges_runs():
        return
    moves, taken = db.one(tuple, """
        SELECT count(*), ifnull(-sum(amount), 0) FROM token_ledger WHERE tenant_id = :tenant AND type = 'consume'
           AND (reference_id = :reference OR (reference_id > :reference || ':' AND reference_id < :reference || ';'))""", reference=reference)
    due = used - taken - run.unpaid_tokens
    if before is not None:
        due = min(due, used - before.tokens_in - before.tokens_out)
    if due <= 0:
        return
    pays = min(due, balance().balance)
    if pays:
        _move("consume", -pays, f"run of {run.agent}", f"{reference}:{moves}" if moves else reference, {"run_id": run.id, "task_id": run.task_id})
    if pays < due:
        db.run(OPEN, now=now())
        db.run("UPDATE token_accounts SET out_since = ifnull(out_since, :now) WHERE tenant_id = :tenant", now=now())
        runs.leave_unpaid(run.id, run.unpaid_tokens + due - pays)


@queue.shuts
def out_of_tokens(name: str) -> bool:
    """Whether an agent gets no work because its tenant has nothing left to pay it with."""
    return name.startswith("agent:") and bool(db.value("SELECT out_since FROM token_accounts WHERE tenant_id = :tenant"))


@queue.explains
def why(jobs: list[queue.Job]) -> list[list[queue.Why]]:
    """Why an agent's work waits for tokens."""
    said = [queue.Why("out_of_tokens", "The last run was not covered by the balance of tokens; buy some, or have an administrator grant some")]
    asked = any(job.queue.startswith("agent:") for job in jobs)
    return [said if job.queue.startswith("agent:") else [] for job in jobs] if asked and out_of_tokens("agent:") else [[] for _ in jobs]


# ── proving ──


@across_tenants
def accounts() -> int:
    """How many tenants ever had a movement."""
    found: int = db.value("SELECT count(*) FROM token_accounts")
    return found


@across_tenants
def reconcile() -> list[str]:
    """What does not agree between the ledger and the accounts, in sentences; each names the first row where it shows."""
    wrongs = []
    for tenant, has, granted, purchased, consumed in db.all(
            tuple, "SELECT tenant_id, balance, granted, purchased, consumed FROM token_accounts ORDER BY tenant_id"):
        sums = {"granted": 0, "purchased": 0, "consumed": 0}
        total = last = 0
        for id, type, amount, after in db.all(tuple, """SELECT id, type, amount, balance_after FROM token_ledger
                                                         WHERE tenant_id = :id ORDER BY id""", id=tenant):
            total += amount
            sums["consumed" if amount < 0 else "purchased" if type == "purchase" else "granted"] += abs(amount)
            last = id
            if total != after:
                wrongs.append(f"tenant {tenant}: transaction {id} leaves {total} by the ledger, and says {after}")
                break
        else:
            if (total, *sums.values()) != (has, granted, purchased, consumed):
                wrongs.append(f"tenant {tenant}: after transaction {last} the ledger has {total} ({sums}), the account {has} "
                              f"(granted {granted}, purchased {purchased}, consumed {consumed})")
    for tenant, id in db.all(tuple, """SELECT tenant_id, min(id) FROM token_ledger
                                       WHERE tenant_id NOT IN (SELECT tenant_id FROM token_accounts) GROUP BY tenant_id"""):
        wrongs.append(f"tenant {tenant}: transaction {id} has no account")
    return wrongs
