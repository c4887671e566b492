"""Products: what the company makes.

Owns products, and for the host's products the folders `products/<slug>/` with brand.json and brand.md (brand.py)
and the guidelines that agents get copies of (guidelines.py).
Surprise: brand.json belongs to people as much as to Orkosi. Answers show whatever keys they added to it, a field
that only the file has is shown as the product's, and a change here never writes over what they wrote. The folder is
made after the commit: a disk that refuses costs the folder, which the next change makes again, and never the product.
"""
import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec

from orkosi import (
    UNSET,
    Conflict,
    Hit,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    across_tenants,
    acting,
    current,
    db,
    emit,
    now,
    system,
    writes,
)
from plugins import changelog, fields, lists
from plugins.fields import Many, wrong
from plugins.lists import Listing
from plugins.tasks import of_product
from plugins.tenants import shares

from . import brand

plugin = Plugin("Products", layer="domain", needs=("tasks", "changelog", "agents"))

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
    """A product; `brand` has what its brand.json says, and for another tenant's product what would stand there."""
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
             "q": "folded LIKE :q ESCAPE '\\'"})

# What brand.json may say where the product does not.
ADDED = {"tagline": Short, "description": Long, "domain": Domain, "brand_color": Colour, "accent_color": Colour}


# ── reading ──


def page(query: ProductQuery) -> tuple[Page[Product], dict[str, int]]:
    """Products by name, and how many there are of each status, whatever the filters."""
    found = lists.page(PRODUCTS, query, q=query.q and _like(query.q)).map(_branded)
    counts = dict(db.all(tuple, "SELECT status, count(*) FROM products WHERE tenant_id = :tenant GROUP BY status"))
    return found, {status: counts.get(status, 0) for status in STATUSES}


def _like(q: str) -> str:
    return "%" + re.sub(r"([%_\\])", r"\\\1", fields.folded(q[:100])) + "%"


def find(slug: str) -> Product:
    """One product, with its brand. NotFound."""
    return _branded(_row(slug))


def _row(slug: str) -> Product:
    product = db.one(Product, "SELECT * FROM products WHERE slug = :slug AND tenant_id = :tenant", slug=slug)
    if product is None:
        raise NotFound(f"There is no product {slug!r}")
    return product


def _branded(product: Product) -> Product:
    # Folders have no tenant: they are the host's.
    product.brand = brand.read(product.slug) if current().host else brand.facts(product)
    for name, kind in ADDED.items():
        if getattr(product, name) is None and name in product.brand:
            with suppress(msgspec.ValidationError):
                setattr(product, name, msgspec.convert(product.brand[name], kind))
    return product


def kept(product: Product, sent: Iterable[str]) -> list[str]:
    """Where brand.json does not follow what was sent, since somebody wrote it or it cannot be read: sentences."""
    row = _row(product.slug)
    if current().host and brand.look(product.slug) is None:
        return ["brand.json cannot be read as JSON, so nothing was written into it; mend it, or remove it"]
    return [f"{name}: brand.json says {str(product.brand[name])[:100]!r}, which somebody wrote there; it was left as it is"
            for name in sent if current().host and name in brand.KEYS and name in product.brand and product.brand[name] != getattr(row, name)]


@plugin.search("products")
def hits(q: str, limit: int) -> list[Hit]:
    """The product of this slug, and then those with the text in their name, slug or tagline."""
    if not q.strip():
        return []
    found = db.all(Product, "SELECT * FROM products WHERE tenant_id = :tenant AND slug = :slug", slug=q.strip().lower())
    found += [one for one in lists.page(PRODUCTS, ProductQuery(limit=limit), q=_like(q)).items if one.slug not in {first.slug for first in found}]
    return [Hit(product.slug, product.name, product.tagline or "") for product in found]


# ── writing ──


@writes
def create(name: str, slug: str | None = None, **more: Any) -> Product:
    """Add a product; `more` are its other columns. Without a slug it gets one from its name. Conflict, Invalid."""
    name = fields.line(name, "name", 100)
    slug = slug_of(name) if slug is None else fields.slug(slug)
    if db.value("SELECT 1 FROM products WHERE slug = :slug AND tenant_id = :tenant", slug=slug):
        raise Conflict(f"The slug {slug!r} is taken; choose another")
    shares.require(rows=1)
    _require_room(more.get("description"))
    made = db.insert(Product, "products", name=name, slug=slug, created_at=now(), updated_at=now(), **more)
    _fold(made)
    emit("product.created", made)
    _sync(made)
    return made


@writes
def change(slug: str, patch: ProductPatch) -> tuple[Product, dict[str, int]]:
    """Change what is sent; the product, and what followed from a new status: `archived` archives its open tasks, `live` is an
    entry of the changelog. NotFound."""
    before = _row(slug)
    if patch.name is not UNSET:
        patch.name = fields.line(patch.name, "name", 100)
    if patch.description is not UNSET:
        _require_room(patch.description, before.description)
    after = db.patch(Product, "products", before.id, patch)
    _fold(after)
    emit("product.updated", after, before=before)
    _sync(after, before)
    return after, _cascade(after) if after.status != before.status else {}


def _cascade(product: Product) -> dict[str, int]:
    archived = of_product.archive(product.slug) if product.status == "archived" else 0
    if product.status == "live":
        moment = now()
        changelog.record(f"orkosi-product-{product.slug}-{moment}", f"{product.name} is live", summary=product.tagline, type="launch",
                         product=product.slug, completed_at=moment)
    return {"archived_tasks": archived, "changelog_entries": int(product.status == "live")} if product.status in ("archived", "live") else {}


def _require_room(description: str | None, before: str | None = None) -> None:
    shares.require(bytes=len((description or "").encode()) - len((before or "").encode()))


def _fold(product: Product) -> None:
    """Keep a product's texts as a search compares them: SQLite's LIKE knows the case of ASCII alone."""
    texts = (product.name, product.slug, product.tagline, product.description)
    db.run("UPDATE products SET folded = :folded WHERE id = :id AND tenant_id = :tenant", id=product.id,
           folded="\n".join(fields.folded(text) for text in texts if text))


def _sync(product: Product, before: Product | None = None) -> None:
    def now_is() -> Product:
        with acting(system()):
            return _row(product.slug)

    if current().host:
        db.after_commit(lambda: brand.write(product.slug, now_is, before))


@plugin.on("opened")
@across_tenants
def fold_all(event: str, folder: object) -> None:
    """Fold what products have that are older than their folded texts."""
    for tenant, in db.all(tuple, "SELECT DISTINCT tenant_id FROM products WHERE folded IS NULL"):
        with acting(system(tenant)):
            for product in db.all(Product, "SELECT * FROM products WHERE folded IS NULL AND tenant_id = :tenant"):
                _fold(product)


def slug_of(name: str) -> str:
    """A slug made of a name: 'Über Product!' → 'uber-product'. Invalid where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-")
    if not slug:
        raise wrong("slug", f"None can be made of the name {name[:60]!r}; send one")
    return slug
