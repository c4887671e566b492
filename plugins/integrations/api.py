"""The wire of integrations."""
from typing import Any

from orkosi import Struct, may
from plugins import integrations
from plugins.integrations import SeenIntegration, plugin


class Configuration(Struct, forbid_unknown_fields=True):
    fields: dict[str, Any] = {}


READ, WRITE = may("editor", host=True), may("admin", host=True)


@plugin.get("/api/integrations", auth=READ)
def index() -> list[SeenIntegration]:
    """List what Orkosi can work with, what is set up of it, and how that went when it was last tried"""
    return integrations.everything()


@plugin.get("/api/integrations/{id}/status", auth=READ, raises=(404,), lane="outside")
def status(id: str) -> SeenIntegration:
    """Try an integration with a cheap call, at most once a minute, and say how it stands"""
    return integrations.check(id)


@plugin.post("/api/integrations/{id}/configure", auth=WRITE, raises=(400, 404, 503))
def configure(id: str, body: Configuration) -> SeenIntegration:
    """Save values of an integration; secrets go into the vault, and what is not sent stays

    `{}` changes nothing. What the environment says wins over what is saved."""
    return integrations.seen(integrations.configure(id, body.fields))
