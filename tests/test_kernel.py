"""The kernel's own promises: limits, upgrades, requests, the rate of a rule."""
import contextlib
import functools
import gc
import os
import re
import subprocess
import sys
import threading
import time

import apsw
import msgspec
import pytest
from conftest import eventually

import orkosi
from orkosi import HOME, Database, Invalid, Settings, TooMany, Write, acting, db, endpoints, settings, strict, system
from plugins import storage, tasks
from plugins.fields import terms
from plugins.server.limits import Limiter, parse_rate
from plugins.storage import Refused, upgrade

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


@pytest.mark.slow
def test_the_limiter_is_bounded(data, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_login", "10/minute")
    limiter = Limiter()
    for number in range(50_100):
        limiter.take("login", str(number))
    assert len(limiter._windows) == 50_000


@pytest.mark.parametrize("q, found", [("fix login", '"fix"* "login"*'), ('"', None), ("-x", '"x"*'), ("", None), ("NEAR(a", '"NEAR"* "a"*'),
                                      ("ünï", '"ünï"*'), ("a " * 50, '"a"*'), ("a A b B á", '"á"* "B"*'),
                                      (" ".join("abcdefgh"), " ".join(f'"{letter}"*' for letter in "abcdefgh"))])
def test_search_terms_hold_no_operators(q, found):
    assert terms(q) == found


@pytest.mark.parametrize("q", [" ".join("abcdefghi"), "a " * 101, "a" * 201])
def test_a_search_of_more_than_it_takes_is_refused_instead_of_cut(q):
    with pytest.raises(Invalid, match="at most 8 different words, in at most 200 characters"):
        terms(q)


def changed(old, new, ahead=1):
    assert old in SCHEMA
    return re.sub(r"user_version = (\d+)", lambda found: f"user_version = {int(found[1]) + ahead}", SCHEMA.replace(old, new, 1))


def test_an_upgrade_adds_columns_and_rebuilds_indexes_after_a_snapshot(data):
    with acting(system()):
        db.write(lambda: db.run("INSERT INTO products (tenant_id, name, slug, created_at, updated_at) VALUES (1, 'a', 'a', 'x', 'x')"))
    done = upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,"))
    assert done == ["add products.motto"]
    assert upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,")) == []
    assert db.value("SELECT motto IS NULL FROM products") == 1
    snapshot, = (data / "backups").glob("before-upgrade-*.db")
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
    upgrade(changed("  tagline TEXT,", "  tagline TEXT,\n  motto TEXT,", ahead=6))
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


WORST = {  # each of the largest size that a body may have, in the shape that costs most
    "a string that never ends": b"[" + b"[]," * 40 + b'"' + b'\\"' * 499_000,
    "one that ends within a backslash": b'"' + b"\\\\" * 500_000,
    "brackets that open": b"[" * 1_000_000,
    "brackets within strings": b'["' + b"[" * 999_000 + b'"]',
    "many short lists": b"[" + b"[]," * 330_000 + b"[]]",
    "many names, of which the last two are one": b"{" + b",".join(b'"k%d":1' % number for number in range(80_000)) + b',"k79999":1}',
    "halves of characters": b'{"a": "' + b"\\ud800" * 160_000 + b'"}',
    "whole characters, written as halves": b'{"a": "' + b"\\ud83d\\ude00" * 80_000 + b'"}',
    "a long number": b'{"a": ' + b"1" * 1_000_000 + b"}",
}


@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
def test_no_body_takes_long_to_be_looked_at(body):
    gc.freeze()  # as a server does: what a thousand tests have left behind is not looked through for garbage meanwhile
    began = time.process_time()
    try:
        with contextlib.suppress(Invalid):
            strict(body)
        assert time.process_time() - began < 1.5
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("body, field", [
    (b'{"title": "\\ud800"}', "title"), (b'{"title": "x", "meta": {"deep": ["\\udfff"]}}', "meta"), (b'{"a\\udc00": 1}', "a\\xdc00"),
    (b'{"\\ud800": 1, "\\ud800": 2}', "\\xd800"), (b'"\\ud800"', "")])
def test_half_a_character_is_refused_and_its_field_named(body, field):
    with pytest.raises(Invalid) as refused:
        strict(body)
    assert refused.value.details[0]["field"] == field


@pytest.mark.parametrize("depth, fine", [(32, True), (33, False)])
def test_depth_is_counted_to_the_last_bracket(depth, fine):
    body = b'{"a": "]]]\\"[[[", "b": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    if fine:
        assert strict(body)["a"] == ']]]"[[['
    else:
        with pytest.raises(Invalid, match="deeper than 32"):
            strict(body)


def test_every_text_field_refuses_half_a_character(application, client):
    """A body of nothing but the field: no operation answers 500, whatever its field is called."""
    tried = 0
    for endpoint in endpoints():
        for one in msgspec.structs.fields(endpoint.body_type) if endpoint.body_type else ():
            path = re.sub(r"\{\w+\}", lambda found: "felix" if found[0] == "{name}" else "1", endpoint.path)
            answer = client.request(endpoint.method, path, raw=b'{"%s": "\\ud83d"}' % one.encode_name.encode())
            if answer.status not in (401, 403, 404, 429):
                assert answer.status == 400 and one.encode_name in answer.wrong, (endpoint.operation, answer)
                tried += 1
    assert tried > 88


def test_a_query_of_too_many_fields_is_refused(client):
    assert client.get("/tasks?" + "&".join(f"a{number}=1" for number in range(101))).status == 400
    assert client.get("/tasks?" + "&".join(f"a{number}=1" for number in range(100))).wrong[0] == "a0"


@pytest.mark.parametrize("method, path, allow", [
    ("PUT", "/api/tasks", "HEAD, GET, POST"), ("BREW", "/api/tasks/1", "HEAD, GET, PATCH, DELETE"), ("GET", "/api/task-queue/claim", None),
    ("DELETE", "/api/auth/login", "POST"), ("HEAD", "/api/auth/login", "POST"), ("OPTIONS", "/api/health", "HEAD, GET")])
def test_what_a_path_answers_instead(client, method, path, allow):
    answer = client.request(method, path)
    assert answer.headers.get("Allow") == allow and answer.status == (405 if allow else 404 if "claim" not in path else 400)


def test_the_description_is_written_once(client, monkeypatch):
    from plugins.docs import api
    made, plain = [], api.openapi
    monkeypatch.setattr(api, "openapi", lambda url: made.append(url) or plain(url))
    api.written.cache_clear()
    first = client.get("/openapi.json").body
    for _ in range(5):
        assert len(first) > 100_000 and client.get("/openapi.json").body == first
    assert len(made) == 1


def test_a_read_that_outlives_its_folder_leaves_no_connection_to_the_next(data, tmp_path, monkeypatch):
    reads, closed, plain = threading.Event(), threading.Event(), Database._rows

    def slowly(self, con, kind, sql, params):
        if sql == "SELECT 1":
            reads.set()
            assert closed.wait(10)
        return plain(self, con, kind, sql, params)

    def look():
        with acting(system()):
            db.value("SELECT 1")
    monkeypatch.setattr(Database, "_rows", slowly)
    reader = threading.Thread(target=look)
    reader.start()
    assert reads.wait(10)
    storage.close_data()
    settings.load(data=tmp_path / "next")
    storage.open_data(exclusive=True)
    closed.set()
    reader.join()
    assert db.value("SELECT file FROM pragma_database_list WHERE name = 'main'") == str(tmp_path / "next/orkosi.db")


def test_statements_without_end_fill_no_memory(data):
    for number in range(2500):
        assert db.one(dict, f"SELECT :word || {number} AS said", word="n") == {"said": f"n{number}"}
    assert 0 < len(db._picks) <= 2000 and 0 < len(db._builders) <= 2000
    with pytest.raises(KeyError):
        db.value("SELECT :word, :other", word="n")


def fill_with_tasks():
    with acting(system()):
        db.write(lambda: db.run_many("""INSERT INTO tasks (tenant_id, title, title_key, assignee, created_by, created_at, updated_at)
                                        VALUES (1, :n, :n, :n, 'x', :n, :n)""", ({"n": f"{n * 7919 % 5003} of {n}"} for n in range(5000))))


def test_taking_tasks_back_needs_no_file(data):
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("only /proc tells which files are open")

    def files():
        names = set()
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                names.add(os.readlink(f"/proc/self/fd/{fd}"))
        return names

    def in_the_middle():
        for number in range(16):
            tasks.create(tasks.NewTask(title=f"Task {number} {'word ' * 20}", assignee="a"))
        return files()
    fill_with_tasks()
    with acting(system()):
        assert db.write(in_the_middle) <= files() | {str(data / "logs.db-wal"), str(data / "logs.db-shm")}


def test_crowds_of_tasks_are_created_in_few_transactions(data):
    fill_with_tasks()
    commits = db.commits

    def at_once(turn):
        bell = threading.Semaphore(0)  # rung for each that is finished, and where the turn comes back to us
        crowd = [Write(functools.partial(tasks.create, tasks.NewTask(title=f"One of a crowd, {turn}-{n}", dedupe=False)), system(), True,
                       lambda _: bell.release()) for n in range(64)]
        db.write_all(crowd, bell)
        assert [item.error for item in crowd] == [None] * 64
    for turn in range(40):  # now and then, one of them merges what the search index has in pieces
        at_once(turn)
    assert db.commits - commits < 40 * 16
    with acting(system()):
        assert db.value("SELECT count(*) FROM tasks WHERE title LIKE 'One of a crowd%'") == 40 * 64


OTHER = "import apsw, sys; con = apsw.Connection(sys.argv[1]); con.execute(\"INSERT INTO signing_secrets VALUES ('other', x'00')\")"


def test_a_stamp_holds_until_anybody_commits(data):
    def changed():
        before, first = db.stamp(), stamps[-1]
        stamps.append(before)
        return before != first
    stamps = [db.stamp()]
    assert not changed() and not changed()
    db.write(lambda: db.run("INSERT INTO signing_secrets VALUES ('one', x'00')"))
    assert changed() and not changed()
    subprocess.run([sys.executable, "-c", OTHER, str(data / "orkosi.db")], check=True, timeout=30)  # a process that is none of ours
    assert changed() and not changed()
    assert db.write(lambda: db.stamp() == db.stamp()) is False  # in the middle of a write, nothing may be kept
    kept = db._idle.pop()  # a connection that counts for itself: the next one knows nothing of this one's stamps
    try:
        assert changed()
    finally:
        db._idle.append(kept)


def test_every_write_runs_once_also_where_one_of_a_batch_fails(data):
    """Several that waited share a commit; the one that fails goes alone, and nobody is done twice."""
    ran, go_on, errors = [], threading.Event(), []

    def note(number):
        ran.append(number)
        db.run("INSERT INTO products (tenant_id, name, slug, created_at, updated_at) VALUES (1, 'a', :slug, 'x', 'x')", slug=f"p{number}")
        if number == 3:
            raise ZeroDivisionError

    def write(call):
        with acting(system()):
            try:
                db.write(call)
            except ZeroDivisionError as error:
                errors.append(error)
    first = threading.Thread(target=write, args=(lambda: go_on.wait(10),))
    first.start()
    eventually(db._turn.locked)
    crowd = [threading.Thread(target=write, args=(functools.partial(note, number),)) for number in range(8)]
    before = db.commits
    for one in crowd:
        one.start()
    eventually(lambda: len(db._inbox) == 8)
    go_on.set()
    for one in (first, *crowd):
        one.join()
    assert sorted(ran) == list(range(8)) and len(errors) == 1 and db.commits == before + 2, "one commit for all of them"
    assert sorted(slug for slug, in db.all(tuple, "SELECT slug FROM products")) == [f"p{n}" for n in range(8) if n != 3]


@pytest.mark.parametrize("word, found", [("on", True), ("TRUE", True), ("1", True), ("yes", True), ("off", False), ("false", False), ("0", False), ("no", False)])
def test_a_switch_understands_its_words(monkeypatch, tmp_path, word, found):
    fresh = Settings()
    fresh.declare("data", type(HOME), None, "x"), fresh.declare("light", bool, not found, "x")
    monkeypatch.setenv("ORKOSI_LIGHT", word)
    fresh.load(data=tmp_path)
    assert fresh.light is found


def test_a_switch_takes_no_other_word_for_off(monkeypatch, tmp_path):
    fresh = Settings()
    fresh.declare("data", type(HOME), None, "x"), fresh.declare("light", bool, True, "x")
    monkeypatch.setenv("ORKOSI_LIGHT", "perhaps")
    with pytest.raises(Invalid, match="light .*must be bool, not 'perhaps'"):
        fresh.load(data=tmp_path)


def test_a_service_that_ran_well_is_begun_again_soon_whatever_was_long_ago(monkeypatch):
    """Pauses grow with each stop that follows soon upon the last, and are forgotten by one that did not."""
    class Told(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return self.is_set()

    waits, stopping, real, ran = [], Told(), time.monotonic, [0, 0, 0, 130, 0, 0, 0, 0, 0, 0, 0, 1000]
    ahead = 0.0

    def service(stop):
        nonlocal ahead
        if len(waits) == len(ran):
            stop.set()
            return
        ahead += ran[len(waits)]
        raise orkosi.Unavailable("A hiccup")
    monkeypatch.setattr(orkosi, "stopping", stopping)
    monkeypatch.setattr(orkosi, "_threads", [])
    monkeypatch.setattr(orkosi, "restarted", {})
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead)
    orkosi._thread("x.y", service)
    orkosi._threads[-1].join(10)
    assert waits == [1, 2, 4, 1, 2, 4, 8, 16, 32, 60, 60, 1] and orkosi.restarted["x.y"][1] == 1
