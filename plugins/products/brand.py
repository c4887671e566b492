"""Brand folders: `products/<slug>/brand.json` and brand.md, one folder a product of the host.

Owns no table. Surprise: people edit these files, and so does whoever works on the product: what stands there
is read as data of unknown origin, at most 64 KiB, and no link is followed in reading or writing.
"""
import json
import logging
import os
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
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read(slug: str) -> dict[str, Any]:
    """What brand.json says; {} where there is none, or none that can be read."""
    try:
        with _folder(slug) as folder:
            return _json(folder)
    except OSError:
        return {}


def write(product: "Product") -> None:
    """Make the folder if need be, and bring the keys of brand.json up to date that Orkosi knows."""
    try:
        with suppress(FileExistsError):
            os.mkdir(settings.data / "products", 0o755)
        with _folder(product.slug, make=True) as folder:
            told = _json(folder) | {key: getattr(product, key) for key in KEYS if getattr(product, key) is not None}
            _replace(folder, "brand.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
            with suppress(FileExistsError):
                _new(folder, "brand.md", f"# {product.name}\n\n{product.tagline or 'What it is, in a sentence.'}\n\n"
                                         "## Voice\n\n## Colours\n\n## Do and do not\n")
    except OSError as error:
        log.warning("the brand folder of %s could not be written: %s", product.slug, error.strerror)


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


def _json(folder: int) -> dict[str, Any]:
    with folders.regular("brand.json", folder) as opened:
        raw = os.read(opened[0], LARGEST + 1) if opened else b""
    try:
        found = strict(raw) if 0 < len(raw) <= LARGEST else {}
    except Problem:
        return {}
    return found if isinstance(found, dict) else {}


def _new(folder: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _replace(folder: int, name: str, text: str) -> None:
    """Put a whole new file in the old one's place, so that nobody ever reads half of one."""
    fresh = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=folder)
    _new(folder, fresh, text)
    os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
