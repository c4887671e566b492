"""Stories of products: by name, with their brand, counted by status."""
import json

import pytest
from conftest import listed, put

FULL = {"name": "My Product", "slug": "mine", "tagline": "Sends", "description": "It sends.", "status": "live", "domain": "example.com",
        "brand_color": "#00ffAA", "accent_color": "#3b82f6"}
COUNTS = {"idea": 0, "building": 0, "active": 0, "live": 0, "launched": 0, "placeholder": 0, "archived": 0}


def stored(id, home=1, **fields):
    """A product as it is stored, and as it is shown; it has no folder."""
    shown = {"name": f"Product {id}", "slug": f"p{id}", "tagline": f"tag{id}", "description": f"text{id}", "status": "active", "domain": "example.com",
             "brand_color": "#111111", "accent_color": None, "created_at": "2026-11-02T10:00:00.000Z", "updated_at": "2026-11-03T10:00:00.000Z"} | fields
    put("products", id=id, tenant_id=home, **shown, folded="\n".join(shown[name] for name in ("name", "slug", "tagline", "description") if shown[name]).casefold())
    return {"id": id} | shown | {"brand": {}}


def told(product):
    """What a brand.json says of a product."""
    return {name: product[name] for name in ("name", "slug", "tagline", "status", "domain", "brand_color", "accent_color") if product[name] is not None}


@pytest.mark.story("GET /api/products")
def test_products_are_listed_by_name_and_counted(client, data):
    one, two, three = stored(1, name="beta"), stored(2, name="Alpha", status="idea", tagline="100%"), stored(3, name="Gamma", status="idea", accent_color="#222222")
    stored(4, home=2)
    (data / "products" / "p1").mkdir(parents=True)
    (data / "products" / "p1" / "brand.json").write_text(json.dumps({"voice": "calm"}))
    one["brand"] = {"voice": "calm"}
    counts = {"by_status": COUNTS | {"active": 1, "idea": 2}}
    assert listed(client, "/products", [two, one, three], **counts, default=1000)
    for query, found in [("status=idea", [two, three]), ("status=active,idea", [two, one, three]), ("slug=p3", [three]), ("q=bet", [one]), ("q=100%25", [two]),
                         ("q=text3", [three]), ("q=p1", [one]), ("q=TEXT&status=idea", [two, three]), ("q=nothing", [])]:
        assert listed(client, f"/products?{query}", found, **counts, default=1000)


@pytest.mark.story("POST /api/products", "GET /api/products/{slug}")
def test_a_product_is_what_was_sent_and_its_brand_is_in_its_folder(client, data, lately):
    made = client.post("/products", FULL)
    shown = FULL | {"id": made.data["id"], "created_at": lately, "updated_at": lately, "brand": told(FULL)}
    assert (made.status, made.json) == (201, {"data": shown}) and client.get("/products/mine").json == {"data": shown}
    assert json.loads((data / "products/mine/brand.json").read_text()) == told(FULL)
    bare = client.post("/products", {"name": "Über Product"}).data
    assert bare == dict.fromkeys(FULL) | {"id": made.data["id"] + 1, "name": "Über Product", "slug": "uber-product", "status": "building", "created_at": lately,
                                          "updated_at": lately, "brand": {"name": "Über Product", "slug": "uber-product", "status": "building"}}
    assert client.get("/products/uber-product").data == bare


@pytest.mark.story("GET /api/products/{slug}")
def test_one_product_is_the_one_that_was_asked_for(client):
    one, two = stored(1), stored(2, accent_color="#222222")
    assert client.get("/products/p1").json == {"data": one} and client.get("/products/p2").json == {"data": two}


@pytest.mark.story("PATCH /api/products/{slug}")
@pytest.mark.parametrize("change", [*({name: value} for name, value in FULL.items() if name != "slug"), {"tagline": None, "domain": None}, {},
                                    {name: value for name, value in FULL.items() if name != "slug"}])
def test_what_is_sent_of_a_product_is_changed_and_no_more(client, lately, change):
    before, other = stored(1), stored(2)
    after = client.patch("/products/p1", change)
    now = before | change
    meta = {"meta": {"cascaded": {"archived_tasks": 0, "changelog_entries": 1}}} if "status" in change else {}
    assert after.json == {"data": now | {"brand": told(now), "updated_at": lately if change else after.data["updated_at"]}} | meta
    assert client.get("/products/p1").data == after.data and client.get("/products/p2").data == other
