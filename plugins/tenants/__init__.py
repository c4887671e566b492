"""Tenants: whose everything is, and how much of the machine each may fill.

Owns tenants and tenant_shares (shares.py). The first tenant is the host, whom the machine belongs to; every
other was founded by the person who registered it.
"""
import msgspec

from orkosi import HOST_TENANT, RANKS, Actor, NotFound, Plugin, Struct, across_tenants, current, db, emit, now, writes

plugin = Plugin("Tenants", layer="ground", needs=("storage",))
RANKS.update(demo=1, viewer=2, member=3, builder=3, editor=4, admin=5)  # what somebody may be in a tenant


class Founded(Struct):
    """A tenant that was just founded."""
    id: int
    tenant_id: int


@plugin.on("opened")
@across_tenants
def make_host(event: str, folder: object) -> None:
    """The host tenant exists from the start."""
    db.run("INSERT INTO tenants (id, name, created_at) VALUES (:host, 'Host', :now) ON CONFLICT DO NOTHING", host=HOST_TENANT, now=now())


@writes
@across_tenants
def found(name: str) -> int:
    """Make a tenant; its number. Who founded it is said with `founded_by`, once they are on record."""
    made: int = db.value("INSERT INTO tenants (name, created_at) VALUES (:name, :now) RETURNING id", name=name, now=now())
    emit("tenant.founded", Founded(made, made))
    return made


@writes
@across_tenants
def take_in(id: int | None, name: str, created_at: str) -> int:
    """Put a tenant on record that was somebody else's before, under its number where that is free; its number."""
    taken = id is None or db.value("SELECT 1 FROM tenants WHERE id = :id", id=id)
    number = int(db.value("SELECT max(id) + 1 FROM tenants") if taken else id or 0)
    db.run("INSERT INTO tenants (id, name, created_at) VALUES (:id, :name, :at)", id=number, name=name, at=created_at)
    return number


@writes
@across_tenants
def founded_by(id: int, user: int) -> None:
    """Note who founded a tenant."""
    db.run("UPDATE tenants SET founder_id = :user WHERE id = :id", id=id, user=user)


@across_tenants
def is_founder(id: int, user: int) -> bool:
    """Whether that user founded that tenant."""
    return bool(db.value("SELECT 1 FROM tenants WHERE id = :id AND founder_id = :user", id=id, user=user))


@across_tenants
def asked_for(id: int | None) -> Actor:
    """Whoever acts, in the tenant a request named: their own, or any for an administrator of the host. NotFound otherwise."""
    me = current()
    if id is None or id == me.tenant:
        return me
    if me.host and me.scopes is None and me.rank >= RANKS["admin"] and db.value("SELECT 1 FROM tenants WHERE id = :id", id=id):
        return msgspec.structs.replace(me, tenant=id)
    raise NotFound(f"There is no tenant {id}")


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: object, **facts: object) -> None:
    """A tenant is named after its founder; with them, the name goes."""
    db.run("UPDATE tenants SET name = 'Tenant ' || id WHERE founder_id = :id", id=getattr(gone, "id", 0))


from . import shares as shares  # noqa: E402  # the last line: it uses the plugin above
