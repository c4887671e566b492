"""Teams: seen by their tenant, changed by their own people."""
import threading

import pytest
from conftest import CURSOR, Client, Like

from orkosi import HOST_TENANT, db
from plugins import keys


def who(client):
    return client.get("/auth/me").data["id"]


@pytest.fixture
def crew(as_):
    """A team with one person of each rank."""
    class Crew:
        pass
    made = Crew()
    made.owner = as_("tina")
    made.id = made.owner.post("/teams", {"name": "Crew"}).data["id"]
    for rank in ("admin", "member"):
        setattr(made, rank, as_(f"t-{rank}"))
        assert made.owner.post(f"/teams/{made.id}/members", {"user_id": who(getattr(made, rank)), "role": rank}).status == 201
    made.colleague, made.foreigner = as_("colleague"), as_("foreigner", tenant=None)
    return made


@pytest.mark.parametrize("body, status", [
    ({"name": "Crew"}, 201), ({"name": "  Crew  ", "description": "Ships"}, 201), ({"name": "Crew é 船"}, 201), ({"name": ""}, 400),
    ({"name": " "}, 400), ({"name": "a\tb"}, 400), ({"name": "x" * 101}, 400), ({"name": "x", "nmae": 1}, 400), ({}, 400)])
def test_making_a_team(as_, body, status):
    made = as_("tina").post("/teams", body)
    assert made.status == status
    if status == 201:
        assert made.data["name"] == body["name"].strip() and made.data["member_count"] == 1 and made.data["role"] == "owner"


@pytest.mark.parametrize("who_, see, change", [
    ("owner", 200, 200), ("admin", 200, 200), ("member", 200, 403), ("colleague", 200, 403), ("foreigner", 404, 404)])
def test_who_sees_and_changes_a_team(crew, who_, see, change):
    one, path = getattr(crew, who_), f"/teams/{crew.id}"
    assert one.get(path).status == one.get(path + "/members").status == see
    assert one.patch(path, {"description": "new"}).status == one.get(path + "/invites").status == change
    assert one.post(path + "/invites", {"email": "x@example.com"}).status == (201 if change == 200 else change)
    assert one.delete(path).status == change


def test_a_team_shows_its_members_by_rank(crew):
    shown = crew.colleague.get(f"/teams/{crew.id}").data
    assert [one["role"] for one in shown["members"]] == ["owner", "admin", "member"] and shown["member_count"] == 3
    assert crew.colleague.get(f"/teams/{crew.id}/members?limit=1").meta == {"total": 3, "limit": 1, "offset": 0, "has_more": True, "next_after": Like(CURSOR)}


@pytest.mark.parametrize("part, found", [("rew", 1), ("CREW", 1), ("%", 1), ("_rew", 0), ("\\", 0), ("100%25", 1), ("STRASSE", 1), ("", 3)])
def test_a_part_of_a_name_finds_a_team(crew, part, found):
    crew.owner.post("/teams", {"name": "100% done"})
    crew.owner.post("/teams", {"name": "Straße"})
    listed = crew.owner.get(f"/teams?name={part}")
    # A percent sign is a letter here; only the name that has one is found.
    assert len(listed.data) == found and listed.meta["total"] == len(listed.data)


def test_whoever_runs_the_tenant_acts_as_an_owner(crew, client, as_):
    assert client.patch(f"/teams/{crew.id}/members/{who(crew.owner)}", {"role": "member"}).status == 409
    assert client.patch(f"/teams/{crew.id}/members/{who(crew.admin)}", {"role": "owner"}).status == 200
    assert client.delete(f"/teams/{crew.id}").status == 200 and as_("late").get(f"/teams/{crew.id}").status == 404


@pytest.mark.parametrize("actor, target, role, status", [
    ("admin", "member", "admin", 200), ("admin", "member", "owner", 403), ("admin", "owner", "member", 403),
    ("member", "member", "admin", 403), ("colleague", "member", "admin", 403), ("foreigner", "member", "admin", 404),
    ("owner", "admin", "owner", 200), ("owner", "owner", "admin", 409)])
def test_ranks_hold(crew, actor, target, role, status):
    assert getattr(crew, actor).patch(f"/teams/{crew.id}/members/{who(getattr(crew, target))}", {"role": role}).status == status


@pytest.mark.parametrize("actor, target, status", [
    ("admin", "member", 200), ("admin", "owner", 403), ("member", "member", 200), ("member", "admin", 403), ("owner", "owner", 409),
    ("colleague", "member", 403), ("colleague", "colleague", 404), ("foreigner", "member", 404)])
def test_who_removes_whom(crew, actor, target, status):
    assert getattr(crew, actor).delete(f"/teams/{crew.id}/members/{who(getattr(crew, target))}").status == status


def test_two_owners_cannot_both_resign(crew):
    ids = {"owner": who(crew.owner), "admin": who(crew.admin)}
    crew.owner.patch(f"/teams/{crew.id}/members/{ids['admin']}", {"role": "owner"})
    answers = []
    threads = [threading.Thread(target=lambda name=name: answers.append(
        getattr(crew, name).delete(f"/teams/{crew.id}/members/{ids[name]}").status)) for name in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409]


def test_members_are_of_the_tenant(crew):
    path = f"/teams/{crew.id}/members"
    assert crew.owner.post(path, {"user_id": who(crew.foreigner)}).status == 404
    assert crew.owner.post(path, {"user_id": who(crew.member)}).status == 409
    assert crew.owner.post(path, {"user_id": "5"}).status == crew.owner.post(path, {"user_id": 0}).status == 400
    assert crew.admin.post(path, {"user_id": who(crew.colleague), "role": "owner"}).status == 403
    assert crew.admin.post(path, {"user_id": who(crew.colleague)}).data["role"] == "member"


def test_an_invitation_is_for_its_address_and_its_tenant(crew, as_, posted):
    for name in ("ann", "far"):
        assert crew.admin.post(f"/teams/{crew.id}/invites", {"email": f"{name}@example.com"}).status == 201
    assert crew.admin.post(f"/teams/{crew.id}/invites", {"email": "ann@example.com"}).status == 409
    mine, far = (letter.token for letter in posted())
    assert as_("far", tenant=None).post(f"/teams/invites/{far}/accept").status == 404
    assert crew.colleague.post(f"/teams/invites/{mine}/accept").status == 404
    ann = as_("ann")
    assert ann.post(f"/organizations/invites/{mine}/accept").status == 404, "it is not to an organization"
    assert ann.post(f"/teams/invites/{mine}/accept").data["role"] == "member"
    assert ann.post(f"/teams/invites/{mine}/accept").status == 404
    assert [one["email"] for one in crew.owner.get(f"/teams/{crew.id}/invites").data] == ["far@example.com"]


def test_an_invitation_lets_somebody_register(crew, anonymous, posted):
    crew.owner.post(f"/teams/{crew.id}/invites", {"email": "new@example.com", "role": "admin"})
    made = anonymous.post("/auth/register", {"username": "new", "email": "new@example.com", "password": "correct horse", "terms_accepted": True,
                                             "privacy_accepted": True, "invite_code": posted()[0].token})
    assert made.data["tenant_id"] == HOST_TENANT and crew.owner.get(f"/teams/{crew.id}").data["members"][1]["role"] == "admin"


def test_an_invitation_ends_with_the_rank_of_its_sender(crew, as_, posted):
    crew.admin.post(f"/teams/{crew.id}/invites", {"email": "ann@example.com"})
    crew.owner.patch(f"/teams/{crew.id}/members/{who(crew.admin)}", {"role": "member"})
    assert as_("ann").post(f"/teams/invites/{posted()[0].token}/accept").status == 404
    assert db.value("SELECT count(*) FROM team_members") == 3


def test_no_key_comes_in(crew, application):
    _, raw = keys.issue(HOST_TENANT, "all", keys.SCOPES, by=who(crew.owner))
    assert Client(application, raw).post("/teams", {"name": "x"}).status == 403
