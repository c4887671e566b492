"""Acts: buttons and forms. Each is an operation of the API, and is there only for whom the API would let through.

Owns no table. Surprise: a button says all of what it does in its own data, and so its script knows no operation. One that is for several
things at once is called for each of them, in the place of what stands in braces.
"""
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from bottle import html_escape as esc

from .look import part


class Field(NamedTuple):
    """What a form asks for. `kind`: text, long, secret, number, list, words, null, bool, or the type of an input; `options` make it a choice."""
    name: str
    label: str
    kind: str = "text"
    value: Any = ""
    options: tuple[str, ...] = ()
    required: bool = False
    help: str = ""


class Acts:
    """The buttons of one person, who may do what `can` says."""

    def __init__(self, can: Callable[[str], bool]):
        self.can = can

    def __call__(self, label: str, operation: str, body: dict[str, Any] | None = None, *, undo: str = "",
                 undo_body: dict[str, Any] | None = None, say: str = "", sure: str = "", show: str = "", bulk: str = "",
                 ids: Iterable[str] = (), tone: str = "", to: str = "", **names: Any) -> str:
        """A button that calls `operation` with `names` in its path; "" for whom it is not.

        `undo` takes it back, `say` is what was done. `sure` asks first, for what cannot come back. `show` names what of the answer is shown
        once, `to` where it leads, with `{…}` from the answer. `ids`: once for each of them; `bulk`: for what is ticked,
            which a body takes under that name, or a path one by one where it is "each".
        """
        if not self.can(operation):
            return ""
        facts = {"do": _filled(operation, names), "body": _json(body), "say": say or label, "sure": sure, "show": show, "bulk": bulk,
                 "to": to,
                 "ids": ",".join(map(part, ids)), "undo": _filled(undo, names), "undo-body": _json(undo_body) if undo else ""}
        data = " ".join(f'data-{name}="{esc(value)}"' for name, value in facts.items() if value)
        return f'<button type="button" class="act{" " + esc(tone) if tone else ""}" {data}>{esc(label)}</button>'

    def form(self, label: str, operation: str, fields: Iterable[Field], *, say: str = "", show: str = "", to: str = "", title: str = "",
             **names: Any) -> str:
        """A folded form that calls `operation` with what is filled in; "" for whom it is not.

        `show` names what of the answer is shown once; `to` is where it leads, with `{…}` from the answer."""
        if not self.can(operation):
            return ""
        heading = title or label
        facts = {"form": _filled(operation, names), "say": say or label, "show": show, "to": to}
        data = " ".join(f'data-{name}="{esc(value)}"' for name, value in facts.items() if value)
        key = "".join(char if char.isalnum() else "-" for char in " ".join([heading, *map(str, names.values())]).lower())
        return (f'<details class="form" id="form-{esc(key)}"><summary>{esc(heading)}</summary><form {data} autocomplete="off">'
                f'{"".join(map(_field, fields))}<p class="acts"><button class="act strong">{esc(label)}</button></p></form></details>')


def _json(body: dict[str, Any] | None) -> str:
    return msgspec.json.encode(body).decode() if body else "{}"


def _filled(operation: str, names: dict[str, Any]) -> str:
    for name, value in names.items():
        operation = operation.replace("{" + name + "}", part(str(value)))
    return operation


def _field(one: Field) -> str:
    facts = f'name="{esc(one.name)}" data-kind="{esc(one.kind)}"' + (" required" if one.required else "")
    value = "" if one.value is None else one.value
    if one.options:
        chosen = (f'<option{" selected" if option == value else ""}>{esc(option)}</option>' for option in one.options)
        inner = f'<select {facts}>{"".join(chosen)}</select>'
    elif one.kind == "long":
        inner = f'<textarea {facts} rows="4">{esc(value)}</textarea>'
    elif one.kind == "bool":
        return f'<label class="check"><input type="checkbox" {facts}{" checked" if value else ""}> {esc(one.label)}</label>'
    else:
        kind = one.kind if one.kind in ("number", "date", "email", "url") else "text"
        hidden = ' class="hides" spellcheck="false"' if one.kind == "secret" else ""  # no password: no browser is to keep it
        inner = f'<input type="{kind}" {facts}{hidden} value="{esc(str(value))}">'
    return f'<label>{esc(one.label)}{" <i>needed</i>" if one.required else ""} {inner}{f"<small>{esc(one.help)}</small>" if one.help else ""}</label>'
