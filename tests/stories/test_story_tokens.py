"""Stories of tokens: what a tenant has, what moved, and what was taken for what."""
import pytest
from conftest import Client, Like, listed

from orkosi import acting, system
from plugins import keys, tokens


@pytest.fixture
def elsewhere(as_):
    """Olga, who founded another tenant, and the number of that tenant."""
    olga = as_("olga", tenant=None)
    olga.home = olga.get("/tokens/balance").data["company_id"]
    return olga


@pytest.fixture
def moves(client, elsewhere):
    """Movements of every type in the host tenant, newest first, as they must be shown; and two in another tenant."""
    plan = [("bonus", 500, "hello", None, None), ("signup_bonus", 70, "sign-up", "signup_bonus", None), ("admin_grant", 30, "gift", None, {"by": "root"}),
            ("purchase", 1000, "starter", "pi_1", None), ("refund", 5, "sorry", None, None), ("consume", 400, "run of felix", "run_1", {"a": [1, None, "é"]}),
            ("consume", 1, "chat", None, None)]
    rows, total = [], 0
    with acting(system()):
        for type, amount, action, reference, told in plan:
            (tokens.consume if type == "consume" else lambda *more, type=type: tokens.credit(more[0], type, *more[1:]))(amount, action, reference, told)
            total += -amount if type == "consume" else amount
            rows.insert(0, {"id": len(rows) + 1, "type": type, "amount": -amount if type == "consume" else amount, "balance_after": total, "action": action,
                            "reference_id": reference, "metadata": told, "actor": "system"})
    with acting(system(elsewhere.home)):
        tokens.credit(9, "bonus", "theirs"), tokens.consume(2, "theirs")
    return rows


@pytest.mark.story("GET /api/tokens/balance")
def test_the_balance_is_the_sum_of_what_moved(lately, client, moves, elsewhere):
    has = {"company_id": 1, "balance": 1204, "granted": 605, "purchased": 1000, "consumed": 401, "updated_at": lately}
    assert sum(one["amount"] for one in moves) == 1204
    assert client.get("/tokens/balance").json == client.get("/tokens/balance?company_id=1").json == {"data": has}
    theirs = {"company_id": elsewhere.home, "balance": 7, "granted": 9, "purchased": 0, "consumed": 2, "updated_at": lately}
    assert elsewhere.get("/tokens/balance").data == client.get(f"/tokens/balance?company_id={elsewhere.home}").data == theirs
    assert elsewhere.get("/tokens/balance?company_id=1").status == client.get("/tokens/balance?company_id=99").status == 404


@pytest.mark.story("GET /api/tokens/balance")
def test_a_tenant_where_nothing_moved_has_nothing(client):
    assert client.get("/tokens/balance").json == {"data": {"company_id": 1, "balance": 0, "granted": 0, "purchased": 0, "consumed": 0, "updated_at": None}}
    assert listed(client, "/tokens/transactions", [])


@pytest.mark.story("GET /api/tokens/transactions")
def test_movements_are_listed_newest_first(lately, client, moves, elsewhere):
    moves = [one | {"created_at": lately} for one in moves]
    assert listed(client, "/tokens/transactions", moves)
    for type in ("consume", "purchase", "bonus", "signup_bonus", "admin_grant", "refund"):
        assert listed(client, f"/tokens/transactions?type={type}", [one for one in moves if one["type"] == type])
    assert [one["amount"] for one in client.get(f"/tokens/transactions?company_id={elsewhere.home}").data] == [-2, 9]
    assert [one["amount"] for one in elsewhere.get("/tokens/transactions?type=bonus").data] == [9]
    assert client.get("/tokens/transactions?company_id=1&type=refund").data == [moves[2]]


@pytest.mark.story("POST /api/tokens/consume")
def test_tokens_are_taken_once_for_each_reference(client, lately):
    me = client.get("/auth/me").data["id"]
    client.post("/tokens/grant", {"company_id": 1, "amount": 100})
    body = {"amount": 60, "action": "chat", "reference_id": "r1", "metadata": {"model": "opus", "deep": [{"x": None}]}}
    made = client.post("/tokens/consume", body)
    row = {"id": 2, "type": "consume", "amount": -60, "balance_after": 40, "action": "chat", "reference_id": "r1", "metadata": body["metadata"],
           "actor": f"user:{me}", "created_at": lately}
    assert (made.status, made.json) == (200, {"data": {"transaction": row, "balance": 40}})
    assert client.post("/tokens/consume", body).json == {"data": {"transaction": row, "balance": 40}, "meta": {"duplicate": True, "message": Like(".*answered.*")}}
    for other in ({"amount": 61}, {"action": "other"}):
        assert client.post("/tokens/consume", body | other).status == 409
    short = client.post("/tokens/consume", {"amount": 41, "action": "chat", "reference_id": "r2"})
    assert (short.status, short.code, short.error["details"]) == (402, "payment_required", {"needed": 41, "balance": 40, "missing": 1})
    bare = client.post("/tokens/consume", {"amount": 40, "action": "all of it", "reference_id": "r2"}).data
    assert (bare["balance"], bare["transaction"]["metadata"], bare["transaction"]["balance_after"]) == (0, None, 0)
    assert [one["id"] for one in client.get("/tokens/transactions").data] == [3, 2, 1] and tokens.reconcile() == []


@pytest.mark.story("POST /api/tokens/consume")
def test_whose_tokens_are_taken(client, elsewhere, application):
    for home in (1, elsewhere.home):
        client.post("/tokens/grant", {"company_id": home, "amount": 100})
    left = lambda: [client.get(f"/tokens/balance?company_id={home}").data["balance"] for home in (1, elsewhere.home)]  # noqa: E731
    assert client.post("/tokens/consume", {"amount": 1, "action": "x", "company_id": elsewhere.home}).data["balance"] == 99 and left() == [100, 99]
    assert elsewhere.post("/tokens/consume", {"amount": 9, "action": "x"}).data["balance"] == 90
    assert elsewhere.post("/tokens/consume", {"amount": 9, "action": "x", "company_id": 1}).status == 404 and left() == [100, 90]
    with acting(system()):
        felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert felix.post("/tokens/consume", {"amount": 10, "action": "think"}).data["transaction"]["actor"] == "agent:felix"
    assert [one["action"] for one in felix.get("/tokens/transactions").data] == ["think"] and client.get("/tokens/transactions").meta["total"] == 2
    assert felix.get("/tokens/balance").data["balance"] == 90


@pytest.mark.story("POST /api/tokens/grant")
def test_a_grant_adds_what_it_says(client, elsewhere, lately, as_):
    me, home = client.get("/auth/me").data["id"], elsewhere.home
    made = client.post("/tokens/grant", {"company_id": home, "amount": 50, "type": "bonus", "note": "for a good start", "reference_id": "b1"})
    row = {"id": 1, "type": "bonus", "amount": 50, "balance_after": 50, "action": "for a good start", "reference_id": "b1", "metadata": None,
           "actor": f"user:{me}", "created_at": lately}
    assert (made.status, made.json) == (201, {"data": row})
    assert client.post("/tokens/grant", {"company_id": home, "amount": 50, "type": "bonus", "note": "for a good start", "reference_id": "b1"}).data == row
    assert client.post("/tokens/grant", {"company_id": home, "amount": 51, "type": "bonus", "note": "for a good start", "reference_id": "b1"}).status == 409
    bare = client.post("/tokens/grant", {"company_id": home, "amount": 1}).data
    assert bare == row | {"id": 2, "type": "admin_grant", "amount": 1, "balance_after": 51, "action": "granted", "reference_id": None}
    assert elsewhere.get("/tokens/transactions").data == [bare, row] and client.get("/tokens/balance").data["balance"] == 0
    assert client.post("/tokens/grant", {"company_id": 99, "amount": 1}).status == 404
    assert [who.post("/tokens/grant", {"company_id": home, "amount": 1}).status for who in (elsewhere, as_("ed", "editor"))] == [403, 403]
    assert client.post("/tokens/grant", {"company_id": home, "amount": 1, "type": "purchase"}).status == 400
