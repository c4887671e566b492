"""Every list of the house is served by an index: no full scan, and no sorting of what was found."""
import itertools
import re
import sys
from urllib.parse import quote

import pytest

import orkosi
from orkosi import db
from plugins import queue, tasks
from plugins.lists import Listing

LISTINGS = {f"{name.removeprefix('plugins.')}.{key}": value for name, module in sorted(sys.modules.items())
            if name.startswith("plugins.") and not name.endswith(".api")
            for key, value in vars(module).items() if isinstance(value, Listing)} if orkosi.load() else {}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_list_is_served_by_an_index(data, name):
    listing = LISTINGS[name]
    alone = [(), *((one,) for one in listing.filters), *itertools.combinations(listing.filters, 2)]
    for given, several in [(given, ()) for given in alone] + [(given, given) for given in alone if given]:
        behind = ["1"] * len(listing.keys[listing.order_for(given)])
        for sql in [sql for after in (None, behind) for sql in listing.sql(given, several, after)[::2]]:
            names = set(re.findall(r":(\w+)", sql)) - {"tenant"}
            plan = [row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + sql, **dict.fromkeys(names, "[1]" if several else "1"))]
            plan = [step for step in plan if not re.match(r"SCAN \(subquery|CO-ROUTINE", step)]  # the page itself, of which the weight is taken
            assert listing.few or not [step for step in plan if "TEMP B-TREE" in step or (step.startswith("SCAN") and "VIRTUAL" not in step)], (given, several, plan)


@pytest.mark.parametrize("name", LISTINGS)
def test_what_a_list_is_sorted_by_is_in_its_rows(name):
    listing = LISTINGS[name]
    for keys in listing.keys.values():
        assert {key.field for key in keys} <= set(listing.of.__struct_fields__), "or else no cursor could be made of the last row"


# ── cursors ──


def walked(client, path, size, between=lambda: None):
    """All of a list, from cursor to cursor; `between` happens after each page."""
    found, after = [], ""
    while after is not None:
        answer = client.get(f"{path}limit={size}{after and '&after='}{after}")
        assert answer.status == 200, answer
        found += [row["id"] for row in answer.data]
        after = answer.meta["next_after"]
        assert (after is not None) is answer.meta["has_more"]
        between()
    return found


def test_whoever_goes_from_cursor_to_cursor_meets_each_row_once(client):
    ids = [client.post("/tasks", {"title": f"Task {n}", "priority": f"P{n % 4}"}).data["id"] for n in range(23)]
    for size in (1, 2, 5, 22, 23, 24):
        assert walked(client, "/tasks?", size) == ids[::-1], size
    assert walked(client, "/tasks?priority=P1,P2&", 3) == [id for n, id in reversed(list(enumerate(ids))) if n % 4 in (1, 2)]
    # What comes and goes meanwhile moves nothing: by offset, rows would be met twice, or not at all.
    fresh = []
    met = walked(client, "/tasks?", 4, lambda: (fresh.append(client.post("/tasks", {"title": f"New {len(fresh)}"}).data["id"]),
                                                client.delete(f"/tasks/{ids[-1 - 2 * len(fresh)]}")))
    assert len(met) == len(set(met)) and not set(met) & set(fresh) and {ids[0], ids[1], ids[3]} <= set(met)


def test_where_few_have_a_status_they_are_walked_and_not_all_of_an_assignee(client, monkeypatch):
    page, ids = tasks.lists.page, [client.post("/tasks", {"title": f"Task {n}", "assignee": "felix"}).data["id"] for n in range(12)]
    for id in ids[::2]:
        assert client.patch(f"/tasks/{id}", {"status": "review"}).status == 200

    def asked():
        walks = []
        with monkeypatch.context() as patch:
            patch.setattr(tasks.lists, "page", lambda listing, *rest, **more: walks.append(listing) or page(listing, *rest, **more))
            answer = client.get("/tasks?status=review&assignee=felix&limit=4")
        return [one["id"] for one in answer.data], answer.meta["next_after"], walks
    few = asked()
    monkeypatch.setattr(tasks, "FEW", 5)
    many = asked()
    assert few == (ids[::2][:1:-1], few[1], [tasks.RARE]) and many == (few[0], few[1], [tasks.TASKS])
    assert [one["id"] for one in client.get(f"/tasks?status=review&assignee=felix&after={few[1]}").data] == ids[2::-2]
    for listing, index in ((tasks.RARE, "idx_tasks_by_status"), (tasks.TASKS, "idx_tasks_by_assignee")):
        rows, _, weight = listing.sql(("status", "assignee"))
        for sql in (rows, weight):
            plan = "; ".join(row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + sql, status="review", assignee="felix", limit=4, offset=0))
            assert f"SEARCH tasks USING INDEX {index} " in plan, plan


def test_jobs_of_a_queue_and_a_type_are_looked_for_in_the_queue(client):
    """Of one type are all that all agents ever did."""
    for n in range(6):
        client.post("/task-queue/submit", {"task_type": f"t{n % 2}", "queue_name": f"q{n % 3}"})
    assert [(one["queue_name"], one["task_type"]) for one in client.get("/task-queue?queue_name=q1&task_type=t0").data] == [("q1", "t0")]
    for sql in queue.seeing.OF_QUEUE.sql(("queue_name", "task_type")):
        plan = "; ".join(row[3] for row in db.all(tuple, "EXPLAIN QUERY PLAN " + sql, queue_name="q1", task_type="t0", limit=4, offset=0))
        assert "idx_jobs_by_queue (tenant_id=? AND queue=?)" in plan, plan


def test_orders_of_several_columns_go_on_where_they_ended(client, application):
    for n in range(11):
        client.post("/task-queue/submit", {"task_type": "t", "queue_name": f"q{n % 3}", "priority": n % 2, "payload": {"n": n}})
        client.post("/task-queue/submit", {"task_type": "t", "queue_name": "later", "delay_seconds": 60 + n % 2, "payload": {"n": n}})
    for path in ("/task-queue?status=waiting&", "/task-queue?status=delayed&", "/task-queue?"):
        whole = [row["id"] for row in client.get(f"{path}limit=200").data]
        assert len(whole) >= 11 and all(walked(client, path, size) == whole for size in (1, 3, 10)), path
    for name in ("b", "C", "a", "B2", "ä"):
        client.post("/products", {"name": name, "slug": f"s-{ord(name[0])}-{len(name)}"})
    whole = [row["id"] for row in client.get("/products").data]
    assert len(whole) == 5 and walked(client, "/products?", 1) == walked(client, "/products?", 2) == whole
    held = [client.post("/tasks", {"title": f"Held {n}", "assignee": "felix", "blocked_by": [client.post("/tasks", {"title": f"First {n}"}).data["id"]]})
            for n in range(3)]
    assert len(held) == 3 and len(walked(client, "/task-queue?status=delayed&", 2)) == 14, "a held job has no time at which it runs"


@pytest.mark.parametrize("after, said", [("x", "no cursor"), ("x.y", "no cursor"), ("é", "no cursor"), ("." * 1999, "no cursor"), ("x" * 2001, "length")])
def test_what_is_no_cursor_is_refused_in_words(client, after, said):
    refused = client.get(f"/tasks?after={quote(after)}")
    assert (refused.status, refused.wrong) == (400, ["after"]) and said in refused.error["message"]


def test_a_cursor_is_good_for_its_own_list_alone(client, application):
    for n in range(3):
        client.post("/tasks", {"title": f"Task {n}"})
        client.post("/task-queue/submit", {"task_type": "t", "payload": {"n": n}})
        client.post("/agents", {"name": f"agent-{n}"})
    after = client.get("/tasks?limit=1").meta["next_after"]
    for path in ("/task-queue?", "/task-queue?status=waiting&", "/agents?", "/products?"):
        refused = client.get(f"{path}after={after}")
        assert (refused.status, refused.wrong) == (400, ["after"]) and "another list" in refused.error["message"], path
    both = client.get(f"/tasks?after={after}&offset=1")
    assert (both.status, both.wrong) == (400, ["after"])
    body, seal = after.split(".")
    for forged in (f"{body}.{seal[::-1]}", f"{body[::-1]}.{seal}", f"{body}.", f"W10.{seal}"):
        assert client.get(f"/tasks?after={forged}").status == 400
    assert walked(client, "/agents?", 2) == [1, 2, 3]
