"""This server's operations as OpenAPI 3.1, made from the same data that answers them."""
import typing
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from orkosi import VERSION, Deleted, Document, Endpoint, Flat, Page, Problem, Reply, endpoints, plugins
from plugins.server.call import REASONS

# For pages of our own: nothing from elsewhere, no inline script; Swagger UI needs inline style.
PAGE_POLICY = {"Content-Security-Policy":
               "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
               "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"}

KEY = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255},
       "description": "With it, a repeat within a day gets the first answer."}


def problems() -> list[type[Problem]]:
    """Every kind of problem there is, by status: the error catalogue of the docs."""
    found: list[type[Problem]] = [Problem]
    for kind in found:  # which grows meanwhile
        found += kind.__subclasses__()
    return sorted(found, key=lambda kind: (kind.status, kind.code))


def openapi(url: str) -> dict[str, Any]:
    """This server's operations as OpenAPI 3.1, made from the same data that answers them."""
    every = [endpoint for endpoint in endpoints() if endpoint.path.startswith("/api/")]
    kinds = [kind for endpoint in every for kind in (endpoint.body_type, payload(endpoint.returns)[0]) if kind]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    shapes = dict(zip(map(repr, kinds), schemas, strict=False))
    components["Error"] = {"type": "object", "required": ["error"], "properties": {"error": {
        "type": "object", "required": ["code", "message", "request_id"], "properties": {
            "code": {"enum": list(dict.fromkeys(kind.code for kind in problems()))}, "message": {"type": "string"},
            "details": {}, "request_id": {"type": "string"}}}}}
    paths: dict[str, dict] = {}
    for endpoint in every:
        paths.setdefault(endpoint.path.removeprefix("/api"), {})[endpoint.method.lower()] = _operation(endpoint, shapes)
    catalogue = "\n".join(f"- `{kind.code}` ({kind.status}): {(kind.__doc__ or '').splitlines()[0]}" for kind in problems())
    return {"openapi": "3.1.0",
            "info": {"title": "Orkosi", "version": VERSION, "description": f"Error codes:\n\n{catalogue}"},
            "servers": [{"url": f"{url}/api"}],
            "tags": [{"name": plugin.title} for plugin in plugins.values() if plugin.endpoints],
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}}}


def payload(returns: Any) -> tuple[Any, str]:
    """(type, envelope) of a return annotation."""
    origin, args = typing.get_origin(returns), typing.get_args(returns)
    if returns is Document:
        return None, "bytes"
    if returns is Deleted:
        return None, "deleted"
    if origin is Reply:
        return payload(args[0])
    if origin is Page:
        return list[args[0]], "page"  # type: ignore[valid-type]
    flat = isinstance(returns, type) and issubclass(returns, Flat)
    return returns, "flat" if flat else "data"


def _operation(endpoint: Endpoint, shapes: dict[str, Any]) -> dict[str, Any]:
    kind, envelope = payload(endpoint.returns)
    inner = shapes.get(repr(kind), {})
    made = {"deleted": {"type": "object", "properties": {"data": {"type": "object", "properties": {
                "deleted": {"type": "boolean"}, "id": {"type": ["integer", "string"]}}}}},
            "page": {"type": "object", "required": ["data", "meta"], "properties": {"data": inner, "meta": {
                "type": "object", "properties": {name: {"type": "integer"} for name in ("total", "limit", "offset")}
                | {"has_more": {"type": "boolean"}, "next_after": {"type": ["string", "null"]}, "total_exceeded": {"type": "boolean"}}}}},
            "data": {"type": "object", "required": ["data"], "properties": {"data": inner, "meta": {"type": "object"}}},
            "flat": inner, "bytes": {}}[envelope]
    media = "application/octet-stream" if envelope == "bytes" else "application/json"
    found = {"operationId": endpoint.operation, "tags": [endpoint.plugin.title], "summary": endpoint.summary,
             "description": "\n\n".join(filter(None, [endpoint.about, f"Who: {endpoint.auth}."])),
             "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint.query_type), *([KEY] if endpoint.once else [])],
             "responses": {str(status): {"description": REASONS[status], "content": {media: {"schema": made}}}
                           for status in endpoint.statuses}
             | {str(status): {"description": REASONS[status], "content": {"application/json": {
                 "schema": {"$ref": "#/components/schemas/Error"}}}} for status in declared_errors(endpoint)},
             "security": [] if endpoint.auth.public else [{"bearer": []}, *([{"key": []}] if endpoint.auth.scope or endpoint.auth.any_key else [])]}
    if endpoint.body_type:
        required = any(one.required for one in msgspec.structs.fields(endpoint.body_type))
        found["requestBody"] = {"required": required, "content": {"application/json": {
            "schema": shapes[repr(endpoint.body_type)]}}}
    if example := examples().get(f"{endpoint.method} {endpoint.path}"):
        _exemplify(found, endpoint.path, example)
    return found


@cache
def examples() -> dict[str, dict[str, Any]]:
    """What the operations of the main job were asked and answered once, by operation; a test plays them."""
    found: dict[str, dict[str, Any]] = msgspec.json.decode(Path(__file__).with_name("examples.json").read_bytes())
    return found


def _exemplify(described: dict[str, Any], path: str, example: dict[str, Any]) -> None:
    """Put an example where it belongs: into the answer, the body, the path and the query."""
    described["responses"][str(example["status"])]["content"]["application/json"]["example"] = example["answer"]
    if example["body"]:
        described["requestBody"]["content"]["application/json"]["example"] = example["body"]
    asked = urlsplit(example["path"])
    values = dict(parse_qsl(asked.query)) | {
        name[1:-1]: value for name, value in zip(path.split("/"), asked.path.split("/"), strict=True) if name.startswith("{")}
    for parameter in described["parameters"]:
        if parameter["name"] in values:
            parameter["example"] = _typed(values[parameter["name"]], parameter["schema"])


def _typed(text: str, schema: dict[str, Any]) -> Any:
    return int(text) if schema.get("type") == "integer" else text.split(",") if schema.get("type") == "array" else text


def declared_errors(endpoint: Endpoint) -> list[int]:
    """Every error an operation may answer: its own, and what the gate and the binder add."""
    found = set(endpoint.raises) | {500, 503, 507} | ({400} if endpoint.path_names or endpoint.path.startswith("/api/") else set())
    if not endpoint.auth.public:
        found |= {401, 403}
    if endpoint.body_type:
        found |= {400, 413, 415}
    if endpoint.once:
        found |= {409, 422}
    return sorted(found | ({429} if endpoint.limit else set()))


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [{"name": wire, "in": "path", "required": True,
             "schema": msgspec.json.schema(endpoint.path_types[name])} for name, wire in endpoint.path_names.items()]


def _query_parameters(kind: Any) -> list[dict[str, Any]]:
    if kind is None:
        return []
    schema = msgspec.json.schema(kind)
    _, name = schema["$ref"].rsplit("/", 1)
    made = schema["$defs"][name]
    return [{"name": one, "in": "query", "required": one in made.get("required", []), "schema": shape}
            | ({"description": shape["description"]} if "description" in shape else {})
            | ({"style": "form", "explode": False} if shape.get("type") == "array" else {})  # with commas between
            for one, shape in made["properties"].items()]
