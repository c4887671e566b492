"""The wire of tokens: /tokens."""
from typing import Annotated, Any

from orkosi import Meta, Page, Reply, Struct, acting, may
from plugins import tenants, tokens
from plugins.fields import line, wrong
from plugins.tokens import Amount, Balance, Grant, Transaction, TransactionQuery, plugin

SAME = {"duplicate": True, "message": "This reference_id was consumed for before, and that is answered; nothing was consumed again"}

Action = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
Reference = Annotated[str, Meta(min_length=1, max_length=200)]


class BalanceQuery(Struct, forbid_unknown_fields=True):
    company_id: int | None = None


class Consumption(Struct, forbid_unknown_fields=True):
    amount: Amount
    action: Action
    company_id: int | None = None
    reference_id: Reference | None = None
    metadata: dict[str, Any] | None = None


class NewGrant(Struct, forbid_unknown_fields=True):
    company_id: int
    amount: Amount
    type: Grant = "admin_grant"
    note: Annotated[str, Meta(min_length=1, max_length=200)] = "granted"
    reference_id: Reference | None = None


class Consumed(Struct):
    """What a consumption moved, and what is left."""
    transaction: Transaction
    balance: int


@plugin.get("/api/tokens/balance", quick=True, auth=may("member", "tokens:consume"), raises=(404,))
def balance(query: BalanceQuery) -> Balance:
    """How many tokens a tenant has

    One's own; an administrator of the host may ask for any."""
    with acting(tenants.asked_for(query.company_id)):
        return tokens.balance()


@plugin.get("/api/tokens/transactions", quick=True, auth=may("member", "tokens:consume"), raises=(404,))
def transactions(query: TransactionQuery) -> Page[Transaction]:
    """List a tenant's movements of tokens

    Newest first. An agent's key sees those of its agent."""
    with acting(tenants.asked_for(query.company_id)):
        return tokens.page(query)


@plugin.post("/api/tokens/consume", quick=True, auth=may("member", "tokens:consume"), raises=(400, 402, 404, 409))
def consume(body: Consumption) -> Reply[Consumed]:
    """Take tokens for an action

    With a `reference_id`, once: sent again it answers the same with `meta.duplicate`, and 409 with another amount or action. Where the
    balance is too small, 402 with what is missing, and nothing moves."""
    if body.reference_id and tokens.OURS.fullmatch(body.reference_id):
        raise wrong("reference_id", "run_<id> is what the server charges runs under; choose another")
    with acting(tenants.asked_for(body.company_id)):
        made, again = tokens.consume(body.amount, line(body.action, "action", 200), body.reference_id, body.metadata)
        return Reply(Consumed(made, tokens.balance().balance), meta=SAME if again else None)


@plugin.post("/api/tokens/grant", auth=may("admin", host=True), status=201, raises=(400, 404, 409))
def grant(body: NewGrant) -> Transaction:
    """Give tokens to a tenant

    `note` is the transaction's action. With a `reference_id`, once."""
    with acting(tenants.asked_for(body.company_id)):
        return tokens.credit(body.amount, body.type, line(body.note, "note", 200), body.reference_id)
