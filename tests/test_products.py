"""Products: slugs, the brand's folder, and what a list says of them."""
import json

import pytest

from plugins import products

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
    file.write_text(json.dumps({"voice": "calm", "name": "Old"}))
    (file.parent / "brand.md").write_text("Mine")
    assert client.get("/products/my-product").data["brand"]["voice"] == "calm"
    client.patch("/products/my-product", {"name": "New"})
    brand = client.get("/products").data[0]["brand"]
    assert (brand["voice"], brand["name"], (file.parent / "brand.md").read_text()) == ("calm", "New", "Mine")


def test_another_tenants_product_has_none(as_, data):
    olga = as_("olga", tenant=None)
    assert olga.post("/products", NEW).data["brand"] == {}
    assert not (data / "products").exists()


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


def test_the_search_over_everything_finds_products(client):
    client.post("/products", NEW)
    assert [hit.id for hit in products.hits("prod", 5)] == ["my-product"]
    assert products.hits(" ", 5) == []
