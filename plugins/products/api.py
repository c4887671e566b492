"""The wire of products: /products."""
from typing import Annotated

from msgspec.structs import asdict

from orkosi import UNSET, Meta, Page, Reply, Struct, UnsetType, may
from plugins import products
from plugins.products import Product, ProductQuery, Status, plugin

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\S", description="1 to 100 characters, not all blank")]
Short = Annotated[str, Meta(max_length=300)]
Long = Annotated[str, Meta(max_length=20_000)]
Domain = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z", description="a domain, such as example.com")]
Colour = Annotated[str, Meta(pattern=r"^#[0-9A-Fa-f]{6}\Z", description="a colour, such as #3b82f6")]


class NewProduct(Struct, forbid_unknown_fields=True):
    name: Name
    slug: str | None = None
    tagline: Short | None = None
    description: Long | None = None
    status: Status = "building"
    domain: Domain | None = None
    brand_color: Colour | None = None
    accent_color: Colour | None = None


class ProductPatch(Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    tagline: Short | None | UnsetType = UNSET
    description: Long | None | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    domain: Domain | None | UnsetType = UNSET
    brand_color: Colour | None | UnsetType = UNSET
    accent_color: Colour | None | UnsetType = UNSET


@plugin.get("/api/products", auth=may("viewer", "products:read"))
def index(query: ProductQuery) -> Reply[Page[Product]]:
    """List products, with their brand

    By name. `meta.by_status` counts all products of each status, whatever the filters; `q` looks into name, slug,
    tagline and description."""
    page, by_status = products.listed(query)
    return Reply(page, meta={"by_status": by_status})


@plugin.post("/api/products", auth=may("member", "products:write"), status=201, raises=(400, 409))
def create(body: NewProduct) -> Product:
    """Add a product

    Without a `slug` one is made of the name. A product of the host gets a folder for its brand."""
    return products.find(products.create(**asdict(body)).slug)


@plugin.get("/api/products/{slug}", auth=may("viewer", "products:read"), raises=(404,))
def show(slug: str) -> Product:
    """Get a product with its brand"""
    return products.find(slug)


@plugin.patch("/api/products/{slug}", auth=may("member", "products:write"), raises=(400, 404))
def update(slug: str, body: ProductPatch) -> Product:
    """Change a product

    What is not sent stays as it is; null empties a field. The slug never changes."""
    return products.find(products.update(slug, body).slug)
