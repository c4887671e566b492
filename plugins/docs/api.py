"""The wire of docs: /openapi.json, /docs and its files. None of it needs a token."""
from functools import cache
from typing import Literal

import msgspec

from orkosi import PUBLIC, Document
from plugins import docs, server
from plugins.docs import plugin
from plugins.docs.openapi import PAGE_POLICY, openapi

PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Orkosi API</title><link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="data:,"></head>
<body><div id="api"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
# No validator: it would call out. The token typed into "Authorize" stays in the page's memory; without one, whoever is logged in
# in this browser is who asks: the cookie goes along by itself, and the header says that a page of this server meant it.
START = b"""SwaggerUIBundle({url: "openapi.json", dom_id: "#api", validatorUrl: null, deepLinking: true, filter: true,
  docExpansion: "none", tryItOutEnabled: true, persistAuthorization: false,
  requestInterceptor: (request) => { request.headers["X-Orkosi"] = "1"; return request; }});
"""
FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


@cache
def written(url: str) -> bytes:
    """The description, which takes a while to make and then stays as it is."""
    return msgspec.json.encode(openapi(url))


@plugin.get("/api/openapi.json", auth=PUBLIC)
def description() -> Document:
    """This server's operations as OpenAPI 3.1"""
    return Document(written(server.url()), "application/json", {"Cache-Control": "no-cache"})


@plugin.get("/api/docs", auth=PUBLIC)
def page() -> Document:
    """The page that shows the operations, and tries them"""
    return Document(PAGE, "text/html; charset=utf-8", PAGE_POLICY)


@plugin.get("/api/docs/{file}", auth=PUBLIC)
def files(file: Literal["swagger-ui-bundle.js", "swagger-ui.css", "start.js", "LICENSE"]) -> Document:
    """A file of that page"""
    if file == "LICENSE":
        return Document(docs.license_text(), "text/plain; charset=utf-8")
    if file == "start.js":
        return Document(START, "text/javascript", PAGE_POLICY)
    return Document(docs.swagger(file), FILES[file], {**PAGE_POLICY, "Cache-Control": "public, max-age=86400"})
