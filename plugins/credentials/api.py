"""The wire of credentials: /credentials."""
from typing import Annotated

from msgspec.structs import asdict

from orkosi import Deleted, Meta, Page, Paging, Struct, may
from plugins import credentials
from plugins.agents import AgentName
from plugins.credentials import Credential, Key, Revealed, Saved, plugin
from plugins.fields import Many

READ = may("viewer", "queue:work or credentials:read:<name>", host=True)  # the verb knows who is an administrator, and what is granted


class CredentialQuery(Paging):
    limit: Many = 1000


class NewCredential(Struct, forbid_unknown_fields=True):
    key: Key
    value: str
    description: Annotated[str, Meta(max_length=1000)] | None = None
    grants: list[AgentName] | None = None


@plugin.get("/api/credentials", auth=READ, tool="credential_list")
def index(query: CredentialQuery) -> Page[Credential]:
    """List credentials, without their values

    By key. Administrators see all; an agent's key those that are granted to it, and a key with `credentials:read:<name>` those it names.
    One that nobody ever read has no `last_used_at`; `age_days` counts from its newest version."""
    return credentials.page(query)


@plugin.post("/api/credentials", auth=may("admin", host=True), status=201, raises=(400, 503))
def save(body: NewCredential) -> Saved:
    """Save a credential, or a new version of it

    Five versions are kept. `grants` names the agents that may read it, and replaces those before; what is not sent stays."""
    made, created = credentials.save(body.key, body.value, body.description, body.grants)
    return Saved(**asdict(made), created=created)


@plugin.get("/api/credentials/{key}", auth=READ, limit="credential_read", raises=(404, 500, 503), tool="credential_get")
def reveal(key: str) -> Revealed:
    """Get a credential with its value

    For an administrator who signed in, for an agent's key with a grant, and for a key with `credentials:read:<name>`. Each reading is on
    record before the value leaves. What is not granted is 404."""
    found, value = credentials.reveal(key)
    return Revealed(**asdict(found), value=value)


@plugin.delete("/api/credentials/{key}", auth=may("admin", host=True), raises=(404,))
def delete(key: str) -> Deleted:
    """Delete a credential: all its versions and grants

    What was read of it, when and by whom, stays on record."""
    credentials.delete(key)
    return Deleted(key)
