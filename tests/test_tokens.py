"""Tokens: no amount that is none, no balance below nothing, no movement twice, and runs that are paid."""
import json
import secrets
import threading
import time

import apsw
import pytest
from conftest import Client, command, eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import orkosi
from orkosi import acting, db, system
from plugins import keys, tokens


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, 2**63, 10**9 + 1, "10", None, [1], {"a": 1}])
@pytest.mark.parametrize("path, more", [("/tokens/consume", {"action": "x"}), ("/tokens/grant", {"company_id": 1})])
def test_an_amount_is_a_whole_number_above_nothing(client, amount, path, more):
    client.post("/tokens/grant", {"company_id": 1, "amount": 100})
    refused = client.post(path, {"amount": amount, **more})
    assert refused.status == 400 and refused.wrong == ["amount"] and client.get("/tokens/balance").data["balance"] == 100


@pytest.mark.parametrize("body, field", [
    ({"amount": 1}, "action"), ({"amount": 1, "action": ""}, "action"), ({"amount": 1, "action": " "}, "action"), ({"amount": 1, "action": "a\u0000"}, "NUL"),
    ({"amount": 1, "action": "x", "reference_id": ""}, "reference_id"), ({"amount": 1, "action": "x", "reference_id": "x" * 201}, "reference_id"),
    ({"amount": 1, "action": "x", "metadata": [1]}, "metadata"), ({"amount": 1, "action": "x", "metadata": {"a": "x" * 17_000}}, "metadata"),
    ({"amount": 1, "action": "x", "company_id": "1"}, "company_id"), ({"amount": 1, "action": "x", "price": 1}, "price")])
def test_a_field_that_is_wrong_is_named_and_nothing_moves(client, body, field):
    client.post("/tokens/grant", {"company_id": 1, "amount": 100})
    refused = client.post("/tokens/consume", body)
    assert refused.status == 400 and field in json.dumps(refused.error) and client.get("/tokens/balance").data["balance"] == 100


def test_a_balance_ends_where_numbers_are_exact(client):
    with acting(system()):
        for _ in range(9):
            tokens.credit(10**9, "bonus", "x")
        db.write(lambda: db.run("UPDATE token_accounts SET balance = :most, granted = :most WHERE tenant_id = 1", most=tokens.FULLEST - 1))
    assert client.post("/tokens/grant", {"company_id": 1, "amount": 2}).wrong == ["amount"]
    assert client.post("/tokens/grant", {"company_id": 1, "amount": 1}).data["balance_after"] == tokens.FULLEST


@pytest.mark.parametrize("sql", ["UPDATE token_ledger SET amount = 1", "DELETE FROM token_ledger", "UPDATE token_accounts SET balance = -1",
                                 "UPDATE token_accounts SET balance = balance + 1",
                                 "INSERT INTO token_ledger (tenant_id, type, amount, balance_after, action, actor, created_at) VALUES (1, 'bonus', -1, 1, 'x', 'x', 'x')"])
def test_the_tables_themselves_refuse_what_may_not_be(client, sql):
    client.post("/tokens/grant", {"company_id": 1, "amount": 5})
    with pytest.raises((apsw.ConstraintError, orkosi.Problem)), acting(system()):
        db.write(lambda: db.run(sql))
    assert tokens.reconcile() == [] and client.get("/tokens/balance").data["balance"] == 5


def test_reconcile_names_the_first_row_that_does_not_agree(client):
    for amount in (5, 7, 9):
        client.post("/tokens/grant", {"company_id": 1, "amount": amount})
    for trigger in ("token_ledger_stays", "token_ledger_stays_as_it_is"):
        db.writer.execute(f"DROP TRIGGER {trigger}")
    db.writer.execute("UPDATE token_ledger SET amount = 8 WHERE id = 2")
    assert tokens.reconcile() == ["tenant 1: transaction 2 leaves 13 by the ledger, and says 12"]
    db.writer.execute("UPDATE token_ledger SET amount = 7 WHERE id = 2; DELETE FROM token_ledger WHERE id = 3")
    assert len(tokens.reconcile()) == 1 and "after transaction 2 the ledger has 12" in tokens.reconcile()[0]
    db.writer.execute("DELETE FROM token_accounts")
    assert tokens.reconcile() == ["tenant 1: transaction 1 has no account"]


def test_a_new_tenant_has_the_bonus_that_is_promised(as_, monkeypatch, client):
    monkeypatch.setitem(orkosi.settings.values, "signup_bonus_tokens", 250)
    olga = as_("olga", tenant=None)
    assert olga.get("/tokens/balance").data["balance"] == 250 and olga.get("/tokens/transactions").data[0]["type"] == "signup_bonus"
    monkeypatch.setitem(orkosi.settings.values, "signup_bonus_tokens", 0)
    assert as_("otto", tenant=None).get("/tokens/balance").data["updated_at"] is None and client.get("/tokens/balance").data["balance"] == 0


def test_two_at_once_take_what_there_is_once(client):
    client.post("/tokens/grant", {"company_id": 1, "amount": 10})
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.post("/tokens/consume", {"amount": 7, "action": "x"}).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [402] * 7 and client.get("/tokens/balance").data["balance"] == 3


@pytest.mark.slow
def test_a_kill_between_loses_and_doubles_nothing(server):
    """Eight clients take and are given tokens, the server is killed in the middle of it three times, and each asks again until it is answered."""
    running = server(env={"ORKOSI_TOKENS_CHARGE_RUNS": "off"})
    admin, taken = server.admin(running), []
    assert running.call("POST", "/tokens/grant", {"company_id": 1, "amount": 100_000}, admin)[0] == 201

    def go(client):
        for number in range(25):
            body, status = {"amount": 1 + number, "action": f"c{client}", "reference_id": f"{client}-{number}"}, 0
            while status != 200:
                try:
                    status, _ = company[0].call("POST", "/tokens/consume", body, admin)
                except OSError:
                    time.sleep(0.05)  # a client that asks again, at its pace
            taken.append(body["amount"])

    company = [running]
    threads = [threading.Thread(target=go, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        wanted = len(taken) + 30
        eventually(lambda wanted=wanted: len(taken) >= min(wanted, 190))
        company[0].process.kill()
        company[0].process.wait()
        company[0] = server(folder=running.folder, env={"ORKOSI_TOKENS_CHARGE_RUNS": "off"})
    for thread in threads:
        thread.join(60)
    assert len(taken) == 200 and company[0].call("GET", "/tokens/balance", None, admin)[1]["data"]["balance"] == 100_000 - sum(taken)
    assert company[0].call("GET", "/tokens/transactions?type=consume", None, admin)[1]["meta"]["total"] == 200
    assert "agree" in command("tokens", "reconcile", folder=running.folder).stdout


STEP = st.tuples(st.sampled_from(["consume", "grant"]), st.integers(1, 60), st.sampled_from([None, "a", "b", "c"]))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(st.lists(STEP, min_size=1, max_size=6), min_size=8, max_size=8), broken=st.integers(0, 30))
def test_whatever_eight_threads_do_the_sum_is_the_balance(data, plans, broken):
    """`broken`: the so-manieth write is undone half-way, as a kill does it: an error inside the transaction after its rows were written."""
    with acting(system()):
        before, turn = tokens.balance().balance, secrets.token_hex(8)  # a name of its own, for the ledger goes on from one example to the next
        moved, count, lock = [], iter(range(10_000)), threading.Lock()

        def go(plan):
            for verb, amount, reference in plan:
                reference = reference and f"{turn}{reference}"
                try:
                    with acting(system()):
                        db.write(lambda verb=verb, amount=amount, reference=reference: step(verb, amount, reference))
                except (orkosi.PaymentDue, orkosi.Conflict, KeyboardInterrupt, ZeroDivisionError):
                    pass

        def step(verb, amount, reference):
            if verb == "consume":
                made, again = tokens.consume(amount, "x", reference)
            else:
                made, _again = tokens.credit(amount, "bonus", "x", reference), False
            with lock:
                if next(count) == broken:
                    raise ZeroDivisionError
                moved.append((made.id, made.amount))

        threads = [threading.Thread(target=go, args=(plan,)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tokens.reconcile() == []
        assert tokens.balance().balance == before + sum(dict(moved).values()) >= 0


def test_nobody_takes_the_name_of_a_purchase_a_bonus_or_a_run(client):
    """Who may only consume must not be able to make a later credit fail, or a run go unpaid."""
    client.post("/tokens/grant", {"company_id": 1, "amount": 100})
    for reference in ("pi_1", "signup_bonus"):
        assert client.post("/tokens/consume", {"amount": 1, "action": "x", "reference_id": reference}).status == 200
    with acting(system()):
        assert tokens.credit(500, "purchase", "starter", "pi_1").amount == 500 and tokens.credit(9, "signup_bonus", "sign-up", "signup_bonus").amount == 9
        assert tokens.credit(500, "purchase", "starter", "pi_1").id == tokens.credit(500, "purchase", "starter", "pi_1").id
    refused = client.post("/tokens/consume", {"amount": 1, "action": "x", "reference_id": "run_1"})
    assert refused.wrong == ["reference_id"] and client.get("/tokens/balance").data["balance"] == 100 - 2 + 509 and tokens.reconcile() == []


# ── runs ──


@pytest.fixture
def felix(client, application, monkeypatch):
    """A function that does a run of so many tokens as felix, where runs are charged."""
    monkeypatch.setitem(orkosi.settings.values, "tokens_charge_runs", "on")
    client.post("/agents", {"name": "felix"})
    with acting(system()):
        agent = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])

    def run(tokens_in, tokens_out, status="done"):
        id = agent.post("/agent-runs", {"mode": "task"}).data["id"]
        agent.patch(f"/agent-runs/{id}", {"tokens_in": tokens_in})
        return agent.patch(f"/agent-runs/{id}", {"tokens_out": tokens_out, "status": status}).data
    run.agent = agent
    return run


def test_a_run_takes_what_it_used_once(client, felix):
    client.post("/tokens/grant", {"company_id": 1, "amount": 1000})
    first, second = felix(100, 20), felix(1, 2, "failed")
    assert first["unpaid_tokens"] == second["unpaid_tokens"] == 0 and felix(0, 0)["status"] == "done"
    assert [(one["amount"], one["reference_id"], one["action"], one["metadata"]["run_id"]) for one in client.get("/tokens/transactions?type=consume").data] == [
        (-3, f"run_{second['id']}", "run of felix", second["id"]), (-120, f"run_{first['id']}", "run of felix", first["id"])]
    felix.agent.patch(f"/agent-runs/{first['id']}", {"status": "failed"})
    assert client.get("/tokens/balance").data["balance"] == 877


def test_who_cannot_pay_gets_no_more_work_until_there_is_something_again(client, felix):
    client.post("/tokens/grant", {"company_id": 1, "amount": 100})
    task = client.post("/tasks", {"title": "x", "assignee": "felix"}).data["id"]
    claim = lambda: felix.agent.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data  # noqa: E731
    run = felix(90, 30)
    assert client.get(f"/agent-runs/{run['id']}").data["unpaid_tokens"] == 20 and client.get("/tokens/balance").data["balance"] == 0
    assert claim() is None and "out_of_tokens" in [one["code"] for one in client.get(f"/tasks/{task}").data["why"]]
    client.post("/task-queue/submit", {"task_type": "t", "queue_name": "others"})
    assert client.post("/task-queue/claim", {"queue_name": "others", "worker_id": "w"}).data["task_type"] == "t", "no agent's queue"
    client.post("/tokens/grant", {"company_id": 1, "amount": 1})
    assert claim()["payload"] == {"task_id": task} and tokens.reconcile() == []


def test_what_is_told_after_a_run_is_over_is_charged_as_well(client, felix):
    client.post("/tokens/grant", {"company_id": 1, "amount": 1000})
    id = felix(5, 5)["id"]
    tell = lambda tokens: felix.agent.patch(f"/agent-runs/{id}", {"tokens_in": tokens}).data["unpaid_tokens"]  # noqa: E731
    assert [tell(105), tell(105), tell(50), tell(205)] == [0, 0, 0, 0]
    assert client.get("/tokens/balance").data["balance"] == 790
    assert [(one["amount"], one["reference_id"]) for one in client.get("/tokens/transactions?type=consume").data] == [
        (-100, f"run_{id}:2"), (-100, f"run_{id}:1"), (-10, f"run_{id}")]
    assert tell(1005) == 10 and client.get("/tokens/balance").data["balance"] == 0 and tokens.out_of_tokens("agent:felix")
    assert tell(1005) == 10 and tell(1010) == 15
    assert client.post("/tokens/consume", {"amount": 1, "action": "x", "reference_id": f"run_{id}:9"}).status == 400


def test_a_full_share_stops_neither_runs_nor_what_was_paid_for(as_, application, monkeypatch):
    monkeypatch.setitem(orkosi.settings.values, "tokens_charge_runs", "on")
    far = as_("far", tenant=None)
    home = far.get("/tokens/balance").data["company_id"]
    far.post("/agents", {"name": "nina"})
    with acting(system(home)):
        agent = Client(application, keys.issue(home, "nina", keys.AGENT_SCOPES, agent="nina")[1])
        monkeypatch.setitem(orkosi.settings.values, "tenant_bytes", 1)
        tokens.credit(100, "purchase", "package", "pi_1", {"package": "x"})
    id = agent.post("/agent-runs", {"mode": "task"}).data["id"]
    assert agent.patch(f"/agent-runs/{id}", {"tokens_in": 30, "status": "done"}).data["status"] == "done"
    assert far.get("/tokens/balance").data["balance"] == 70
    assert far.post("/tokens/consume", {"amount": 1, "action": "x"}).status in (200, 201)
    assert far.post("/tokens/consume", {"amount": 1, "action": "x", "metadata": {"a": 1}}).status == 507 and far.get("/tokens/balance").data["balance"] == 69


@pytest.mark.parametrize("setting, bought, charged", [("auto", False, False), ("auto", True, False), ("off", True, False)])
def test_the_host_is_charged_only_where_it_is_said(client, felix, monkeypatch, setting, bought, charged):
    monkeypatch.setitem(orkosi.settings.values, "tokens_charge_runs", setting)
    with acting(system()):
        tokens.credit(100, "purchase" if bought else "bonus", "x")
    felix(5, 5)
    assert client.get("/tokens/balance").data["balance"] == (90 if charged else 100)


def test_another_tenant_is_charged_once_it_bought_some(client, as_, felix, monkeypatch):
    monkeypatch.setitem(orkosi.settings.values, "tokens_charge_runs", "auto")
    olga = as_("olga", tenant=None)
    home = olga.get("/tokens/balance").data["company_id"]
    with acting(system(home)):
        tokens.credit(100, "bonus", "x")
        assert not tokens.charges_runs()
        tokens.credit(100, "purchase", "x")
        assert tokens.charges_runs()


# ── the command ──


@pytest.mark.slow
def test_the_command_grants_and_proves(tmp_path):
    command("user", "add", "root@example.com", "--password-stdin", folder=tmp_path, stdin="correct horse battery")
    said = command("tokens", "grant", "1", "500", "--type", "bonus", "--note", "hello", folder=tmp_path).stdout
    assert "tenant 1 has 500 tokens now" in said and "of 1 tenant agree" in command("tokens", "reconcile", folder=tmp_path).stdout
    con = apsw.Connection(str(tmp_path / "orkosi.db"))
    con.execute("DROP TRIGGER token_ledger_stays_as_it_is; UPDATE token_ledger SET amount = 499")
    con.close()
    for arguments, words in ((("reconcile",), "transaction 1 leaves 499"), (("grant", "99", "5"), "no tenant 99"), (("grant",), "Say to whom")):
        failed = command("tokens", *arguments, folder=tmp_path, check=False)
        assert failed.returncode and words in failed.stderr
