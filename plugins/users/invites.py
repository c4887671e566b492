"""Invitations: to a tenant, and with it perhaps to something in it.

Surprise: users does not know what an invitation leads to. It keeps it, and when it is accepted emits
`invite.accepted`; the plugin that issued it grants what it promised, or undoes it all by raising.
"""
from orkosi import Conflict, Struct, across_tenants, db, emit, now, writes
from plugins.users import User, email_of, folded, tokens

INVITED = 7 * 86400


class Invite(Struct):
    id: int
    tenant_id: int
    kind: str
    target: str | None
    email: str
    role: str
    invited_by: int | None
    expires_at: str
    created_at: str



@writes
@across_tenants
def invite(kind: str, target: str | None, email: str, role: str, by: int | None, tenant: int) -> tuple[Invite, str]:
    """Invite an address; the invitation and its code, which is shown nowhere else. Conflict while one is open."""
    email = email_of(email)
    db.run("""UPDATE invites SET revoked_at = :now WHERE kind = :kind AND target IS :target AND email_key = :key
               AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at <= :now""", kind=kind, target=target, key=folded(email), now=now())
    if db.value("""SELECT 1 FROM invites WHERE kind = :kind AND target IS :target AND email_key = :key
                    AND accepted_at IS NULL AND revoked_at IS NULL""", kind=kind, target=target, key=folded(email)):
        raise Conflict(f"{email} has an open invitation already; revoke it first to send another")
    code = tokens.mint("inv")
    made = db.one(Invite, """
        INSERT INTO invites (tenant_id, kind, target, email, email_key, role, hash, invited_by, expires_at, created_at)
        VALUES (:home, :kind, :target, :email, :key, :role, :hash, :by, :until, :now) RETURNING *""",
        home=tenant, kind=kind, target=target, email=email, key=folded(email), role=role, hash=tokens.digest(code), by=by,
        until=now(INVITED), now=now())
    return made, code


@across_tenants
def invited(code: str) -> Invite | None:
    """The open invitation behind `code`."""
    if tokens.kind_of(code) != "inv":
        return None
    return db.one(Invite, """SELECT * FROM invites WHERE hash = :hash AND accepted_at IS NULL AND revoked_at IS NULL
                              AND expires_at > :now""", hash=tokens.digest(code), now=now())


@writes
@across_tenants
def accept(invite: Invite, user: User) -> None:
    """Spend an invitation; whoever issued it hears `invite.accepted` and grants what it promised."""
    if not db.run("UPDATE invites SET accepted_at = :now WHERE id = :id AND accepted_at IS NULL", id=invite.id, now=now()):
        raise Conflict("That invitation was just used")
    emit("invite.accepted", invite, user=user)
