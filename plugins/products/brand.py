"""Brand folders: `products/<slug>/brand.json` and brand.md, one folder a product of the host.

Owns no table. Surprise: people edit these files, and so does whoever works on the product: what stands there
is read as data of unknown origin, at most 64 KiB, and no link is followed in reading or writing. What was last written
here stands in `.laid.json`: a key that says otherwise is somebody's, and is never written over. A file that cannot be
read is not written either.
"""
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from orkosi import NotFound, Problem, settings, strict
from plugins import folders

if TYPE_CHECKING:
    from plugins.products import Product

log = logging.getLogger("orkosi")
_writing = threading.Lock()

LARGEST = 64 << 10
KEYS = ("name", "slug", "tagline", "status", "domain", "brand_color", "accent_color")
TEXT = "# {name}\n\n{told}\n\n## Voice\n\n## Colours\n\n## Do and do not\n"
LAID = ".laid.json"
UNTOLD = "What it is, in a sentence."
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def facts(product: "Product") -> dict[str, Any]:
    """What a brand.json says of a product that nobody wrote into."""
    return {key: getattr(product, key) for key in KEYS if getattr(product, key) is not None}


def read(slug: str) -> dict[str, Any]:
    """What brand.json says; {} where there is none, or none that can be read."""
    return look(slug) or {}


def look(slug: str) -> dict[str, Any] | None:
    """What brand.json says; {} where there is none, None where there is one that cannot be read."""
    try:
        with _folder(slug) as folder:
            return _json(folder)
    except FileNotFoundError:
        return {}
    except OSError:
        return None


def write(slug: str, now_is: Callable[[], "Product"], before: "Product | None" = None) -> None:
    """Make the folder and its files if need be, and write into them what is other than was laid there; `now_is` gives the product.

    One at a time, each with the product as it is by then: of two changes at once, the files have the last.
    """
    try:
        with _writing, suppress(NotFound):
            product = now_is()
            with suppress(FileExistsError):
                os.mkdir(settings.data / "products", 0o755)
            with _folder(slug, make=True) as folder:
                laid = before_laid = _laid(folder) or (facts(before) | {"#": _line(before.name), "##": _told(before)} if before else {})
                laid = _write_json(folder, product, laid)
                laid = _write_text(folder, product, laid)
                if laid != before_laid or LAID not in os.listdir(folder):
                    folders.replace_in(folder, LAID, json.dumps(laid, ensure_ascii=False).encode())
    except OSError as error:
        log.warning("the brand folder of %s could not be written: %s", slug, error.strerror)


def _laid(folder: int) -> dict[str, Any]:
    """What was last written here by us, by key; `#` and `##` are the heading and first paragraph of brand.md."""
    try:
        found = strict(_raw(folder, LAID) or b"{}")
    except Problem:
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(folder: int, product: "Product", laid: dict[str, Any]) -> dict[str, Any]:
    """Bring brand.json up to date where it says what was laid; what was laid, afterwards."""
    told, wanted = _json(folder), facts(product)
    if told is None:
        log.warning("products/%s/brand.json cannot be read as JSON, so nothing is written into it", product.slug)
        return laid
    fresh = "brand.json" not in os.listdir(folder)
    after, laid = dict(told), dict(laid)
    for key in KEYS:
        if not fresh and (wanted.get(key) == laid.get(key) or (key in told and told[key] != laid.get(key))):
            continue  # it did not change, or somebody wrote it there
        for there in (after, laid):
            there.pop(key, None)
            if key in wanted:
                there[key] = wanted[key]
    if after != told or fresh:
        folders.replace_in(folder, "brand.json", json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n")
    return laid


def _write_text(folder: int, product: "Product", laid: dict[str, Any]) -> dict[str, Any]:
    """Let heading and first paragraph of brand.md follow, where they are as they were laid; what was laid, afterwards."""
    name, told = _line(product.name), _told(product)
    with suppress(FileExistsError):
        folders.write_in(folder, "brand.md", TEXT.format(name=name, told=told).encode())
        return laid | {"#": name, "##": told}
    raw = _raw(folder, "brand.md")
    try:
        text = raw.decode() if raw and len(raw) <= LARGEST else ""
    except UnicodeDecodeError:
        return laid
    found = re.match(r"(?P<heading>#[^\n]*)(?P<gap>\s*\n\s*\n)(?P<told>.+?)(?P<rest>\n\s*\n.*|\s*)\Z", text, re.DOTALL)
    if not found:
        return laid
    same = {"#": found["heading"].rstrip() == f"# {laid.get('#')}", "##": found["told"].strip() == laid.get("##")}
    after = (f"# {name}" if same["#"] else found["heading"]) + found["gap"] + (told if same["##"] else found["told"]) + found["rest"]
    if after != text:
        folders.replace_in(folder, "brand.md", after.encode())
    return laid | {key: value for key, value in (("#", name), ("##", told)) if same[key]}


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
