"""Docs: the API description, and the page that lets one try it.

Owns no table. Surprise: the page works without a network. Swagger UI comes from an installed
package, two files of it, and the content policy lets nothing else in.
"""
import importlib.util
from functools import cache
from pathlib import Path

from orkosi import Plugin

plugin = Plugin("API description", layer="views", needs=("server",))


@cache
def swagger(name: str) -> bytes:
    """One file of the installed Swagger UI. Its package is never imported: that would drag in a template engine."""
    found = importlib.util.find_spec("swagger_ui_bundle")
    assert found and found.origin
    folder, = Path(found.origin).parent.glob("vendor/swagger-ui-*")
    return (folder / name).read_bytes()


@cache
def license_text() -> bytes:
    """The licence of the Swagger UI that is served, whose terms ask for it to come along."""
    import importlib.metadata
    files = importlib.metadata.files("swagger-ui-bundle-v2") or []
    text = next((file for file in files if file.name.upper().startswith("LICENSE")), None)
    return text.read_binary() if text else b"Swagger UI is licensed under the Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
