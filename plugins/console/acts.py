"""Acts: buttons. Each is an operation of the API, and is there only for whom the API would let through.

Owns no table. Surprise: a button says all of what it does in its own data, and so its script knows no operation.
"""
import json
from collections.abc import Callable
from typing import Any

from bottle import html_escape as esc

from .look import part


class Acts:
    """The buttons of one person, who may do what `can` says."""

    def __init__(self, can: Callable[[str], bool]):
        self.can = can

    def __call__(self, label: str, operation: str, body: dict[str, Any] | None = None, *, undo: str = "",
                 undo_body: dict[str, Any] | None = None, say: str = "", **names: Any) -> str:
        """A button that calls `operation` with `names` in its path; "" for whom it is not. `undo` takes it back, `say` is what was done."""
        if not self.can(operation):
            return ""
        facts = {"do": _filled(operation, names), "body": json.dumps(body or {}), "say": say or label,
                 "undo": _filled(undo, names), "undo-body": json.dumps(undo_body or {}) if undo else ""}
        data = " ".join(f'data-{name}="{esc(value)}"' for name, value in facts.items() if value)
        return f'<button type="button" class="act" {data}>{esc(label)}</button>'


def _filled(operation: str, names: dict[str, Any]) -> str:
    return operation.format(**{name: part(str(value)) for name, value in names.items()}) if operation else ""
