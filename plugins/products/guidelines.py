"""Guidelines: `products/<slug>/*.md`, copied into the workspace of every agent that has an open task of that product.

Owns no table; which copies are as they were laid stands beside them, in `.laid.json`. An observer and the events of
tasks say that it is worth looking, and a look every half minute finds what they miss. Surprise: the copies are in a
folder of the agent, who may change them, or put links and pipes in their place. A changed copy stays until the
guideline changes, and then beside it as `<name>.mine`; nothing outside of the workspace is ever written.
"""
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from orkosi import db, settings
from plugins import folders
from plugins.products import plugin
from plugins.tasks import of_product

log = logging.getLogger("orkosi")

LARGEST, MOST = 256 << 10, 50   # bytes of a guideline, and guidelines of a product
RESCAN, SETTLE = 30.0, 0.2      # seconds
LAID = ".laid.json"

_bell = folders.Bell(recursive=True)


@plugin.service
def follow(stop: threading.Event) -> None:
    """Lay copies and keep them up to date, a moment after a guideline or a task changes."""
    settle = SETTLE
    try:
        while not stop.is_set():
            _bell.watch([settings.data / "products"])
            began = time.monotonic()
            for agent, slug in of_product.at_work():
                if not stop.is_set():
                    lay(settings.data, agent, slug)
            settle = max(SETTLE, 4 * (time.monotonic() - began))
            _bell.wait(stop, RESCAN, settle)
    finally:
        _bell.close()


@plugin.on("task.*")
def look(event: str, task: Any, **facts: Any) -> None:
    """A task may have become an agent's, or a product's."""
    if task.assignee and task.product_slug:
        db.after_commit(lambda: _bell.dispatch(None))


def lay(data: Path, agent: str, slug: str) -> None:
    """Bring one agent's copies of one product's guidelines up to date."""
    try:
        with folders.opened(data, f"products/{slug}") as source:
            if source is None:
                return
            texts = dict(_texts(source))
        with folders.opened(data, f"agents/{agent}/workspace") as workspace:
            if workspace is not None:
                with _below(workspace, "guidelines", slug, make=bool(texts)) as copies:
                    _bring(copies, texts)
    except FileNotFoundError:
        pass  # there is nothing to copy, and no copy
    except OSError as error:
        log.warning("the guidelines of %s could not be laid for %s: %s", slug, agent, error.strerror)


def _texts(source: int) -> Iterator[tuple[str, bytes]]:
    for name, _ in sorted(folders.entries(source))[:1000]:
        if name.endswith(".md") and not name.startswith(".") and (raw := _read(source, name)) is not None:
            yield name, raw


def _read(folder: int, name: str) -> bytes | None:
    with folders.regular(name, folder) as opened:
        raw = os.read(opened[0], LARGEST + 1) if opened else None
    return raw if raw is not None and len(raw) <= LARGEST else None


@contextmanager
def _below(folder: int, *parts: str, make: bool) -> Iterator[int]:
    """A folder below, made where it is missing if asked to; OSError where there is none, or something else has its name."""
    with ExitStack() as stack:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
            found = stack.enter_context(folders.directory(part, folder))
            if found is None:
                raise (NotADirectoryError(0, f"{part} is no folder") if make else FileNotFoundError(0, part))
            folder = found
        yield folder


def _bring(copies: int, texts: dict[str, bytes]) -> None:
    laid = before = _laid(copies)
    taken = {name for name, _ in folders.entries(copies)}
    for name, raw in list(texts.items())[:MOST]:
        digest = hashlib.sha256(raw).hexdigest()
        if laid.get(name) == digest and name in taken:
            continue  # as it was laid, or the agent's own version of it
        there = _read(copies, name)
        if there != raw:
            _put_aside(copies, name, there, laid.get(name))
            folders.replace_in(copies, name, raw)
        laid = laid | {name: digest}
    for name in [name for name in laid if name not in texts]:
        there = _read(copies, name)
        if there is not None and hashlib.sha256(there).hexdigest() == laid[name]:
            os.unlink(name, dir_fd=copies)  # the guideline is gone; what the agent changed stays
        laid = {other: digest for other, digest in laid.items() if other != name}
    if laid != before:
        folders.replace_in(copies, LAID, json.dumps(laid, indent=1).encode())


def _laid(copies: int) -> dict[str, str]:
    try:
        found = json.loads(_read(copies, LAID) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _put_aside(copies: int, name: str, there: bytes | None, laid: str | None) -> None:
    """Keep what stands in a copy's place, unless it is the copy as it was laid."""
    if there is not None and hashlib.sha256(there).hexdigest() == laid:
        return
    taken = {other for other, _ in folders.entries(copies)}
    if name not in taken:
        return
    aside = next(free for number in range(1, 10_000) if (free := f"{name}.mine{'' if number == 1 else f'.{number}'}") not in taken)
    os.rename(name, aside, src_dir_fd=copies, dst_dir_fd=copies)
