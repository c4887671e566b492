"""Organizations: who sees them, who changes what, and how people come in."""
import threading

import pytest
from conftest import Client, limiter

from orkosi import HOST_TENANT, db, settings
from plugins import users

RANKS = ("owner", "admin", "member", "viewer")


@pytest.fixture
def acme(as_):
    """An organization with one person of each rank: `acme.owner`, … and `acme.id`."""
    class Acme:
        pass
    made = Acme()
    made.owner = as_("olga")
    made.id = made.owner.post("/organizations", {"name": "Acme"}).data["id"]
    for rank in RANKS[1:]:
        setattr(made, rank, as_(f"a-{rank}"))
        assert made.owner.post(f"/organizations/{made.id}/members", {"user_id": str(who(getattr(made, rank))), "role": rank}).status == 201
    made.stranger = as_("stranger")
    return made


def who(client):
    return client.get("/auth/me").data["id"]


def roles(acme):
    return [one["role"] for one in acme.owner.get(f"/organizations/{acme.id}/members").data]


@pytest.mark.parametrize("body, status, slug", [
    ({"name": "Acme"}, 201, "acme"),
    ({"name": "  Müller & Söhne  "}, 201, "muller-sohne"),
    ({"name": "日本の会社"}, 201, "日本の会社"),
    ({"name": "!!!"}, 201, "organization"),
    ({"name": "Acme", "slug": "the-best"}, 201, "the-best"),
    ({"name": "Acme", "slug": "The Best"}, 400, None),
    ({"name": "Acme", "slug": "-x"}, 400, None),
    ({"name": ""}, 400, None),
    ({"name": "   "}, 400, None),
    ({"name": "x" * 101}, 400, None),
    ({"name": "a\u202eb"}, 400, None),
    ({"name": "a\nb"}, 400, None),
    ({"name": "Acme", "owner": 3}, 400, None),
])
def test_making_an_organization(as_, body, status, slug):
    made = as_("olga").post("/organizations", body)
    assert made.status == status
    if status == 201:
        assert made.data["slug"] == slug and made.data["role"] == "owner" and made.data["member_count"] == 1
        assert made.data["id"].startswith("org_") and made.data["name"] == body["name"].strip()


def test_a_slug_is_taken_until_its_organization_is_deleted(as_):
    olga = as_("olga")
    first = olga.post("/organizations", {"name": "Acme"}).data["id"]
    again = olga.post("/organizations", {"name": "ACME"})
    assert again.status == 409 and "slug" in again.error["message"]
    other = olga.post("/organizations", {"name": "Other"}).data["id"]
    assert olga.patch(f"/organizations/{other}", {"slug": "acme"}).status == 409
    assert olga.delete(f"/organizations/{first}").data == {"deleted": True, "id": first}
    assert olga.get(f"/organizations/{first}").status == 404 and [one["id"] for one in olga.get("/organizations").data] == [other]
    assert olga.patch(f"/organizations/{other}", {"slug": "acme"}).data["slug"] == "acme"
    assert as_("someone", tenant=None).post("/organizations", {"name": "Acme"}).status == 201, "another tenant has its own slugs"


@pytest.mark.parametrize("rank, read, write, delete", [
    ("owner", 200, 200, 200), ("admin", 200, 200, 403), ("member", 200, 403, 403), ("viewer", 200, 403, 403), ("stranger", 404, 404, 404)])
def test_who_may_do_what(acme, rank, read, write, delete):
    one, path = getattr(acme, rank), f"/organizations/{acme.id}"
    assert one.get(path).status == one.get(path + "/members").status == read
    assert one.patch(path, {"avatar_url": "https://example.com/a.png"}).status == write
    assert one.get(path + "/invites").status == write
    assert one.post(path + "/invites", {"email": "new@example.com"}).status == (201 if write == 200 else write)
    assert one.post(path + "/members", {"user_id": who(acme.stranger)}).status == (
        409 if rank == "stranger" else 201 if write == 200 else write) or rank == "stranger"
    assert one.delete(path).status == delete


@pytest.mark.parametrize("url, status", [("https://example.com/a.png", 200), (None, 200), ("javascript:alert(1)", 400),
                                         ("//evil.example/a.png", 400), ("data:image/png;base64,x", 400), ("https://a b/", 400)])
def test_a_picture_is_an_http_address(acme, url, status):
    assert acme.owner.patch(f"/organizations/{acme.id}", {"avatar_url": url}).status == status


def test_whoever_runs_the_tenant_sees_its_organizations_and_only_those(acme, client, as_):
    founder = as_("founder", tenant=None)
    theirs = founder.post("/organizations", {"name": "Theirs"}).data["id"]
    assert client.get("/organizations").data == [] and [one["role"] for one in client.get("/organizations?all=true").data] == [None]
    assert client.get(f"/organizations/{acme.id}").status == 200 and client.get(f"/organizations/{theirs}").status == 404
    assert client.patch(f"/organizations/{acme.id}", {"name": "Mine"}).status == 403
    assert acme.stranger.get("/organizations").data == [] and acme.stranger.get("/organizations").meta["total"] == 0


@pytest.mark.parametrize("actor, target, role, status", [
    ("admin", "member", "admin", 200), ("admin", "viewer", "member", 200),
    ("admin", "member", "owner", 403), ("admin", "owner", "member", 403), ("admin", "admin", "owner", 403),
    ("member", "viewer", "member", 403), ("owner", "admin", "owner", 200), ("owner", "admin", "viewer", 200),
    ("stranger", "viewer", "member", 404)])
def test_nobody_grants_above_their_rank_or_touches_those_above(acme, actor, target, role, status):
    path = f"/organizations/{acme.id}/members/{who(getattr(acme, target))}"
    assert getattr(acme, actor).patch(path, {"role": role}).status == status


@pytest.mark.parametrize("actor, target, status", [
    ("admin", "member", 200), ("admin", "owner", 403), ("member", "viewer", 403), ("member", "member", 200), ("viewer", "viewer", 200),
    ("owner", "admin", 200), ("owner", "owner", 409), ("stranger", "viewer", 404)])
def test_who_removes_whom(acme, actor, target, status):
    path = f"/organizations/{acme.id}/members/{who(getattr(acme, target))}"
    assert getattr(acme, actor).delete(path).status == status


def test_the_last_owner_stays(acme):
    path = f"/organizations/{acme.id}/members/"
    me, admin = who(acme.owner), who(acme.admin)
    assert acme.owner.patch(path + str(me), {"role": "admin"}).status == 409
    assert acme.owner.patch(path + str(admin), {"role": "owner"}).status == 200
    answers = []
    resigning = [threading.Thread(target=lambda one=one, id=id: answers.append(one.patch(path + str(id), {"role": "viewer"}).status))
                 for one, id in ((acme.owner, me), (acme.admin, admin))]
    for thread in resigning:
        thread.start()
    for thread in resigning:
        thread.join()
    assert sorted(answers) == [200, 409] and db.value("SELECT count(*) FROM org_members WHERE role = 'owner'") == 1


@pytest.mark.parametrize("user_id, status", [("x", 400), ("", 400), (0, 400), (-1, 400), ("1" * 30, 400), ("٣", 400), (9999, 404), ("9999", 404)])
def test_a_member_to_be_is_a_user_of_the_tenant(acme, as_, user_id, status):
    assert acme.owner.post(f"/organizations/{acme.id}/members", {"user_id": user_id}).status == status
    foreign = who(as_("foreign", tenant=None))
    assert acme.owner.post(f"/organizations/{acme.id}/members", {"user_id": foreign}).status == 404
    assert acme.owner.post(f"/organizations/{acme.id}/members", {"user_id": who(acme.member)}).status == 409
    assert roles(acme) == list(RANKS)


def test_an_invitation_reaches_an_existing_user_of_another_tenant(acme, as_, posted):
    made = acme.admin.post(f"/organizations/{acme.id}/invites", {"email": "Ann@example.com", "role": "admin"})
    assert made.status == 201 and set(made.data) == {"id", "email", "role", "invited_by", "expires_at", "created_at"}
    letter, = posted()
    assert letter["To"] == "Ann@example.com" and "Acme" in letter["Subject"] and "/invite/ork_inv_" in letter.link
    assert letter.token not in acme.owner.get(f"/organizations/{acme.id}/invites").body.decode()
    assert db.value("SELECT count(*) FROM invites WHERE hash = :hash AND tenant_id = :tenant", hash=letter.token.encode()) == 0
    again = acme.admin.post(f"/organizations/{acme.id}/invites", {"email": "ann@example.com"})
    assert again.status == 409

    assert acme.stranger.post(f"/organizations/invites/{letter.token}/accept").status == 404, "it names another address"
    ann = as_("ann", tenant=None)
    accepted = ann.post(f"/organizations/invites/{letter.token}/accept")
    assert accepted.status == 200 and accepted.data["role"] == "admin" and accepted.data["member_count"] == 5
    assert ann.get(f"/organizations/{acme.id}").status == 200 and ann.get("/auth/me").data["tenant"] != HOST_TENANT
    assert ann.post(f"/organizations/invites/{letter.token}/accept").status == 404, "good once"
    assert acme.owner.get(f"/organizations/{acme.id}/invites").data == []
    assert acme.owner.post(f"/organizations/{acme.id}/invites", {"email": "ann@example.com"}).status == 409, "a member already"


def test_an_invitation_code_lets_somebody_register_into_the_tenant(acme, anonymous, posted):
    acme.owner.post(f"/organizations/{acme.id}/invites", {"email": "new@example.com", "role": "viewer"})
    token = posted()[0].token
    body = {"username": "new", "email": "new@example.com", "password": "correct horse", "terms_accepted": True, "privacy_accepted": True}
    assert anonymous.post("/auth/register", body).status == 400
    assert anonymous.post("/auth/register", body | {"email": "eve@example.com", "invite_code": token}).status == 400
    made = anonymous.post("/auth/register", body | {"invite_code": token})
    assert made.status == 201 and made.data["tenant_id"] == HOST_TENANT and made.data["role"] == "member"
    assert roles(acme) == [*RANKS, "viewer"]


@pytest.mark.parametrize("spoil", ["demote", "remove", "revoke", "expire", "delete"])
def test_an_invitation_is_void_once(acme, as_, anonymous, posted, spoil):
    invite = acme.admin.post(f"/organizations/{acme.id}/invites", {"email": "ann@example.com"}).data["id"]
    token, path = posted()[0].token, f"/organizations/{acme.id}"
    if spoil == "demote":
        acme.owner.patch(f"{path}/members/{who(acme.admin)}", {"role": "member"})
    elif spoil == "remove":
        acme.owner.delete(f"{path}/members/{who(acme.admin)}")
    elif spoil == "revoke":
        assert acme.owner.delete(f"{path}/invites/{invite}").data["deleted"] and acme.owner.delete(f"{path}/invites/{invite}").status == 404
    elif spoil == "expire":
        db.write(lambda: db.run("UPDATE invites SET expires_at = '2020' WHERE tenant_id = :tenant"))
    else:
        acme.owner.delete(path)
    body = {"username": "eve", "email": "ann@example.com", "password": "correct horse", "terms_accepted": True, "privacy_accepted": True,
            "invite_code": token}
    assert anonymous.post("/auth/register", body).status == 400
    assert as_("ann").post(f"/organizations/invites/{token}/accept").status == 404
    assert acme.owner.get("/organizations").data == [] or roles(acme).count("member") == (2 if spoil == "demote" else 1)


@pytest.mark.parametrize("role, status", [("admin", 201), ("owner", 400), ("king", 400)])
def test_what_one_may_be_invited_as(acme, role, status):
    assert acme.owner.post(f"/organizations/{acme.id}/invites", {"email": "x@example.com", "role": role}).status == status


@pytest.mark.parametrize("address", ["", "x", "a@b\nBcc: c@d", "аnn@example.com", "a b@example.com", "x" * 300 + "@example.com"])
def test_an_address_is_one(acme, posted, address):
    assert acme.owner.post(f"/organizations/{acme.id}/invites", {"email": address}).status == 400
    assert posted() == []


def test_invitations_are_limited(acme):
    settings.values["limit_org_invites"] = "2/h"
    limiter.__init__()
    answers = [acme.owner.post(f"/organizations/{acme.id}/invites", {"email": f"x{n}@example.com"}) for n in range(3)]
    assert [one.status for one in answers] == [201, 201, 429] and "Retry-After" in answers[2].headers


def test_no_key_comes_in(acme, application, data):
    from plugins import keys
    _, raw = keys.issue(HOST_TENANT, "all", keys.SCOPES, by=who(acme.owner))
    key = Client(application, raw)
    assert key.patch(f"/organizations/{acme.id}", {"name": "x"}).status == key.post("/organizations", {"name": "x"}).status == 403
    assert key.post("/organizations/invites/x/accept").status == 403


def test_the_keys_of_a_deleted_organization_end(acme, application):
    from plugins import keys
    _, raw = keys.issue(HOST_TENANT, "mine", keys.SCOPES, org_id=acme.id, by=who(acme.owner))
    assert Client(application, raw).get("/tasks").status == 200
    acme.owner.delete(f"/organizations/{acme.id}")
    assert Client(application, raw).get("/tasks").status == 401


def test_an_invitation_accepted_twice_at_once_counts_once(acme, as_, posted):
    acme.owner.post(f"/organizations/{acme.id}/invites", {"email": "ann@example.com"})
    ann, token, answers = as_("ann"), posted()[0].token, []
    threads = [threading.Thread(target=lambda: answers.append(ann.post(f"/organizations/invites/{token}/accept").status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [404] * 7


@pytest.mark.parametrize("raw", [b'{"name": "\\ud800"}', b'{"name": "a\\u0000b"}', b'{"name": "\xff"}', b'{"name": "x", "name": "y"}', b'["name"]', b'{"name": NaN}'])
def test_a_name_of_junk_is_refused(as_, raw):
    assert as_("olga").post("/organizations", raw=raw).status == 400
    assert as_("tina").post("/teams", raw=raw).status == 400


def test_slugs_are_made_of_any_name():
    from plugins import orgs
    for name in ("Ⅷ Æther", "ﬁne", "İstanbul", "a__b", "x" * 100, "…"):
        assert orgs.slug_of(orgs.slugged(name)) == orgs.slugged(name), name
    assert users.RANKS["admin"] > users.RANKS["viewer"]


# ── nobody brings in more than they are ──


@pytest.mark.parametrize("role, becomes", [("viewer", "viewer"), ("demo", "demo"), ("member", "member"), ("editor", "member"), ("admin", "member")])
@pytest.mark.parametrize("kind", ["organizations", "teams"])
def test_a_newcomer_gets_no_more_than_the_inviter_has_at_that_moment(client, as_, anonymous, posted, kind, role, becomes):
    """Else whoever was demoted would invite a second address of theirs, and be a member again."""
    ann = as_("ann")
    thing = ann.post(f"/{kind}", {"name": "Acme"}).data["id"]
    assert ann.post(f"/{kind}/{thing}/invites", {"email": "second@example.com", "role": "admin"}).status == 201
    letter = next(one for one in posted() if one["To"] == "second@example.com")
    if role != "member":
        users.people.set_role("ann@example.com", role)
    body = {"username": "Second", "email": "second@example.com", "password": "correct horse", "terms_accepted": True, "privacy_accepted": True}
    answer = anonymous.post("/auth/register", body | {"invite_code": letter.token})
    assert (answer.status, answer.data["role"]) == (201, becomes)


def test_a_guest_brings_nobody_into_a_tenant_that_is_not_theirs(client, as_, anonymous, application, posted):
    guest = as_("guest", tenant=None)
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "guest@example.com", "role": "admin"})
    assert guest.post(f"/organizations/invites/{posted()[0].token}/accept").status == 200
    assert guest.post(f"/organizations/{org}/invites", {"email": "second@example.com"}).status == 201
    body = {"username": "Second", "email": "second@example.com", "password": "correct horse", "terms_accepted": True, "privacy_accepted": True}
    made = anonymous.post("/auth/register", body | {"invite_code": posted()[0].token})
    assert made.status == 201 and made.data["tenant_id"] == guest.get("/auth/me").data["tenant"] != HOST_TENANT
    second = Client(application, anonymous.post("/auth/login", {"email": "second@example.com", "password": "correct horse"}).json["token"])
    assert second.get(f"/organizations/{org}").data["role"] == "member" and second.get("/agents").data == []


def test_invitations_count_against_the_person_and_the_tenant(client, as_):
    settings.values |= {"limit_invites": "4/h", "limit_invites_tenant": "6/h"}
    orgs = [client.post("/organizations", {"name": f"Acme {n}"}).data["id"] for n in range(3)]
    team = client.post("/teams", {"name": "Crew"}).data["id"]
    answers = [client.post(f"/organizations/{orgs[n % 3]}/invites", {"email": f"a{n}@example.com"}) for n in range(4)]
    assert [one.status for one in answers] == [201] * 4
    refused = client.post(f"/teams/{team}/invites", {"email": "b@example.com"})
    assert refused.status == 429 and refused.headers["Retry-After"] and "limit_invites" in refused.error["message"]
    other = as_("other")
    mine = other.post("/organizations", {"name": "Mine"}).data["id"]
    assert [other.post(f"/organizations/{mine}/invites", {"email": f"c{n}@example.com"}).status for n in range(3)] == [201, 201, 429]
    elsewhere = as_("founder", tenant=None)
    theirs = elsewhere.post("/organizations", {"name": "Theirs"}).data["id"]
    assert elsewhere.post(f"/organizations/{theirs}/invites", {"email": "d@example.com"}).status == 201


def test_an_organization_that_was_deleted_is_not_deleted_again_with_its_last_member(as_, client):
    ann = as_("ann")
    org = ann.post("/organizations", {"name": "Gone"}).data["id"]
    assert ann.delete(f"/organizations/{org}").status == 200
    before = db.value("SELECT deleted_at FROM organizations WHERE id = :id", id=org)
    assert client.delete(f"/users/{ann.get('/auth/me').data['id']}").status == 200
    assert db.value("SELECT deleted_at FROM organizations WHERE id = :id", id=org) == before
    assert db.value("SELECT count(*) FROM activity WHERE action = 'organization.deleted'") == 1
