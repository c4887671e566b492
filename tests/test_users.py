"""Users: who sees whom, who changes whom, passwords and addresses, and bad input at the door."""
import statistics
import subprocess
import sys
import threading
import time

import apsw
import pytest
from conftest import HOME, Client, command, eventually, limiter

from orkosi import HOST_TENANT, Unauthorized, acting, db, now, settings, system
from plugins import keys, queue, users
from plugins.users import passwords, tokens

PASSWORD = "correct horse"


def who(client):
    return client.get("/auth/me").data["id"]


def log_in(anonymous, name="ann", password=PASSWORD):
    return anonymous.post("/auth/login", {"email": f"{name}@example.com", "password": password})


# ── people ──


def test_no_link_outlives_a_new_password_or_another_address(client, as_, posted, application):
    ann = as_("ann")
    number = ann.get("/auth/me").data["id"]
    ann.post("/auth/change-email", {"email": "thief@example.com", "password": "correct horse"})
    link = next(one for one in posted() if one["To"] == "thief@example.com").link
    Client(application).post("/auth/forgot-password", {"email": "ann@example.com"})
    reset = next(one for one in posted() if one["To"] == "ann@example.com" and "/reset/" in one.link).link
    assert Client(application).post("/auth/reset-password", {"token": reset.rpartition("/")[2], "password": "another horse battery"}).status == 200
    assert Client(application).post("/auth/verify-email", {"token": link.rpartition("/")[2]}).status == 404
    Client(application).post("/auth/forgot-password", {"email": "ann@example.com"})
    assert client.patch(f"/users/{number}", {"email": "ann.new@example.com"}).status == 200
    assert not [one for one in posted() if "/reset/" in (one.link or "")], "the letter that waited went to nobody"


def test_a_log_in_that_was_proven_by_the_old_password_opens_nothing(client, as_, data, monkeypatch):
    from plugins import users
    from plugins.users import account, passwords
    number = as_("ann").get("/auth/me").data["id"]
    plain = passwords.matches

    def meanwhile(password, hashed, **more):
        found = plain(password, hashed, **more)
        account.set_password(number, "another horse battery")
        return found
    monkeypatch.setattr(passwords, "matches", meanwhile)
    with pytest.raises(Unauthorized):
        users.sessions.log_in("ann@example.com", "correct horse", "")
    assert db.value("SELECT count(*) FROM sessions WHERE user_id = :id", id=number) == 0


@pytest.mark.parametrize("role, full", [("admin", True), ("editor", True), ("member", True), ("viewer", True), ("demo", False)])
def test_everybody_sees_everything_the_demo_names(as_, role, full):
    ann, bob = as_("ann"), as_("bob", role)
    shown = bob.get("/users").data
    assert [one["username"] for one in shown] == ["bob", "ann"], "newest first"
    assert ("email" in shown[1]) is full and ("role" in bob.get(f"/users/{who(ann)}").data) is full
    assert bob.get(f"/users/{who(bob)}").data["email"] == "bob@example.com", "oneself one sees"
    assert "password" not in str(shown)


@pytest.mark.parametrize("role, status", [("demo", 200), ("agent", 403), ("viewer", 200)])
def test_who_may_look(as_, role, status):
    assert as_("one", role).get("/users").status == status


def test_another_tenants_people_are_not_there(client, as_):
    founder = as_("founder", tenant=None)
    assert [one["username"] for one in founder.get("/users").data] == ["founder"] and "email" in founder.get("/users").data[0]
    assert founder.get("/users").meta["total"] == 1
    for answer in (founder.get(f"/users/{who(client)}"), client.get(f"/users/{who(founder)}"), client.patch(f"/users/{who(founder)}", {"role": "demo"}),
                   client.delete(f"/users/{who(founder)}")):
        assert answer.status == 404
    assert founder.patch(f"/users/{who(founder)}", {"username": "x"}).status == 403


@pytest.mark.parametrize("body, status", [
    ({"username": "Ann Äpfel"}, 200), ({"email": "new@example.com"}, 200), ({"role": "editor"}, 200), ({}, 200),
    ({"username": "root"}, 409), ({"username": "ROOT"}, 409), ({"email": "ROOT@example.com"}, 409), ({"role": "king"}, 400),
    ({"username": ""}, 400), ({"username": "a\u200bb"}, 400), ({"email": "аnn@example.com"}, 400), ({"password": "x"}, 400), ({"tenant_id": 2}, 400)])
def test_changing_a_user(client, as_, body, status):
    ann = as_("ann")
    answer = client.patch(f"/users/{who(ann)}", body)
    assert answer.status == status
    if status == 200:
        assert answer.data.items() >= body.items()
        assert ann.get("/auth/me").status == (401 if "role" in body else 200), "a new role ends the sessions"


def test_nobody_changes_their_own_role_and_the_last_administrator_stays(client, as_):
    assert client.patch(f"/users/{who(client)}", {"role": "editor"}).status == 403
    assert client.patch(f"/users/{who(client)}", {"role": "admin", "username": "boss"}).status == 200
    assert client.delete(f"/users/{who(client)}").status == client.delete("/users/me").status == 403
    other = as_("other", "admin")
    ids = {"client": who(client), "other": who(other)}
    answers = []
    threads = [threading.Thread(target=lambda one=one, id=id: answers.append(one.patch(f"/users/{id}", {"role": "viewer"}).status))
               for one, id in ((client, ids["other"]), (other, ids["client"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) in ([200, 401], [200, 409]) and db.value("SELECT count(*) FROM users WHERE role = 'admin' AND tenant_id = :tenant") == 1
    with pytest.raises(users.Conflict):
        users.people.set_role(db.value("SELECT email FROM users WHERE role = 'admin' AND tenant_id = :tenant"), "viewer")


# ── sessions ──


def test_a_copied_refresh_token_ends_its_session_and_its_owner_is_told(as_, anonymous):
    as_("ann")
    first = log_in(anonymous).json
    second = anonymous.post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json
    assert anonymous.post("/auth/refresh", {"refresh_token": first["refresh_token"]}).status == 200, "a repeat within ten seconds is no theft"
    third = anonymous.post("/auth/refresh", {"refresh_token": second["refresh_token"]})
    db.write(lambda: db.run("UPDATE sessions SET rotated_at = :then WHERE rotated_at IS NOT NULL", then=now(-60)))
    assert anonymous.post("/auth/refresh", {"refresh_token": first["refresh_token"]}).status == 401
    assert anonymous.post("/auth/refresh", {"refresh_token": second["refresh_token"]}).status == 401
    assert third.status in (200, 401)
    told = Client(anonymous.application, log_in(anonymous).json["token"]).get("/notifications").data
    assert [one["type"] for one in told] == ["warning"] and "refresh token" in told[0]["message"]


def test_own_sessions_are_listed_and_ended(as_, anonymous):
    ann, bob = as_("ann"), as_("bob")
    other = log_in(anonymous).json["token"]
    listed = ann.get("/auth/sessions").data
    assert len(listed) == 2 and [one["current"] for one in listed] == [False, True]
    assert bob.delete(f"/auth/sessions/{listed[0]['id']}").status == 404
    assert ann.delete(f"/auth/sessions/{listed[0]['id']}").status == 200
    assert Client(ann.application, other).get("/auth/me").status == 401 and ann.get("/auth/me").status == 200


# ── a forgotten password ──


def test_a_forgotten_password_is_replaced_by_the_mailed_link(as_, anonymous, posted):
    ann = as_("ann")
    known, unknown = (anonymous.post("/auth/forgot-password", {"email": f"{name}@example.com"}) for name in ("Ann", "nobody"))
    assert known.status == unknown.status == 200 and known.body == unknown.body
    letter, = posted()
    assert letter["To"] == "ann@example.com" and "/reset/ork_rst_" in letter.link
    assert anonymous.post("/auth/reset-password", {"token": letter.token, "password": "short"}).status == 400
    assert anonymous.post("/auth/reset-password", {"token": letter.token, "password": "another horse"}).status == 200
    assert anonymous.post("/auth/reset-password", {"token": letter.token, "password": "third horse!"}).status == 404, "good once"
    assert ann.get("/auth/me").status == 401, "every session ends"
    assert log_in(anonymous).status == 401 and log_in(anonymous, password="another horse").status == 200
    assert [one["Subject"] for one in posted()] == ["Your password for Orkosi was changed"]


@pytest.mark.parametrize("token", ["", "x", "ork_rst_" + "0" * 38, "ork_inv_x", "😀", "a\nb"])
def test_a_made_up_token_is_refused(anonymous, token):
    for path, more in (("/auth/reset-password", {"password": "another horse"}), ("/auth/verify-email", {}), ("/auth/invitation", {})):
        assert anonymous.post(path, {"token": token, **more}).status == (404 if token else 400)


def test_a_link_ends_after_half_an_hour_and_with_the_next(as_, anonymous, posted):
    as_("ann")
    for _ in range(2):
        anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    old, new = (letter.token for letter in posted())
    assert anonymous.post("/auth/reset-password", {"token": old, "password": "another horse"}).status == 404
    db.write(lambda: db.run("UPDATE tickets SET expires_at = :then", then=now(-1)))
    assert anonymous.post("/auth/reset-password", {"token": new, "password": "another horse"}).status == 404


def test_forgotten_passwords_are_limited_for_known_and_unknown_alike(as_, anonymous):
    as_("ann")
    for name in ("ann", "nobody"):
        assert [anonymous.post("/auth/forgot-password", {"email": f"{name}@example.com"}).status for _ in range(4)] == [200, 200, 200, 429]
    limiter.__init__()
    answers = [anonymous.post("/auth/forgot-password", {"email": f"x{n}@example.com"}).status for n in range(11)]
    assert answers == [200] * 10 + [429]


def timed(call, times=15):
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def test_an_unknown_account_takes_as_long_as_a_known_one(as_, anonymous, monkeypatch):
    as_("ann")
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8 * 1024)
    passwords._dummy.cache_clear()
    hashed = passwords.hashed(PASSWORD)
    db.write(lambda: db.run("UPDATE users SET password = :hashed WHERE tenant_id = :tenant", hashed=hashed))
    settings.values |= {"limit_forgot": "off", "limit_forgot_from": "off", "limit_login_account": "off"}
    for call in (lambda name: log_in(anonymous, name, "wrong horse"), lambda name: anonymous.post("/auth/forgot-password", {"email": f"{name}@example.com"})):
        call("ann"), call("nobody")
        turns = [(timed(lambda: call("ann")), timed(lambda: call("nobody"))) for _ in range(5)]  # noqa: B023  # by turns: a busy moment hits both
        known, unknown = min(one for one, _ in turns), min(one for _, one in turns)
        assert abs(known - unknown) < max(0.005, 0.5 * max(known, unknown)), (known, unknown)


# ── a new password, another address ──


def test_a_new_password_takes_the_old_one_and_ends_other_sessions(as_, anonymous, posted):
    ann = as_("ann")
    other = Client(ann.application, log_in(anonymous).json["token"])
    for body, status in (({"current_password": "wrong", "new_password": "another horse"}, 403),
                         ({"current_password": PASSWORD, "new_password": "password"}, 400), ({"current_password": PASSWORD}, 400)):
        assert ann.post("/auth/change-password", body).status == status
    assert ann.post("/auth/change-password", {"current_password": PASSWORD, "new_password": "another horse"}).data == {"logged_out": 1}
    assert ann.get("/auth/me").status == 200 and other.get("/auth/me").status == 401
    assert log_in(anonymous, password="another horse").status == 200 and len(posted()) == 1


def test_another_address_counts_once_its_link_was_followed(as_, anonymous, posted):
    ann, _ = as_("ann"), as_("bob")
    assert ann.post("/auth/change-email", {"email": "new@example.com", "password": "wrong"}).status == 403
    assert ann.post("/auth/change-email", {"email": "not one", "password": PASSWORD}).status == 400
    taken, fresh = (ann.post("/auth/change-email", {"email": f"{name}@example.com", "password": PASSWORD}) for name in ("bob", "new"))
    assert taken.body == fresh.body
    letter, = posted()
    assert letter["To"] == "new@example.com" and "/verify/ork_eml_" in letter.link and ann.get("/auth/me").data["email"] == "ann@example.com"
    assert anonymous.post("/auth/verify-email", {"token": letter.token}).status == 200
    assert anonymous.post("/auth/verify-email", {"token": letter.token}).status == 404
    assert ann.get("/auth/me").data["email"] == "new@example.com" and [one["To"] for one in posted()] == ["ann@example.com"]


def test_an_address_that_was_taken_meanwhile_is_not_given_twice(as_, anonymous, posted):
    as_("ann").post("/auth/change-email", {"email": "new@example.com", "password": PASSWORD})
    as_("new")
    assert anonymous.post("/auth/verify-email", {"token": posted()[0].token}).status == 404


def test_guessing_at_ones_own_password_is_limited(as_):
    ann = as_("ann")
    answers = [ann.post("/auth/change-password", {"current_password": "wrong", "new_password": "another horse"}).status for _ in range(11)]
    assert answers == [403] * 10 + [429]


# ── many at once, and strangers ──


def knocking(server, times, body, patience=30):
    """The statuses of `times` log-ins at once, over HTTP."""
    answers, start = [], threading.Barrier(times)

    def knock():
        start.wait()
        answers.append(server.call("POST", "/auth/login", body, timeout=patience)[0])
    threads = [threading.Thread(target=knock) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


OLD_HASH = """
import sys; sys.path.insert(0, {home!r})
import os, apsw
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
made = Argon2id(salt=os.urandom(16), length=32, iterations=3, lanes=4, memory_cost=65536).derive_phc_encoded(b"correct horse battery")
con = apsw.Connection({file!r}); con.set_busy_timeout(5000)
con.execute("UPDATE users SET password = ?", (made,))
"""


@pytest.mark.parametrize("kind", ["today's", "four lanes, as earlier versions made"])
@pytest.mark.slow
def test_thirty_log_ins_at_once_are_all_answered(server, kind):
    """Two derivations at once, with four lanes each, wait for each other for good: then nobody logs in any more."""
    running = server(env={"ORKOSI_LIMIT_LOGIN_ACCOUNT": "off"})
    server.admin(running)
    if kind != "today's":
        code = OLD_HASH.format(home=str(HOME), file=str(running.folder / "orkosi.db"))
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    body = {"email": "root@example.com", "password": "correct horse battery"}
    assert knocking(running, 30, body) == [200] * 30
    assert running.call("POST", "/auth/login", body)[0] == 200
    assert knocking(running, 30, body | {"password": "wrong horse"}).count(401) >= 10
    assert knocking(running, 2, body) == [200] * 2
    running.stop()
    stored = apsw.Connection(str(running.folder / "orkosi.db")).execute("SELECT password FROM users").fetchall()[0][0]
    assert "$m=47104,t=1,p=1$" in stored, "an old hash is made anew at the next log-in"


@pytest.mark.parametrize("body", [{}, {"email": "ann@example.com"}, {"email": 5, "password": "x"}, {"email": "ann@example.com", "password": "x", "more": 1}, "x"])
def test_what_is_no_log_in_is_not_counted(as_, anonymous, body):
    as_("ann")
    settings.values |= {"limit_login": "3/h", "limit_login_account": "3/h", "limit_refresh": "3/h"}
    assert {anonymous.post("/auth/login", body).status for _ in range(20)} == {400}
    assert {anonymous.post("/auth/refresh", body).status for _ in range(20)} == {400}
    tokens = log_in(anonymous).json
    assert {anonymous.post("/auth/refresh", {"refresh_token": "junk"}).status for _ in range(20)} == {401}
    assert anonymous.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status == 200


def test_a_stranger_cannot_lock_out_the_right_password(as_, anonymous):
    as_("ann")
    settings.values |= {"limit_login": "5/h", "limit_login_account": "5/h"}
    assert [log_in(anonymous, password=f"wrong horse {n}").status for n in range(8)] == [401] * 5 + [429] * 3
    assert [log_in(anonymous, f"nobody{n}").status for n in range(3)] == [429] * 3
    assert [log_in(anonymous).status for _ in range(12)] == [200] * 12, "from the very same address"
    assert log_in(Client(anonymous.application, address="10.0.0.9"), password="wrong horse").status == 401, "elsewhere it is counted anew"


def test_a_stranger_cannot_use_up_the_refreshes_of_somebody(as_, anonymous):
    as_("ann")
    settings.values["limit_refresh"] = "3/h"
    made_up = [anonymous.post("/auth/refresh", {"refresh_token": tokens.mint("ref")}).status for _ in range(5)]
    assert made_up == [401] * 3 + [429] * 2
    pair = log_in(anonymous).json
    for status in (200, 200, 200, 429):
        answer = anonymous.post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
        assert answer.status == status
        pair = answer.json


# ── refresh tokens of long ago ──


def test_any_ancestor_that_comes_back_ends_the_family(as_, anonymous):
    as_("ann")
    chain = [log_in(anonymous).json]
    for _ in range(6):
        chain.append(anonymous.post("/auth/refresh", {"refresh_token": chain[-1]["refresh_token"]}).json)
    live = Client(anonymous.application, chain[-1]["token"])
    assert live.get("/auth/me").status == 200 and len({one["token"] for one in chain}) == 7
    assert anonymous.post("/auth/refresh", {"refresh_token": chain[1]["refresh_token"]}).status == 401
    assert live.get("/auth/me").status == 401 and anonymous.post("/auth/refresh", {"refresh_token": chain[-1]["refresh_token"]}).status == 401
    assert db.value("SELECT count(*) FROM spent_tokens") == 0
    assert [one["source"] for one in Client(anonymous.application, log_in(anonymous).json["token"]).get("/notifications").data] == ["security"]


def test_a_request_repeated_at_once_gets_the_same_pair(as_, anonymous):
    as_("ann")
    first = log_in(anonymous).json["refresh_token"]
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(anonymous.post("/auth/refresh", {"refresh_token": first}).json)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(one["token"], one["refresh_token"]) for one in answers}) == 1
    assert Client(anonymous.application, answers[0]["token"]).get("/auth/me").status == 200
    assert anonymous.post("/auth/refresh", {"refresh_token": answers[0]["refresh_token"]}).status == 200, "and it can go on"


# ── bad input at the door ──


def test_of_two_hundred_parallel_log_ins_ten_are_admitted(as_, application):
    as_("ann")
    settings.values["limit_login"] = "10/h"
    answers, start = [], threading.Barrier(20)

    def knock():
        start.wait()
        for _ in range(10):
            answers.append(log_in(Client(application), password="wrong horse").status)
    threads = [threading.Thread(target=knock) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [401] * 10 + [429] * 190


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer x", "bearer ork_ses_" + "0" * 38, "Basic YTpi", "Bearer " + "A" * (1 << 20),
                                    "Bearer \x00\x01", "Bearer ork_ses_\u00e9", "\t", "Bearer ork_live_'; DROP TABLE users; --", "Bearer a b c"])
def test_a_header_of_junk_is_nobody(anonymous, header):
    for name in ("Authorization", "X-API-Key"):
        assert anonymous.get("/auth/me", headers={name: header}).status == 401


@pytest.mark.parametrize("fields, wrong", [
    ({"email": "аnn@example.com"}, "email"), ({"email": "ann@exаmple.com"}, "email"), ({"email": "ann@"}, "email"), ({"email": "a\r\nb@example.com"}, "email"),
    ({"username": "a\u202eb"}, "username"), ({"username": "\u0007"}, "username"), ({"username": "\u3164\u200b"}, "username"), ({"username": " "}, "username"),
    ({"username": "x" * 61}, "username"), ({"password": "short"}, "password"), ({"password": "x" * 129}, "password"), ({"role": "admin"}, "role"),
    ({"terms_accepted": False}, "terms_accepted"), ({"email": 5}, "email"), ({"email": None}, "email")])
def test_a_registration_names_what_is_wrong(anonymous, fields, wrong):
    settings.values["registration"] = "open"
    body = {"username": "Ann", "email": "ann@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    answer = anonymous.post("/auth/register", body | fields)
    assert answer.status == 400 and wrong in answer.wrong


def test_where_registration_is_closed_no_invitation_opens_it(as_, anonymous, posted, data):
    settings.values["registration"] = "closed"
    ann, bob = as_("ann"), as_("bob")
    org = ann.post("/organizations", {"name": "Yours"}).data["id"]
    for email in ("stranger@example.com", "bob@example.com"):
        assert ann.post(f"/organizations/{org}/invites", {"email": email}).status == 201
    letters = {one["To"]: one for one in posted()}
    assert not [one for one in letters.values() if "invite_code" in one.as_string()]
    body = {"username": "stranger", "email": "stranger@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    for more in ({}, {"invite_code": letters["stranger@example.com"].token}):
        answer = anonymous.post("/auth/register", body | more)
        assert answer.status == 400 and "closed" in answer.error["message"]
    assert db.value("SELECT count(*) FROM users WHERE username = 'stranger'") == 0
    assert bob.post(f"/organizations/invites/{letters['bob@example.com'].token}/accept").status == 200, "who has an account accepts"
    refused = command("invite", "create", "new@example.com", folder=data, env={"ORKOSI_REGISTRATION": "closed"}, check=False)
    assert refused.returncode and "user add new@example.com" in refused.stderr
    settings.values["registration"] = "invite"
    assert anonymous.post("/auth/register", body | {"invite_code": letters["stranger@example.com"].token}).status == 201


@pytest.mark.parametrize("name", ["Ann", "Ünïcødé", "李雷", "عمر", "Zoë 🛠"])
def test_a_name_may_be_in_any_script(anonymous, name):
    settings.values["registration"] = "open"
    body = {"username": name, "email": "ann@example.com", "password": PASSWORD, "terms_accepted": True, "privacy_accepted": True}
    made = anonymous.post("/auth/register", body)
    assert made.status == 201 and made.data["username"] == name
    assert anonymous.post("/auth/register", body | {"email": "b@example.com", "username": name.upper()}).status == 409


def test_no_key_manages_people(as_, client):
    _, raw = keys.issue(HOST_TENANT, "all", keys.SCOPES, by=who(client))
    key = Client(client.application, raw)
    for method, path in (("PATCH", "/users/1"), ("DELETE", "/users/me"), ("GET", "/auth/sessions"), ("POST", "/auth/logout")):
        assert key.request(method, path).status == 403
    assert key.post("/auth/change-password", {"current_password": "x", "new_password": "another horse"}).status == 403


def test_no_token_of_a_letter_is_kept_after_it_is_sent(as_, anonymous, posted):
    as_("ann")
    anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    token = posted()[0].token
    with acting(system(HOST_TENANT)):
        jobs = queue.db.all(tuple, "SELECT payload, error, result FROM jobs WHERE tenant_id = :tenant")
    assert token not in str(jobs) and "ann@" not in str(jobs) and db.value("SELECT count(*) FROM letters") == 0
    assert db.value("SELECT hash FROM tickets") == tokens.digest(token)


# ── commands ──


@pytest.mark.parametrize("beside", [True, False], ids=["beside a server", "without one"])
@pytest.mark.slow
def test_the_commands_of_users(server, tmp_path, beside):
    folder, stdin = tmp_path / "data", "correct horse battery\n"
    running = server() if beside else None
    for name, role in (("root", "admin"), ("zzcanary", "viewer")):
        command("user", "add", f"{name}@example.com", "--role", role, "--password-stdin", folder=folder, stdin=stdin)
    assert [line.split()[1] for line in command("user", "list", folder=folder).stdout.splitlines()] == ["admin", "viewer"]
    command("user", "role", "zzcanary@example.com", "--role", "editor", folder=folder)
    command("user", "password", "ZZcanary@example.com", "--password-stdin", folder=folder, stdin="another horse battery\n")
    if beside:
        log_in = {"email": "zzcanary@example.com", "password": "another horse battery"}
        status, answer = running.call("POST", "/auth/login", log_in)
        assert status == 200 and answer["user"]["role"] == "editor"
        assert running.call("POST", "/auth/login", log_in | {"password": stdin.strip()})[0] == 401
    code = command("invite", "create", "new@example.com", "--mail", folder=folder)
    assert code.stdout.startswith("ork_inv_") and "mail" in code.stdout
    for words, said in ((("role", "root@example.com", "--role", "viewer"), "last administrator"), (("erase", "root@example.com", "--yes"), "last administrator"),
                        (("erase", "nobody@example.com", "--yes"), "Nobody has"), (("role", "zzcanary@example.com"), "which role"), (("erase",), "whom"),
                        (("password", "root@example.com"), "--password-stdin")):
        refused = command("user", *words, folder=folder, check=False)
        assert refused.returncode == 1 and said in refused.stderr
    assert "Nothing was done" in command("user", "erase", "zzcanary@example.com", folder=folder, stdin="n\n").stdout
    assert "erased" in command("user", "erase", "zzcanary@example.com", "--yes", folder=folder).stdout
    if beside:
        assert running.call("GET", "/auth/me", token=answer["token"])[0] == 401
        letter = eventually(lambda: [one for one in (folder / "outbox").glob("*.eml") if "invites you" in one.read_text()])[0].read_text()
        assert f"{running.url}/invite/ork_inv_" in letter.replace("=\n", "").replace("=\r\n", "")
    traces = subprocess.run(["grep", "-rlai", "zzcanary", str(folder)], capture_output=True, text=True).stdout
    assert traces == ""
