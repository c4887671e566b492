"""The wire of products: /products."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import asdict

from orkosi import UNSET, Page, Reply, Struct, may
from plugins import products
from plugins.products import Colour, Domain, Long, Name, Product, ProductPatch, ProductQuery, Short, Status, plugin


class NewProduct(Struct, forbid_unknown_fields=True):
    name: Name
    slug: str | None = None
    tagline: Short | None = None
    description: Long | None = None
    status: Status = "building"
    domain: Domain | None = None
    brand_color: Colour | None = None
    accent_color: Colour | None = None


@plugin.get("/api/products", auth=may("viewer", "products:read"))
def index(query: ProductQuery) -> Reply[Page[Product]]:
    """List products, with their brand

    By name. `meta.by_status` counts all products of each status, whatever the filters; `q` looks into name, slug,
    tagline and description."""
    page, by_status = products.page(query)
    return Reply(page, meta={"by_status": by_status})


@plugin.post("/api/products", auth=may("member", "products:write"), status=201, raises=(400, 409))
def create(body: NewProduct) -> Reply[Product]:
    """Add a product

    Without a `slug` one is made of the name. A product of the host gets a folder for its brand."""
    made = products.find(products.create(**asdict(body)).slug)
    return _said(made, {name: value for name, value in asdict(body).items() if value is not None})


@plugin.get("/api/products/{slug}", auth=may("viewer", "products:read"), raises=(404,))
def show(slug: str) -> Product:
    """Get a product with its brand"""
    return products.find(slug)


@plugin.patch("/api/products/{slug}", auth=may("member", "products:write"), raises=(400, 404))
def update(slug: str, body: ProductPatch) -> Reply[Product]:
    """Change a product

    What is not sent stays as it is; null empties a field. The slug never changes. Of the host's products, brand.json follows,
    but for what somebody wrote into it: then `meta.warnings` says so. `meta.cascaded` says what a new status brought:
    `archived` archives the product's open tasks, `live` is an entry of the changelog."""
    _, cascaded = products.change(slug, body)
    return _said(products.find(slug), {name for name in body.__struct_fields__ if getattr(body, name) is not UNSET}, cascaded)


def _said(product: Product, sent: Iterable[str], cascaded: dict[str, int] | None = None) -> Reply[Product]:
    meta: dict[str, Any] = {"cascaded": cascaded} if cascaded else {}
    if warnings := products.kept(product, sent):
        meta["warnings"] = warnings
    return Reply(product, meta=meta or None)
