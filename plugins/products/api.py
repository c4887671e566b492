"""The wire of products: /products."""

from msgspec.structs import asdict

from orkosi import Page, Reply, Struct, may
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
    return products.find(products.change(slug, body).slug)
