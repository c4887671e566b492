"""Products: slugs, the brand's folder, and what a list says of them."""
import json
import os
import shutil
import threading
from urllib.parse import quote

import pytest
from conftest import eventually

from plugins import products
from plugins.products import guidelines
from plugins.tasks import of_product

NEW = {"name": "My Product"}


@pytest.mark.parametrize("body, status", [
    (NEW, 201),
    (NEW | {"slug": "mine", "tagline": "t", "description": "d", "status": "idea", "domain": "example.com"}, 201),
    *((NEW | {"status": status}, 201) for status in products.STATUSES),
    (NEW | {"brand_color": "#00ffAA", "accent_color": None}, 201),
    (NEW | {"brand_color": "red"}, 400),
    (NEW | {"brand_color": "#00ffaa\n"}, 400),
    (NEW | {"status": "done"}, 400),
    (NEW | {"slug": "Mine"}, 400),
    (NEW | {"slug": "a--b"}, 400),
    (NEW | {"slug": "../x"}, 400),
    (NEW | {"slug": "x\n"}, 400),
    (NEW | {"slug": ""}, 400),
    (NEW | {"domain": "https://example.com"}, 400),
    (NEW | {"colour": "#000000"}, 400),
    ({"name": ""}, 400),
    ({"name": "   "}, 400),
    ({"name": "A\nB"}, 201),
    ({"name": "日本"}, 400),
    ({}, 400),
])
def test_adding_a_product(client, body, status):
    assert client.post("/products", body).status == status


@pytest.mark.parametrize("name, slug", [
    ("My Product", "my-product"), ("Über  Straße!", "uber-strasse"), ("--A.B--", "a-b"), ("x" * 100, "x" * 60)])
def test_a_slug_is_made_of_the_name(name, slug):
    assert products.slug_of(name) == slug


def test_a_slug_is_taken_once_in_a_tenant(client, as_):
    assert client.post("/products", NEW).status == 201
    assert client.post("/products", NEW | {"slug": "my-product"}).status == 409
    olga = as_("olga", tenant=None)
    assert olga.get("/products/my-product").status == 404
    assert olga.patch("/products/my-product", {"name": "x"}).status == 404
    assert olga.post("/products", NEW).status == 201


@pytest.mark.parametrize("body, status", [
    ({}, 200),
    ({"name": "Other", "status": "live", "tagline": None, "brand_color": "#123456"}, 200),
    ({"status": "gone"}, 400),
    ({"name": None}, 400),
    ({"name": ""}, 400),
    ({"slug": "other"}, 400),
    ({"accent_color": "#12345"}, 400),
])
def test_changing_a_product(client, body, status):
    client.post("/products", NEW | {"tagline": "t"})
    answer = client.patch("/products/my-product", body)
    assert answer.status == status
    assert client.patch("/products/none", body).status == (404 if status == 200 else 400)
    if status == 200:
        assert {key: answer.data[key] for key in body} == body


def test_a_product_of_the_host_has_a_brand_folder(client, data):
    made = client.post("/products", NEW | {"tagline": "Sends"}).data
    assert made["brand"] == {"name": "My Product", "slug": "my-product", "tagline": "Sends", "status": "building"}
    file = data / "products/my-product/brand.json"
    assert (file.parent / "brand.md").read_text().startswith("# My Product\n\nSends")
    file.write_text(json.dumps({"voice": "calm", "name": "My Product", "status": "mine"}))
    (file.parent / "brand.md").write_text("Mine")
    assert client.get("/products/my-product").data["brand"]["voice"] == "calm"
    assert client.patch("/products/my-product", {"name": "New"}).json.get("meta") is None
    brand = client.get("/products").data[0]["brand"]
    assert (brand, (file.parent / "brand.md").read_text()) == ({"voice": "calm", "name": "New", "status": "mine"}, "Mine")


def test_what_somebody_wrote_into_a_brand_is_never_written_over(client, data):
    client.post("/products", NEW | {"tagline": "Sends", "domain": "a.example"})
    file = data / "products/my-product/brand.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"tagline": "By hand", "description": "Only here", "brand_color": "#abcdef", "accent_color": "loud"}))
    answer = client.patch("/products/my-product", {"tagline": "By API", "domain": "b.example"})
    assert answer.meta == {"warnings": ["tagline: brand.json says 'By hand', which somebody wrote there; it was left as it is"]}
    kept = json.loads(file.read_text())
    assert kept == told | {"tagline": "By hand", "domain": "b.example", "description": "Only here", "brand_color": "#abcdef", "accent_color": "loud"}
    shown = answer.data
    assert (shown["tagline"], shown["description"], shown["brand_color"], shown["accent_color"]) == ("By API", "Only here", "#abcdef", None), shown
    assert client.get("/products").data == [client.get("/products/my-product").data] == [shown]
    assert client.patch("/products/my-product", {"domain": None}).data["domain"] is None and "domain" not in json.loads(file.read_text())
    for broken in ('{"tagline": "half', "[1]"):
        file.write_text(broken)
        assert client.patch("/products/my-product", {"name": "New", "status": "idea"}).status == 200 and file.read_text() == broken


@pytest.mark.parametrize("text, after", [
    ("# My Product\n\nSends\n\n## Voice\ncalm\n", "# New\n\nSends fast\n\n## Voice\ncalm\n"),
    ("# Ours\n\nSends\n\n## Voice\n", "# Ours\n\nSends fast\n\n## Voice\n"),
    ("# My Product\n\nOur own words\n", "# New\n\nOur own words\n"),
    ("Sends\n", "Sends\n"),
    ("", ""),
])
def test_the_brand_text_follows_where_nobody_changed_it(client, data, text, after):
    client.post("/products", NEW | {"tagline": "Sends"})
    (data / "products/my-product/brand.md").write_text(text)
    client.patch("/products/my-product", {"name": "New", "tagline": "Sends fast"})
    assert (data / "products/my-product/brand.md").read_text() == after


def test_another_tenants_product_has_its_facts_and_no_folder(as_, data):
    olga = as_("olga", tenant=None)
    assert olga.post("/products", NEW | {"domain": "a.example"}).data["brand"] == {
        "name": "My Product", "slug": "my-product", "status": "building", "domain": "a.example"}
    assert "domain" not in olga.patch("/products/my-product", {"domain": None}).data["brand"]
    assert not (data / "products").exists()


def test_of_changes_at_once_the_files_have_the_last(client, data):
    client.post("/products", NEW | {"tagline": "t"})
    threads = [threading.Thread(target=lambda one=one: [client.patch("/products/my-product", {"tagline": f"t{one}-{turn}"}) for turn in range(8)]) for one in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = client.get("/products/my-product").data["tagline"]
    folder = data / "products/my-product"
    assert json.loads((folder / "brand.json").read_text())["tagline"] == row and (folder / "brand.md").read_text().startswith(f"# My Product\n\n{row}\n")
    assert "meta" not in client.patch("/products/my-product", {"tagline": "final"}).json and json.loads((folder / "brand.json").read_text())["tagline"] == "final"


@pytest.mark.parametrize("broken", ["{oops", "", "[]"])
def test_a_file_that_cannot_be_read_is_said_and_followed_again_once_it_is_mended(client, data, broken):
    client.post("/products", NEW | {"tagline": "one"})
    file = data / "products/my-product/brand.json"
    fine = file.read_text()
    file.write_text(broken)
    said = client.patch("/products/my-product", {"tagline": "two"}).meta["warnings"]
    assert len(said) == 1 and "cannot be read" in said[0] and file.read_text() == broken
    file.write_text(fine)
    assert "meta" not in client.patch("/products/my-product", {"tagline": "three"}).json and json.loads(file.read_text())["tagline"] == "three"
    file.unlink()
    client.patch("/products/my-product", {"status": "idea"})
    assert json.loads(file.read_text()) == {"name": "My Product", "slug": "my-product", "tagline": "three", "status": "idea"}


# ── what a new status brings ──


def test_an_archived_product_takes_its_open_tasks_along(client, key_for, as_):
    client.post("/products", NEW), client.post("/agents", {"name": "felix"})
    make = lambda title, **more: client.post("/tasks", {"title": title, "product_slug": "my-product", "assignee": "felix"} | more).data["id"]  # noqa: E731
    running, waiting, done, other = make("a"), make("b", status="blocked"), make("c", status="done"), make("d", product_slug="else")
    after = make("e", product_slug=None, blocked_by=[running])
    job = client.post("/task-queue/claim", {"queue_name": "agent:felix", "worker_id": "w"}).data
    assert job["payload"] == {"task_id": running}
    refused = client.patch("/products/my-product", {"status": "archived", "name": ""})
    assert refused.status == 400 and client.get(f"/tasks/{running}").data["status"] == "in_progress"
    answer = key_for("products:write").patch("/products/my-product", {"status": "archived"})
    assert answer.meta["cascaded"] == {"archived_tasks": 2, "changelog_entries": 0}
    assert [client.get(f"/tasks/{id}").data["status"] for id in (running, waiting, done, other, after)] == ["archived", "archived", "done", "todo", "todo"]
    assert client.get(f"/task-queue/{job['id']}").data["status"] == "cancelled"
    assert client.get(f"/tasks/{running}").data["finished_at"] and client.get(f"/tasks/{after}").data["why"][0]["code"] != "waits_for_task"
    assert client.get("/activity-log?action=task.archived").meta["total"] == 2
    assert client.patch("/products/my-product", {"status": "archived"}).json.get("meta") is None, "the second time, nothing changes"


def test_a_product_that_goes_live_is_in_the_changelog(client):
    client.post("/products", NEW | {"tagline": "Sends"})
    assert client.patch("/products/my-product", {"status": "live"}).meta == {"cascaded": {"archived_tasks": 0, "changelog_entries": 1}}
    entry, = client.get("/changelog").data
    assert (entry["title"], entry["summary"], entry["type"], entry["product"], entry["task_id"]) == ("My Product is live", "Sends", "launch", "my-product", None)
    assert client.patch("/products/my-product", {"status": "live"}).json.get("meta") is None and client.get("/changelog").meta["total"] == 1
    assert client.patch("/products/my-product", {"status": "building"}).json.get("meta") is None
    client.patch("/products/my-product", {"status": "live"})
    guids = [one["guid"] for one in client.get("/changelog").data]
    assert len(set(guids)) == 2 and all(guid.startswith("orkosi-product-my-product-") for guid in guids)


# ── guidelines ──


@pytest.fixture
def laid(client, data):
    """What brings the copies of the guidelines up to date, for felix with an open task of `my-product`: the folder of his copies."""
    client.post("/products", NEW), client.post("/agents", {"name": "felix"}), client.post("/agents", {"name": "ada"})
    client.post("/tasks", {"title": "x", "product_slug": "my-product", "assignee": "felix"})
    client.post("/tasks", {"title": "y", "product_slug": "../../keys", "assignee": "felix"})
    (data / "products/my-product/style.md").write_text("one")
    (data / "products/my-product/notes.txt").write_text("not a guideline")

    def lay():
        for agent, slug in of_product.at_work():
            guidelines.lay(data, agent, slug)
        return data / "agents/felix/workspace/guidelines/my-product"
    return lay


def seen(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if not file.name.startswith(".")}


def test_guidelines_are_copied_to_whoever_works_on_the_product(client, data, laid):
    source, copies = data / "products/my-product", laid()
    brand = (source / "brand.md").read_text()
    assert seen(copies) == {"style.md": "one", "brand.md": brand} and [file.name for file in copies.parent.iterdir()] == ["my-product"]
    assert not (data / "agents/ada/workspace/guidelines").exists()
    (source / "style.md").write_text("two")
    assert seen(laid())["style.md"] == "two"
    (copies / "style.md").write_text("felix's own")
    assert seen(laid()) == {"style.md": "felix's own", "brand.md": brand}, "it stays until the guideline changes"
    (source / "style.md").write_text("three")
    assert seen(laid()) == {"style.md": "three", "style.md.mine": "felix's own", "brand.md": brand}
    (copies / "style.md").write_text("again"), (source / "style.md").write_text("four")
    assert seen(laid()) == {"style.md": "four", "style.md.mine": "felix's own", "style.md.mine.2": "again", "brand.md": brand}
    (copies / "style.md").unlink()
    assert seen(laid())["style.md"] == "four", "a copy that is gone is laid again"
    (source / "style.md").unlink(), (source / "brand.md").unlink()
    (copies / "brand.md").write_text("kept")
    assert set(seen(laid())) == {"style.md.mine", "style.md.mine.2", "brand.md"}


def test_no_copy_leaves_the_workspace_and_no_secret_enters_it(client, data, laid, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    (data / "products/my-product/link.md").symlink_to(outside / "secret.md")
    os.mkfifo(data / "products/my-product/pipe.md")
    (data / "products/my-product/huge.md").write_text("x" * (guidelines.LARGEST + 1))
    copies = laid()
    assert set(seen(copies)) == {"style.md", "brand.md"}
    (copies / "style.md").unlink(), (copies / "style.md").symlink_to(outside / "secret.md")
    (copies / "brand.md").unlink(), os.mkfifo(copies / "brand.md")
    (data / "products/my-product/style.md").write_text("two"), (data / "products/my-product/brand.md").write_text("two")
    laid()
    assert (outside / "secret.md").read_text() == "secret" and (copies / "style.md").read_text() == (copies / "brand.md").read_text() == "two"
    (copies / ".laid.json").write_text('["nonsense"')
    laid()
    shutil.rmtree(copies.parent)
    copies.parent.symlink_to(outside)
    laid()
    assert [file.name for file in outside.iterdir()] == ["secret.md"], "no folder is made through a link"


@pytest.mark.slow
def test_a_guideline_reaches_the_workspace_by_itself(server):
    running = server()
    admin = server.admin(running)
    running.call("POST", "/products", {"name": "Shop"}, admin), running.call("POST", "/agents", {"name": "felix"}, admin)
    running.call("POST", "/tasks", {"title": "x", "product_slug": "shop", "assignee": "felix"}, admin)
    copy = running.folder / "agents/felix/workspace/guidelines/shop/style.md"
    (running.folder / "products/shop/style.md").write_text("one")
    assert eventually(lambda: copy.exists() and copy.read_text() == "one")
    (running.folder / "products/shop/style.md").write_text("two")
    assert eventually(lambda: copy.read_text() == "two")


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "{" + " " * 70_000 + "}"])
def test_a_broken_brand_file_costs_the_brand_alone(client, data, content):
    client.post("/products", NEW)
    (data / "products/my-product/brand.json").write_text(content)
    assert client.get("/products/my-product").data["brand"] == {}


def test_no_link_is_followed(client, data, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "brand.json").write_text('{"secret": 1}')
    (data / "products").mkdir()
    (data / "products/my-product").symlink_to(outside)
    assert client.post("/products", NEW).data["brand"] == {}
    assert [file.name for file in outside.iterdir()] == ["brand.json"]
    client.post("/products", {"name": "Two"})
    (data / "products/two/brand.json").unlink()
    (data / "products/two/brand.json").symlink_to(outside / "brand.json")
    assert client.get("/products/two").data["brand"] == {}
    client.patch("/products/two", {"name": "Three"})
    assert (outside / "brand.json").read_text() == '{"secret": 1}'


def test_the_list_is_by_name_and_narrows(client):
    for name, status in [("beta", "live"), ("Alpha", "live"), ("gamma", "archived"), ("100%", "idea")]:
        client.post("/products", {"name": name, "status": status, "tagline": f"the {name}"})
    found = client.get("/products")
    assert [one["name"] for one in found.data] == ["100%", "Alpha", "beta", "gamma"]
    assert (found.meta["total"], found.meta["by_status"]["live"], found.meta["by_status"]["building"]) == (4, 2, 0)
    for query, count in [("status=live", 2), ("status=live,archived", 3), ("status=", 4), ("slug=alpha", 1), ("q=ALPH", 1), ("q=the", 4),
                         ("q=%25", 1), ("q=_", 0), ("q=the&status=idea", 1), ("limit=1", 1)]:
        assert len(client.get(f"/products?{query}").data) == count, query
    for query in ("status=done", "limit=0", "name=x"):
        assert client.get(f"/products?{query}").status == 400, query


@pytest.mark.parametrize("role, scopes, reading, writing", [
    ("viewer", None, 200, 403), ("member", None, 200, 201), ("demo", None, 403, 403),
    (None, ("products:read",), 200, 403), (None, ("products:read", "products:write"), 200, 201), (None, ("tasks:read",), 403, 403)])
def test_who_may_do_what(as_, key_for, role, scopes, reading, writing):
    ann = as_("ann", role) if role else key_for(*scopes)
    assert (ann.get("/products").status, ann.post("/products", NEW).status) == (reading, writing)


def test_a_search_folds_case_in_every_script(client):
    client.post("/products", {"name": "Über Straße", "tagline": "ПРИВЕТ", "description": "Ελλάδα"})
    for q in ("ÜBER", "über", "STRASSE", "привет", "ΕΛΛΆΔΑ"):
        assert [one["slug"] for one in client.get(f"/products?q={quote(q)}").data] == ["uber-strasse"], q
    client.patch("/products/uber-strasse", {"tagline": "Пока"})
    assert client.get(f"/products?q={quote('привет')}").data == [] and client.get(f"/products?q={quote('ПОКА')}").meta["total"] == 1


def test_the_search_over_everything_finds_products(client):
    client.post("/products", NEW)
    assert [hit.id for hit in products.hits("prod", 5)] == ["my-product"]
    assert products.hits(" ", 5) == []
