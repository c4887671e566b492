"""Invitations: to a tenant, and with it perhaps to something in it.

Surprise: users does not know what an invitation leads to. It keeps it, and when it is accepted emits
`invite.accepted`; the plugin that issued it grants what it promised, or undoes it all by raising.
"""
from html import escape

from orkosi import RANKS, Conflict, NotFound, Page, Paging, Struct, across_tenants, current, db, emit, now, writes
from plugins import lists, mail, server
from plugins.lists import Listing
from plugins.server.limits import limiter
from plugins.users import User, actor_of, closed, email_of, folded, tokens

INVITED = 7 * 86400


class Pending(Struct):
    """An open invitation, as those who may invite see it: never with its code."""
    id: int
    email: str
    role: str
    invited_by: int | None
    expires_at: str
    created_at: str


OPEN = Listing(of=Pending, source="invites", few=True,
               base="kind = :kind AND target = :target AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > :now")


class Invite(Struct):
    """An invitation, as the plugins see it."""
    id: int
    tenant_id: int
    kind: str
    target: str | None
    email: str
    role: str
    invited_by: int | None
    expires_at: str
    created_at: str

    def pending(self) -> Pending:
        """What may be shown of it."""
        return Pending(self.id, self.email, self.role, self.invited_by, self.expires_at, self.created_at)


@writes
@across_tenants
def invite(kind: str, target: str | None, email: str, role: str, by: int | None, tenant: int) -> tuple[Invite, str]:
    """Invite an address; the invitation and its code, which is shown nowhere else. Conflict while one is open.

    A mail that carries the invitation has a code of its own (`mint`), made when it is sent.
    """
    email = email_of(email)
    db.run("""UPDATE invites SET revoked_at = :now WHERE kind = :kind AND target IS NOT DISTINCT FROM :target AND email_key = :key
               AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at <= :now""", kind=kind, target=target, key=folded(email), now=now())
    if until := db.value("""SELECT expires_at FROM invites WHERE kind = :kind AND target IS NOT DISTINCT FROM :target AND email_key = :key
                             AND accepted_at IS NULL AND revoked_at IS NULL""", kind=kind, target=target, key=folded(email)):
        raise Conflict(f"{email} has an open invitation already, until {until}")
    code = tokens.mint("inv")
    made = db.one(Invite, """
        INSERT INTO invites (tenant_id, kind, target, email, email_key, role, hash, invited_by, expires_at, created_at)
        VALUES (:home, :kind, :target, :email, :key, :role, :hash, :by, :until, :now) RETURNING *""",
        home=tenant, kind=kind, target=target, email=email, key=folded(email), role=role, hash=tokens.digest(code), by=by,
        until=now(INVITED), now=now())
    return made, code


def count_invitation() -> None:
    """Count one invitation against the person and the tenant, whatever it is into: one may have many organizations. TooMany."""
    me = current()
    limiter.take("invites", str(me.user))
    limiter.take("invites_tenant", str(me.tenant))


@across_tenants
def invited(code: str) -> Invite | None:
    """The open invitation behind `code`."""
    if not tokens.is_one(code, "inv"):
        return None
    return db.one(Invite, """SELECT * FROM invites WHERE (hash = :hash OR mailed_hash = :hash) AND accepted_at IS NULL
                              AND revoked_at IS NULL AND expires_at > :now""", hash=tokens.digest(code), now=now())


@writes
@across_tenants
def mint(id: int) -> str | None:
    """The code for an invitation's mail; None where it is not open any more. One of an earlier mail is void."""
    code = tokens.mint("inv")
    open = db.run("""UPDATE invites SET mailed_hash = :hash WHERE id = :id AND accepted_at IS NULL AND revoked_at IS NULL
                      AND expires_at > :now""", id=id, hash=tokens.digest(code), now=now())
    return code if open else None


@across_tenants
def place_for(found: Invite) -> tuple[str, int]:
    """The role and the tenant a newcomer gets: the inviter's, and there no more than the inviter has at this moment. NotFound."""
    if found.kind == "tenant":
        return found.role, found.tenant_id
    inviter = db.one(User, "SELECT * FROM users WHERE id = :id", id=found.invited_by)
    rank = actor_of(inviter).rank if inviter else 0
    if inviter is None or not rank:
        raise NotFound("Whoever sent that invitation may not bring anybody in any more")
    return "member" if rank >= RANKS["member"] else inviter.role, inviter.tenant_id


@writes
@across_tenants
def accept(invite: Invite, user: User) -> None:
    """Spend an invitation; whoever issued it hears `invite.accepted` and grants what it promised."""
    if not db.run("UPDATE invites SET accepted_at = :now WHERE id = :id AND accepted_at IS NULL", id=invite.id, now=now()):
        raise Conflict("That invitation was just used")
    emit("invite.accepted", invite, user=user)


@across_tenants
def open_invites(kind: str, target: str, query: Paging) -> Page[Pending]:
    """What is open for one target, newest first; callers decide who may see it."""
    return lists.page(OPEN, query, kind=kind, target=target, now=now())


@writes
@across_tenants
def revoke(kind: str, target: str, id: int | None) -> int:
    """Make one open invitation to a target void, or with None all; how many. NotFound where the one is not open."""
    ended = db.run("""UPDATE invites SET revoked_at = :now WHERE kind = :kind AND target = :target AND accepted_at IS NULL
                       AND revoked_at IS NULL AND (id = :id OR :id IS NULL)""", kind=kind, target=target, id=id, now=now())
    if id is not None and not ended:
        raise NotFound(f"There is no open invitation {id} here")
    return ended


@across_tenants
def addressed(code: str, kind: str) -> tuple[Invite, User]:
    """The open invitation of `kind` behind `code`, and the signed-in person it names. NotFound for anybody else."""
    found = invited(code)
    user = db.one(User, "SELECT * FROM users WHERE id = :id", id=current().user)
    if found is None or user is None or found.kind != kind or folded(found.email) != folded(user.email):
        raise NotFound("That invitation is unknown, used, expired, or for another address")
    return found, user


def invitation(found: Invite, inviter: str, to: str) -> tuple[str, str, str]:
    """What an invitation's mail says: subject, text, HTML; with a mark in place of the code."""
    code = mail.MARK
    link = f"{server.url()}/invite/{code}"
    text = (f"{inviter} invites you to {to}, as {found.role}.\n\nTo accept, open this link (good once, until {found.expires_at}):\n\n"
            f"  {link}\n\n" + ("" if closed() else f"Or register with this invite_code:\n\n  {code}\n\n") +
            "If you expected nothing of the kind, ignore this mail.\n")
    html = (f"<p>{escape(inviter)} invites you to <b>{escape(to)}</b>, as {escape(found.role)}.</p>"
            f'<p><a href="{escape(link)}">Accept the invitation</a> (good once, until {escape(found.expires_at)})</p>'
            + ("" if closed() else f"<p>Or register with this <code>invite_code</code>: <code>{escape(code)}</code></p>") +
            "<p>If you expected nothing of the kind, ignore this mail.</p>")
    return f"{inviter} invites you to {to}", text, html
