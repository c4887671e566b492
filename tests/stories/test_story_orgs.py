"""Stories of organizations and teams, which are alike: who is in them, as what, and whom they invite."""
import pytest
from conftest import db, listed, put

from orkosi import HOST_TENANT

OLD, OLDER, AHEAD, WEEK = "2026-11-03T10:00:00.000Z", "2026-11-02T10:00:00.000Z", "2099-01-01T00:00:00.000Z", 7 * 86400
TIMES = {"created_at": OLDER, "updated_at": OLD}


@pytest.fixture
def ann(as_):
    """Somebody, with their number and that of their tenant."""
    return known(as_("ann"))


@pytest.fixture
def person(as_):
    """Further people: `person("bob")`."""
    return lambda name, **more: known(as_(name, **more))


def known(client):
    me = client.get("/auth/me").data
    client.id, client.tenant, client.name = me["id"], me["tenant"], me["username"]
    return client


def org(id, members, home=HOST_TENANT, gone=None, reader=None, **fields):
    """An organization as it is stored, and as `reader` sees it; `members` is person → role."""
    row = {"id": id, "tenant_id": home, "name": id.title(), "slug": id, "avatar_url": f"https://example.com/{id}.png"} | TIMES | fields
    put("organizations", deleted_at=gone, **row)
    for number, (one, role) in enumerate(members.items()):
        put("org_members", org_id=id, user_id=one.id, role=role, joined_at=f"2026-11-02T10:00:0{number}.000Z")
    return row | {"member_count": len(members), "role": members.get(reader)}


def team(id, members, home=HOST_TENANT, reader=None, **fields):
    """A team as it is stored, and as `reader` sees it."""
    row = {"id": id, "tenant_id": home, "name": f"Team {id}", "description": f"Text {id}"} | TIMES | fields
    put("teams", name_key=row["name"].casefold(), **row)
    for number, (one, role) in enumerate(members.items()):
        put("team_members", team_id=id, user_id=one.id, role=role, joined_at=f"2026-11-02T10:00:0{number}.000Z")
    return row | {"member_count": len(members), "role": members.get(reader)}


def invite(id, kind, target, **fields):
    """An invitation as it is stored, and as it is shown."""
    shown = {"email": f"x{id}@example.com", "role": "member", "invited_by": None, "expires_at": AHEAD, "created_at": OLD}
    shown |= {name: fields.pop(name) for name in list(fields) if name in shown}
    put("invites", id=id, tenant_id=HOST_TENANT, kind=kind, target=str(target), email_key=shown["email"], hash=bytes([id]), **shown, **fields)
    return {"id": id} | shown


def seat(one, role, joined):
    return {"user_id": one.id, "username": one.name, "role": role, "joined_at": joined}


def seats(members):
    """Members as they are shown: by rank, then by when they joined."""
    order = ["owner", "admin", "member", "viewer"]
    joined = {one: f"2026-11-02T10:00:0{number}.000Z" for number, one in enumerate(members)}
    return [seat(one, role, joined[one]) for one, role in sorted(members.items(), key=lambda pair: (order.index(pair[1]), joined[pair[0]]))]


# ── organizations ──


@pytest.mark.story("GET /api/organizations", "GET /api/organizations/{id}")
def test_one_is_shown_the_organizations_one_is_in_and_who_runs_the_tenant_all(client, ann, person):
    bob, far = person("bob"), person("far", tenant=None)
    one = org("acme", {bob: "owner", ann: "viewer"}, reader=ann)
    two = org("bank", {ann: "owner"}, reader=ann, created_at="2026-11-05T10:00:00.000Z", avatar_url=None)
    three = org("club", {far: "owner", bob: "member", ann: "admin"}, home=far.tenant, reader=ann, created_at="2026-11-04T10:00:00.000Z")
    other = org("other", {bob: "owner"}), org("gone", {ann: "owner"}, gone=OLD)
    assert listed(ann, "/organizations", [two, three, one])
    for shown in (one, two, three):
        assert ann.get(f"/organizations/{shown['id']}").json == {"data": shown}
    assert listed(client, "/organizations", []) and listed(client, "/organizations?all=true", [two | {"role": None}, one | {"role": None}, other[0]])


@pytest.mark.story("POST /api/organizations")
def test_an_organization_is_what_was_sent_and_its_maker_owns_it(ann, lately):
    made = ann.post("/organizations", {"name": "Über Straße", "slug": "mine"})
    told = {"tenant_id": HOST_TENANT, "avatar_url": None, "member_count": 1, "role": "owner", "created_at": lately, "updated_at": lately}
    assert (made.status, made.json) == (201, {"data": told | {"id": made.data["id"], "name": "Über Straße", "slug": "mine"}})
    bare = ann.post("/organizations", {"name": "Über Straße"}).data
    assert bare == told | {"id": bare["id"], "name": "Über Straße", "slug": "uber-strasse"} and bare["id"] != made.data["id"]
    assert {one["id"]: one for one in ann.get("/organizations").data} == {made.data["id"]: made.data, bare["id"]: bare}
    assert ann.get(f"/organizations/{bare['id']}/members").data == [seat(ann, "owner", lately)]


@pytest.mark.story("PATCH /api/organizations/{id}")
@pytest.mark.parametrize("change", [{"name": "Anew"}, {"slug": "anew"}, {"avatar_url": "https://example.com/new.png"}, {"avatar_url": None},
                                    {"name": "All", "slug": "all", "avatar_url": None}])
def test_what_is_sent_of_an_organization_is_changed_and_no_more(ann, person, lately, change):
    before, other = org("acme", {person("bob"): "owner", ann: "admin"}, reader=ann), org("bank", {ann: "owner"}, reader=ann)
    after = ann.patch("/organizations/acme", change)
    assert after.json == {"data": before | change | {"updated_at": lately}}
    assert ann.get("/organizations").data == [after.data, other]


@pytest.mark.story("DELETE /api/organizations/{id}")
def test_a_deleted_organization_is_gone_and_its_slug_is_free(ann):
    org("acme", {ann: "owner"}), org("bank", {ann: "owner"})
    assert ann.delete("/organizations/acme").json == {"data": {"deleted": True, "id": "acme"}}
    assert [one["id"] for one in ann.get("/organizations").data] == ["bank"] and ann.get("/organizations/acme").status == 404
    assert ann.post("/organizations", {"name": "x", "slug": "acme"}).status == 201


@pytest.mark.story("GET /api/organizations/{id}/members")
def test_the_members_of_an_organization_are_listed_by_rank(ann, person):
    members = {person("bob"): "viewer", person("cy"): "member", ann: "admin", person("dan"): "owner", person("eve"): "member"}
    org("acme", members), org("bank", {ann: "owner"})
    assert listed(ann, "/organizations/acme/members", seats(members), default=1000)


@pytest.mark.story("POST /api/organizations/{id}/members")
def test_whoever_is_added_to_an_organization_is_in_it(ann, person, lately):
    bob, cy = person("bob"), person("cy")
    org("acme", {ann: "admin"})
    made = ann.post("/organizations/acme/members", {"user_id": bob.id, "role": "viewer"})
    assert (made.status, made.json) == (201, {"data": seat(bob, "viewer", lately)})
    assert ann.post("/organizations/acme/members", {"user_id": str(cy.id)}).data == seat(cy, "member", lately)
    assert [(one["username"], one["role"]) for one in ann.get("/organizations/acme/members").data] == [("ann", "admin"), ("cy", "member"), ("bob", "viewer")]


@pytest.mark.story("PATCH /api/organizations/{id}/members/{userId}")
def test_a_member_of_an_organization_gets_another_role(ann, person):
    bob = person("bob")
    first, second = seats({ann: "owner", bob: "viewer"})
    org("acme", {ann: "owner", bob: "viewer"})
    assert ann.patch(f"/organizations/acme/members/{bob.id}", {"role": "admin"}).json == {"data": second | {"role": "admin"}}
    assert ann.get("/organizations/acme/members").data == [first, second | {"role": "admin"}]


@pytest.mark.story("DELETE /api/organizations/{id}/members/{userId}")
def test_a_removed_member_is_in_the_organization_no_more(ann, person):
    bob, cy = person("bob"), person("cy")
    org("acme", {ann: "owner", bob: "viewer", cy: "member"})
    assert ann.delete(f"/organizations/acme/members/{bob.id}").json == {"data": {"deleted": True, "id": bob.id}}
    assert [one["user_id"] for one in ann.get("/organizations/acme/members").data] == [ann.id, cy.id]
    assert bob.get("/organizations/acme").status == 404


@pytest.mark.story("GET /api/organizations/{id}/invites")
def test_the_open_invitations_of_an_organization_are_listed(ann):
    org("acme", {ann: "admin"})
    one, two, three = invite(1, "org", "acme"), invite(2, "org", "acme", role="admin", invited_by=ann.id), invite(3, "org", "acme", role="viewer")
    invite(4, "org", "bank"), invite(5, "team", "acme"), invite(6, "org", "acme", accepted_at=OLD), invite(7, "org", "acme", revoked_at=OLD)
    invite(8, "org", "acme", expires_at=OLD)
    assert listed(ann, "/organizations/acme/invites", [three, two, one], default=1000)


def made_invite(inviter, path, sent, lately, posted):
    """Invite somebody; what was answered, and the letter."""
    made = inviter.post(path, sent)
    shown = {"email": "Bob@example.com", "role": sent.get("role", "member"), "invited_by": inviter.id, "expires_at": lately(WEEK), "created_at": lately}
    assert (made.status, made.json) == (201, {"data": shown | {"id": made.data["id"]}})
    assert made.data in inviter.get(path).data
    letter, = posted()
    assert letter["To"] == "Bob@example.com" and f"as {shown['role']}" in letter.text
    return made.data, letter


@pytest.mark.story("POST /api/organizations/{id}/invites", "POST /api/organizations/invites/{token}/accept")
def test_an_invitation_to_an_organization_is_mailed_and_accepted(ann, person, posted, lately):
    before = org("acme", {ann: "owner"})
    _, letter = made_invite(ann, "/organizations/acme/invites", {"email": "Bob@example.com", "role": "viewer"}, lately, posted)
    bob = person("bob", tenant=None)
    accepted = bob.post(f"/organizations/invites/{letter.token}/accept")
    assert accepted.json == {"data": before | {"member_count": 2, "role": "viewer"}}
    assert bob.get("/organizations").data == [accepted.data] and ann.get("/organizations/acme/invites").data == []
    assert ann.get("/organizations/acme/members").data[1] == seat(bob, "viewer", lately)
    org("bare", {ann: "owner"}, avatar_url=None)
    made_invite(ann, "/organizations/bare/invites", {"email": "Bob@example.com"}, lately, posted)


@pytest.mark.story("DELETE /api/organizations/{id}/invites/{inviteId}")
def test_a_revoked_invitation_is_open_no_more(ann, person, posted, lately):
    org("acme", {ann: "owner"})
    left = invite(1, "org", "acme")
    made, letter = made_invite(ann, "/organizations/acme/invites", {"email": "Bob@example.com"}, lately, posted)
    assert ann.delete(f"/organizations/acme/invites/{made['id']}").json == {"data": {"deleted": True, "id": made["id"]}}
    assert ann.get("/organizations/acme/invites").data == [left]
    assert person("bob").post(f"/organizations/invites/{letter.token}/accept").status == 404


# ── teams ──


@pytest.mark.story("GET /api/teams", "GET /api/teams/{id}")
def test_the_teams_of_the_tenant_are_listed_newest_first(ann, person):
    bob, far = person("bob"), person("far", tenant=None)
    mine = {bob: "owner", ann: "admin"}
    one, two, three = team(1, mine, reader=ann), team(2, {bob: "owner"}, reader=ann), team(3, {ann: "owner"}, reader=ann, name="100% Crew", description="")
    team(4, {far: "owner"}, home=far.tenant)
    assert listed(ann, "/teams", [three, two, one])
    for query, found in [("name=team", [two, one]), ("name=CREW", [three]), ("name=100%25", [three]), ("name=_", []), ("name=2", [two])]:
        assert listed(ann, f"/teams?{query}", found)
    for shown, members in ((one, mine), (two, {bob: "owner"}), (three, {ann: "owner"})):
        assert ann.get(f"/teams/{shown['id']}").json == {"data": shown | {"members": seats(members)}}


@pytest.mark.story("POST /api/teams")
def test_a_team_is_what_was_sent_and_its_maker_owns_it(ann, lately):
    made = ann.post("/teams", {"name": "Crew", "description": "Who sails"})
    told = {"tenant_id": HOST_TENANT, "member_count": 1, "role": "owner", "created_at": lately, "updated_at": lately}
    assert (made.status, made.json) == (201, {"data": told | {"id": made.data["id"], "name": "Crew", "description": "Who sails"}})
    bare = ann.post("/teams", {"name": "Crew"}).data
    assert bare == told | {"id": made.data["id"] + 1, "name": "Crew", "description": ""} and ann.get("/teams").data == [bare, made.data]
    assert ann.get(f"/teams/{bare['id']}").data["members"] == [seat(ann, "owner", lately)]


@pytest.mark.story("PATCH /api/teams/{id}")
@pytest.mark.parametrize("change", [{"name": "Anew"}, {"description": "d"}, {"name": "All", "description": ""}, {}])
def test_what_is_sent_of_a_team_is_changed_and_no_more(ann, lately, change):
    before, other = team(1, {ann: "admin"}, reader=ann), team(2, {ann: "owner"}, reader=ann)
    after = ann.patch("/teams/1", change)
    assert after.json == {"data": before | change | {"updated_at": lately if change else after.data["updated_at"]}}
    assert ann.get("/teams").data == [other, after.data] and ann.get(f"/teams?name={(before | change)['name'].replace(' ', '+')}").data == [after.data]


@pytest.mark.story("DELETE /api/teams/{id}")
def test_a_deleted_team_is_gone(ann):
    team(1, {ann: "admin"}), team(2, {ann: "owner"})
    assert ann.delete("/teams/1").json == {"data": {"deleted": True, "id": 1}}
    assert [one["id"] for one in ann.get("/teams").data] == [2] and db.all(tuple, "SELECT team_id FROM team_members") == [(2,)]


@pytest.mark.story("GET /api/teams/{id}/members")
def test_the_members_of_a_team_are_listed_by_rank(ann, person):
    members = {person("bob"): "member", person("cy"): "owner", ann: "admin", person("dan"): "member"}
    team(1, members), team(2, {ann: "owner"})
    assert listed(ann, "/teams/1/members", seats(members), default=1000)


@pytest.mark.story("POST /api/teams/{id}/members")
def test_whoever_is_added_to_a_team_is_in_it(ann, person, lately):
    bob, cy = person("bob"), person("cy")
    team(1, {ann: "owner"})
    made = ann.post("/teams/1/members", {"user_id": bob.id, "role": "admin"})
    assert (made.status, made.json) == (201, {"data": seat(bob, "admin", lately)})
    assert ann.post("/teams/1/members", {"user_id": cy.id}).data == seat(cy, "member", lately)
    assert [(one["username"], one["role"]) for one in ann.get("/teams/1/members").data] == [("ann", "owner"), ("bob", "admin"), ("cy", "member")]


@pytest.mark.story("PATCH /api/teams/{id}/members/{userId}")
def test_a_member_of_a_team_gets_another_role(ann, person):
    bob = person("bob")
    first, second = seats({ann: "owner", bob: "member"})
    team(1, {ann: "owner", bob: "member"})
    assert ann.patch(f"/teams/1/members/{bob.id}", {"role": "admin"}).json == {"data": second | {"role": "admin"}}
    assert ann.get("/teams/1/members").data == [first, second | {"role": "admin"}]


@pytest.mark.story("DELETE /api/teams/{id}/members/{userId}")
def test_a_removed_member_is_in_the_team_no_more(ann, person):
    bob, cy = person("bob"), person("cy")
    team(1, {ann: "owner", bob: "member", cy: "member"})
    assert ann.delete(f"/teams/1/members/{bob.id}").json == {"data": {"deleted": True, "id": bob.id}}
    assert [one["user_id"] for one in ann.get("/teams/1/members").data] == [ann.id, cy.id]


@pytest.mark.story("GET /api/teams/{id}/invites")
def test_the_open_invitations_of_a_team_are_listed(ann):
    team(1, {ann: "admin"})
    one, two, three = invite(1, "team", 1), invite(2, "team", 1, role="admin", invited_by=ann.id), invite(3, "team", 1)
    invite(4, "team", 2), invite(5, "org", 1), invite(6, "team", 1, accepted_at=OLD), invite(7, "team", 1, revoked_at=OLD), invite(8, "team", 1, expires_at=OLD)
    assert listed(ann, "/teams/1/invites", [three, two, one], default=1000)


@pytest.mark.story("POST /api/teams/{id}/invites", "POST /api/teams/invites/{token}/accept")
def test_an_invitation_to_a_team_is_mailed_and_accepted(ann, person, posted, lately):
    before = team(1, {ann: "owner"})
    _, letter = made_invite(ann, "/teams/1/invites", {"email": "Bob@example.com", "role": "admin"}, lately, posted)
    bob = person("bob")
    accepted = bob.post(f"/teams/invites/{letter.token}/accept")
    assert accepted.json == {"data": before | {"member_count": 2, "role": "admin"}}
    assert bob.get("/teams").data == [accepted.data] and ann.get("/teams/1/invites").data == []
    assert ann.get("/teams/1/members").data[1] == seat(bob, "admin", lately)
    team(2, {ann: "owner"})
    made_invite(ann, "/teams/2/invites", {"email": "Bob@example.com"}, lately, posted)
