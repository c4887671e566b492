"""Brand folders: `products/<slug>/brand.json` and brand.md, one folder a product of the host.

Owns no table. Surprise: people edit these files, and so does whoever works on the product: what stands there
is read as data of unknown origin, at most 64 KiB, and no link is followed in reading or writing. A change to a
product touches the keys that it changes, and of those not the ones that somebody has written otherwise; a file that
cannot be read is not written either.
"""
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from orkosi import Problem, settings, strict
from plugins import folders

if TYPE_CHECKING:
    from plugins.products import Product

log = logging.getLogger("orkosi")

LARGEST = 64 << 10
KEYS = ("name", "slug", "tagline", "status", "domain", "brand_color", "accent_color")
TEXT = "# {name}\n\n{told}\n\n## Voice\n\n## Colours\n\n## Do and do not\n"
UNTOLD = "What it is, in a sentence."
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def facts(product: "Product") -> dict[str, Any]:
    """What a brand.json says of a product that nobody wrote into."""
    return {key: getattr(product, key) for key in KEYS if getattr(product, key) is not None}


def read(slug: str) -> dict[str, Any]:
    """What brand.json says; {} where there is none, or none that can be read."""
    try:
        with _folder(slug) as folder:
            return _json(folder) or {}
    except OSError:
        return {}


def write(product: "Product", before: "Product | None" = None) -> None:
    """Make the folder and its files if need be, and write into them what is other than it was before."""
    try:
        with suppress(FileExistsError):
            os.mkdir(settings.data / "products", 0o755)
        with _folder(product.slug, make=True) as folder:
            _write_json(folder, product, before)
            with suppress(FileExistsError):
                folders.write_in(folder, "brand.md", TEXT.format(name=_line(product.name), told=_told(product)).encode())
            if before is not None:
                _write_text(folder, product, before)
    except OSError as error:
        log.warning("the brand folder of %s could not be written: %s", product.slug, error.strerror)


def _write_json(folder: int, product: "Product", before: "Product | None") -> None:
    told = _json(folder)
    if told is None:
        log.warning("products/%s/brand.json cannot be read as JSON, so nothing is written into it", product.slug)
        return
    after = dict(told)
    for key in KEYS:
        value, was = getattr(product, key), getattr(before, key) if before else None
        if told and before and value == was:
            continue  # not changed, whatever the file says
        if key in told and told[key] != was:
            continue  # somebody wrote it there
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    if after != told:
        folders.replace_in(folder, "brand.json", json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n")


def _write_text(folder: int, product: "Product", before: "Product") -> None:
    """Let heading and first paragraph of brand.md follow, where they are as they were laid."""
    if (_line(product.name), _told(product)) == (_line(before.name), _told(before)):
        return
    raw = _raw(folder, "brand.md")
    try:
        text = raw.decode() if raw and len(raw) <= LARGEST else ""
    except UnicodeDecodeError:
        return
    found = re.match(r"(?P<heading>#[^\n]*)(?P<gap>\s*\n\s*\n)(?P<told>.+?)(?P<rest>\n\s*\n.*|\s*)\Z", text, re.DOTALL)
    if not found:
        return
    heading = f"# {_line(product.name)}" if found["heading"].rstrip() == f"# {_line(before.name)}" else found["heading"]
    told = _told(product) if found["told"].strip() == _told(before) else found["told"]
    after = heading + found["gap"] + told + found["rest"]
    if after != text:
        folders.replace_in(folder, "brand.md", after.encode())


def _told(product: "Product") -> str:
    return _line(product.tagline or "") or UNTOLD


def _line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _folder(slug: str, *, make: bool = False) -> Iterator[int]:
    """The folder's descriptor, reached without following a link; OSError where that cannot be."""
    above = os.open(settings.data / "products", FOLDER)
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(slug, 0o755, dir_fd=above)
        folder = os.open(slug, FOLDER, dir_fd=above)
    finally:
        os.close(above)
    try:
        yield folder
    finally:
        os.close(folder)


def _json(folder: int) -> dict[str, Any] | None:
    """What brand.json says; {} where there is none, None where it is nothing that can be read."""
    raw = _raw(folder, "brand.json")
    if not raw and "brand.json" not in os.listdir(folder):
        return {}
    try:
        found = strict(raw) if raw and len(raw) <= LARGEST else None
    except Problem:
        return None
    return found if isinstance(found, dict) else None


def _raw(folder: int, name: str) -> bytes:
    with folders.regular(name, folder) as opened:
        return os.read(opened[0], LARGEST + 1) if opened else b""
