"""The kernel's own promises: limits, upgrades, requests, the rate of a rule."""
import threading

import apsw
import pytest

from orkosi import HOME, Invalid, Refused, TooMany, acting, db, settings, system, terms, upgrade
from plugins.server.limits import Limiter, parse_rate

SCHEMA = open(f"{HOME}/schema.sql").read()


@pytest.mark.parametrize("rule, found", [("300/minute", (300, 60.0)), ("20/5s", (20, 5.0)), ("10/3m", (10, 180.0)), ("5/h", (5, 3600.0))])
def test_rates(rule, found):
    assert parse_rate(rule) == found


@pytest.mark.parametrize("rule", ["", "many", "5", "5/", "5/year", "-1/s"])
def test_what_is_no_rate(rule):
    with pytest.raises(Invalid):
        parse_rate(rule)


def test_parallel_calls_are_admitted_exactly_to_the_limit(data, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_login", "10/minute")
    limiter, admitted = Limiter(), []

    def call():
        try:
            limiter.take("login", "somebody")
            admitted.append(1)
        except TooMany as problem:
            assert 0 < int(problem.headers["Retry-After"]) <= 61
    callers = [threading.Thread(target=call) for _ in range(200)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert len(admitted) == 10


def test_the_limiter_is_bounded(data, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_login", "10/minute")
    limiter = Limiter()
    for number in range(50_100):
        limiter.take("login", str(number))
    assert len(limiter._windows) == 50_000


@pytest.mark.parametrize("q, found", [("fix login", '"fix"* "login"*'), ('"', None), ("-x", '"x"*'), ("", None), ("NEAR(a", '"NEAR"* "a"*'),
                                      ("ünï", '"ünï"*'), ("a " * 50, " ".join(['"a"*'] * 8))])
def test_search_terms_hold_no_operators(q, found):
    assert terms(q) == found


def changed(old, new, version=2):
    assert old in SCHEMA
    return SCHEMA.replace(old, new, 1).replace("user_version = 1", f"user_version = {version}")


def test_an_upgrade_adds_columns_and_rebuilds_indexes_after_a_snapshot(data):
    with acting(system()):
        db.write(lambda: db.run("INSERT INTO products (tenant_id, name, slug, created_at, updated_at) VALUES (1, 'a', 'a', 'x', 'x')"))
    done = upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,"))
    assert done == ["add products.motto"]
    assert upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,")) == []
    assert db.value("SELECT motto IS NULL FROM products") == 1
    snapshot, = (data / "backups").glob("before-upgrade-1-*.db")
    con = apsw.Connection(str(snapshot))
    assert con.execute("SELECT name FROM products").fetchall() == [("a",)]
    con.close()


@pytest.mark.parametrize("schema, word", [
    (changed("  tagline TEXT,\n", ""), "tagline"),
    (changed("  tagline TEXT,", "  tagline INTEGER,"), "tagline"),
    (changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT NOT NULL,"), "motto"),
])
def test_a_risky_change_is_refused_by_name_and_changes_nothing(data, schema, word):
    with pytest.raises(Refused, match=word):
        upgrade(schema)
    assert upgrade() == []


def test_a_newer_file_is_refused(data):
    upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,", version=7))
    with pytest.raises(Refused, match="newer Orkosi"):
        upgrade()


@pytest.mark.parametrize("path, status", [("/tasks/..", 400), ("/tasks/%2e%2e", 400), ("/tasks/1\x00", 400), ("/tasks/1\n", 400), ("/products/a\x7f", 400)])
def test_path_parameters_hold_nothing_odd(client, path, status):
    from urllib.parse import unquote
    assert client.get(unquote(path)).status == status


@pytest.mark.parametrize("headers, status", [
    ({"Authorization": "Bearer " + "x" * 20_000}, 401), ({"Authorization": "Bearer"}, 401), ({"Authorization": "Basic YTpi"}, 401),
    ({"Authorization": "Bearer ork_ses_short"}, 401), ({"X-API-Key": "\x01\x02"}, 401), ({"Authorization": "Bearer ö"}, 401)])
def test_junk_credentials_are_401(anonymous, headers, status):
    answer = anonymous.get("/auth/me", headers=headers)
    assert (answer.status, answer.code) == (status, "unauthorized")


def test_answers_carry_the_security_headers(anonymous):
    headers = anonymous.get("/health").headers
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Request-Id"]
    assert anonymous.get("/health", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    assert anonymous.get("/health", headers={"X-Request-Id": "bad\r\nid"}).headers["X-Request-Id"] != "bad\r\nid"


def test_an_unforeseen_error_is_500_and_says_nothing(client, monkeypatch, caplog):
    from plugins import tasks
    monkeypatch.setattr(tasks, "why", lambda task: 1 / 0)
    id = client.post("/tasks", {"title": "x"}).data["id"]
    answer = client.get(f"/tasks/{id}")
    assert answer.status == 500 and answer.error["message"] == "Internal error"
    assert answer.error["request_id"] in caplog.text and "ZeroDivisionError" in caplog.text  # the log has what the answer has not


def test_a_pattern_is_told_in_words(client):
    answer = client.post("/agents", {"name": "Felix!"})
    assert answer.error["details"] == [{"field": "name", "message": "Not acceptable: 2 to 31 lower-case letters, digits and -, a letter first"}]
