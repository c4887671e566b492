"""Products: what the company makes.

Owns products, and for the host's products the folders `products/<slug>/` with brand.json and brand.md.
Surprise: brand.json belongs to people as much as to Orkosi. Answers show whatever keys they added to it, and a
change here writes only the keys it knows (brand.py). The folder is made after the commit: a disk that refuses
costs the folder, which the next change makes again, and never the product.
"""
import re
import unicodedata
from typing import Annotated, Any, Literal

from orkosi import (
    UNSET,
    Conflict,
    Hit,
    Listing,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    current,
    db,
    emit,
    now,
    writes,
)
from plugins import fields
from plugins.fields import Many, wrong

from . import brand

plugin = Plugin("Products", layer="domain")

Status = Literal["idea", "building", "active", "live", "launched", "placeholder", "archived"]
STATUSES: tuple[str, ...] = Status.__args__  # type: ignore[attr-defined]


Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\S", description="1 to 100 characters, not all blank")]
Short = Annotated[str, Meta(max_length=300)]
Long = Annotated[str, Meta(max_length=20_000)]
Domain = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z", description="a domain, such as example.com")]
Colour = Annotated[str, Meta(pattern=r"^#[0-9A-Fa-f]{6}\Z", description="a colour, such as #3b82f6")]


class ProductPatch(Struct, forbid_unknown_fields=True):
    """A change to a product: what is set, is changed."""
    name: Name | UnsetType = UNSET
    tagline: Short | None | UnsetType = UNSET
    description: Long | None | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    domain: Domain | None | UnsetType = UNSET
    brand_color: Colour | None | UnsetType = UNSET
    accent_color: Colour | None | UnsetType = UNSET


class Product(Struct):
    """A product; `brand` has what its brand.json says."""
    id: int
    name: str
    slug: str
    tagline: str | None
    description: str | None
    status: Status
    domain: str | None
    brand_color: str | None
    accent_color: str | None
    created_at: str
    updated_at: str
    brand: dict[str, Any] = {}


class ProductQuery(Paging):
    """What a list of products may be narrowed by; `status` takes several, with commas between."""
    limit: Many = 1000
    status: list[Status] = []
    q: str | None = None
    slug: str | None = None


PRODUCTS = Listing(
    of=Product, source="products", order="name COLLATE NOCASE, id",
    filters={"status": "status = :status", "slug": "slug = :slug",
             "q": "(name LIKE :q ESCAPE '\\' OR slug LIKE :q ESCAPE '\\' OR tagline LIKE :q ESCAPE '\\' OR description LIKE :q ESCAPE '\\')"})


# ── reading ──


def page(query: ProductQuery) -> tuple[Page[Product], dict[str, int]]:
    """Products by name, and how many there are of each status, whatever the filters."""
    found = db.page(PRODUCTS, query, q=query.q and _like(query.q))
    for product in found.items:
        product.brand = _brand(product.slug)
    counts = dict(db.all(tuple, "SELECT status, count(*) FROM products WHERE tenant_id = :tenant GROUP BY status"))
    return found, {status: counts.get(status, 0) for status in STATUSES}


def _like(q: str) -> str:
    return "%" + re.sub(r"([%_\\])", r"\\\1", q[:100]) + "%"


def find(slug: str) -> Product:
    """One product, with its brand. NotFound."""
    product = _row(slug)
    product.brand = _brand(slug)
    return product


def _row(slug: str) -> Product:
    product = db.one(Product, "SELECT * FROM products WHERE slug = :slug AND tenant_id = :tenant", slug=slug)
    if product is None:
        raise NotFound(f"There is no product {slug!r}")
    return product


def _brand(slug: str) -> dict[str, Any]:
    # Folders have no tenant: they are the host's.
    return brand.read(slug) if current().host else {}


@plugin.search("products")
def hits(q: str, limit: int) -> list[Hit]:
    """What the search over everything shows of products."""
    return [Hit(product.slug, product.name, product.tagline or "") for product in
            db.page(PRODUCTS, ProductQuery(limit=limit), q=_like(q)).items] if q.strip() else []


# ── writing ──


@writes
def create(name: str, slug: str | None = None, **more: Any) -> Product:
    """Add a product; `more` are its other columns. Without a slug it gets one from its name. Conflict, Invalid."""
    slug = slug_of(name) if slug is None else fields.slug(slug)
    if db.value("SELECT 1 FROM products WHERE slug = :slug AND tenant_id = :tenant", slug=slug):
        raise Conflict(f"The slug {slug!r} is taken; choose another")
    made = db.insert(Product, "products", name=name, slug=slug, created_at=now(), updated_at=now(), **more)
    emit("product.created", made)
    _sync(made)
    return made


@writes
def change(slug: str, patch: ProductPatch) -> Product:
    """Change what is sent. NotFound."""
    before = _row(slug)
    after = db.patch(Product, "products", before.id, patch)
    emit("product.updated", after, before=before)
    _sync(after)
    return after


def _sync(product: Product) -> None:
    if current().host:
        db.after_commit(lambda: brand.write(product))


def slug_of(name: str) -> str:
    """A slug made of a name: 'Über Product!' → 'uber-product'. Invalid where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-")
    if not slug:
        raise wrong("slug", f"None can be made of the name {name[:60]!r}; send one")
    return slug
