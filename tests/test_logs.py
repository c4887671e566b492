"""Logs: the tailer against all that happens to log files, what a line becomes, and who may read and write."""
import os
import shutil
import threading
import time

import pytest
from conftest import Client, eventually

from orkosi import acting, db, now, settings, system
from plugins import keys, logs
from plugins.logs import tailer
from plugins.logs.line import CUT, LONGEST, parse
from plugins.logs.tailer import Tailer


@pytest.fixture
def folder(data):
    """Agent felix's folder of logs."""
    made = data / "agents/felix/logs"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def stderr(folder):
    return folder / "stderr.log"


def write(file, *lines, end="\n"):
    with open(file, "ab") as opened:
        opened.write("\n".join(lines).encode() + end.encode())


def messages():
    return [message for message, in db.all(tuple, "SELECT message FROM log_lines ORDER BY id")]


def look(tailer):
    while tailer.look():
        pass
    return messages()


# ── files ──


def test_lines_are_taken_in_once_also_across_a_restart(data, stderr):
    write(stderr, "one", "two")
    first = Tailer(data)
    assert look(first) == look(first) == ["one", "two"]
    write(stderr, "three")
    assert look(Tailer(data)) == look(Tailer(data)) == ["one", "two", "three"]


def test_half_a_line_waits_for_its_end(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one", "tw", end="")
    assert look(tailer) == ["one"]
    write(stderr, "o")
    assert look(tailer) == ["one", "two"]


def test_a_rotation_loses_and_repeats_nothing(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one")
    look(tailer)
    for number in range(2, 6):  # more rotations than looks: some files are met only under their second name
        write(stderr, f"before {number}")
        for old in (3, 2, 1):
            if (was := stderr.with_name(f"stderr.log.{old}")).exists():
                was.rename(stderr.with_name(f"stderr.log.{old + 1}"))
        stderr.rename(stderr.with_name("stderr.log.1"))
        write(stderr, f"after {number}")
        if number % 2:
            look(tailer)
    expected = ["one", *(f"{word} {number}" for number in range(2, 6) for word in ("before", "after"))]
    assert look(tailer) == expected
    assert look(Tailer(data)) == expected
    assert {row[0] for row in db.all(tuple, "SELECT file FROM log_lines")} == {"agents/felix/logs/stderr.log"}


def test_the_rest_of_a_renamed_file_is_flushed_when_it_is_quiet(data, stderr, monkeypatch):
    tailer_ = Tailer(data)
    write(stderr, "one", "half", end="")
    look(tailer_)
    stderr.rename(stderr.with_name("stderr.log.1"))
    write(stderr, "new")
    assert look(tailer_) == ["one", "new"]
    monkeypatch.setattr(tailer, "QUIET", 0)
    assert look(tailer_) == look(tailer_) == ["one", "new", "half"]


def test_old_rotated_files_are_not_read_at_the_first_start(data, stderr):
    write(stderr.with_name("stderr.log.1"), "old")
    write(stderr, "new")
    assert look(Tailer(data)) == ["new"]


def test_after_copy_truncate_the_rest_is_read_from_the_copy(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one")
    look(tailer)
    write(stderr, "two")
    shutil.copy(stderr, stderr.with_name("stderr.log.1"))
    os.truncate(stderr, 0)
    write(stderr, "longer than what stood there before")
    assert sorted(look(tailer)) == sorted(look(Tailer(data))) == ["longer than what stood there before", "one", "two"]
    assert {file.lost for file in logs.files()} == {0}


def test_a_copy_is_not_read_twice(data, stderr):
    tailer = Tailer(data)
    for number in range(4):
        write(stderr, f"generation {number}")
        look(tailer)
        shutil.copy(stderr, stderr.with_name(f"stderr.log.{number}"))
        look(tailer)
        write(stderr, f"between {number}")  # after the copy, and read before the truncation
        look(tailer)
        os.truncate(stderr, 0)
        look(tailer)
    assert look(tailer) == look(Tailer(data)) == [f"{word} {number}" for number in range(4) for word in ("generation", "between")]


def test_what_a_truncation_took_is_counted(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one", "half", end="")
    look(tailer)
    os.truncate(stderr, 0)
    write(stderr, "new")
    assert look(tailer) == ["one", "new"]
    assert [file.lost for file in logs.files()] == [1]


def test_a_file_that_is_deleted_and_made_anew_is_read_anew(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one")
    look(tailer)
    stderr.unlink()
    write(stderr, "two, and longer")
    assert look(tailer) == look(tailer) == ["one", "two, and longer"]


@pytest.mark.parametrize("moved", ["rebooted", "unzipped", "unzipped, numbers changed places"])
def test_files_with_other_numbers_are_known_by_their_place_and_first_bytes(data, stderr, moved):
    """A Mac numbers its disks anew at each start, and a folder that is unzipped has all its files anew."""
    stderr.write_text("one\ntwo\nha")
    other = stderr.with_name("other.log")
    other.write_text("the other, and longer than the first\n")
    before = look(Tailer(data))
    if moved == "rebooted":
        db.write(lambda: db.run("UPDATE log_files SET device = device + 1"))
    else:
        for path in (stderr, other):
            shutil.copy2(path, path.with_suffix(".new"))
            os.replace(path.with_suffix(".new"), path)
        if moved != "unzipped":
            first, second = stderr.stat().st_ino, other.stat().st_ino
            db.write(lambda: db.run("UPDATE log_files SET inode = CASE path WHEN :path THEN :second ELSE :first END",
                                    path=str(stderr.relative_to(data)), first=first, second=second))
    assert look(Tailer(data)) == before
    with stderr.open("a") as file:
        file.write("lf\n")
    assert sorted(look(Tailer(data))) == sorted([*before, "half"])


def test_a_file_with_another_number_and_other_first_bytes_is_another_file(data, stderr):
    stderr.write_text("one\ntwo\n")
    look(Tailer(data))
    stderr.unlink()
    stderr.write_text("another one\n")
    db.write(lambda: db.run("UPDATE log_files SET device = device + 1"))
    assert look(Tailer(data)) == ["one", "two", "another one"]


def test_an_endless_line_is_cut_and_costs_no_memory(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one", "x" * (10 << 20), end="")
    look(tailer)
    tailer = Tailer(data)  # a restart in its middle
    write(stderr, "y" * 1000, "two")
    found = look(tailer)
    assert (found[0], found[2], len(found)) == ("one", "two", 3)
    assert found[1] == "x" * LONGEST + CUT


def test_links_pipes_and_databases_are_not_opened(data, folder, tmp_path):
    secret = tmp_path / "secret.log"
    write(secret, "secret")
    (folder / "link.log").symlink_to(secret)
    os.link(secret, folder / "hard.log")
    os.mkfifo(folder / "pipe.log")
    write(folder / "x.log.db", "database")
    write(folder / "x.log.db-wal", "database")
    (folder / "dir.log").mkdir()
    (data / "agents/mallory").mkdir()
    (data / "agents/mallory/logs").symlink_to(tmp_path)
    (data / "agents/trudy").symlink_to(tmp_path)
    assert look(Tailer(data)) == []


def test_a_folder_that_cannot_be_opened_for_a_while_is_not_read_again(data, stderr):
    tailer = Tailer(data)
    write(stderr, "one")
    look(tailer)
    stderr.parent.rename(data / "elsewhere")
    stderr.parent.symlink_to(data / "elsewhere")
    look(tailer)
    stderr.parent.unlink()
    (data / "elsewhere").rename(stderr.parent)
    write(stderr, "two")
    assert look(tailer) == ["one", "two"]


@pytest.mark.parametrize("path", ["logs/orkosi.log", "logs/other.log", "agents/felix/logs/stderr.log"])
def test_answered_requests_stay_in_the_servers_file(data, folder, path):
    (data / "logs").mkdir()
    write(data / path, f"{now()} INFO access GET /api/health 200", f"{now()} ERROR access GET /api/x 500", f"{now()} INFO ready")
    found = [line.split()[0] for line in look(Tailer(data))]
    assert found == (["ERROR", "INFO"] if path == "logs/orkosi.log" else ["INFO", "ERROR", "INFO"])


def test_lines_and_their_mark_are_kept_together_or_not_at_all(data, stderr, monkeypatch):
    write(stderr, "one", "two")
    with monkeypatch.context() as broken, pytest.raises(KeyError):
        broken.setattr(logs, "MARK", "SELECT :nothing_of_that_name")
        Tailer(data).look()
    assert messages() == []
    assert look(Tailer(data)) == ["one", "two"]


@pytest.mark.slow
def test_the_observer_takes_lines_in_while_the_file_turns_over(data, folder, stderr):
    stop = threading.Event()

    def serve():
        with acting(system()):
            tailer.follow(stop)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        write(stderr, "watched")
        eventually(lambda: messages() == ["watched"])
        began = time.monotonic()
        for number in range(2000):
            write(stderr, f"line {number}")
            if number % 400 == 399:
                stderr.rename(stderr.with_name(f"stderr.log.{number}"))
        (data / "agents/new/logs").mkdir(parents=True)
        write(data / "agents/new/logs/stderr.log", "hello")
        eventually(lambda: len(messages()) >= 2002)
        assert time.monotonic() - began < 9
        time.sleep(0.3)  # in which nothing comes a second time
        assert sorted(messages()) == sorted(["watched", *(f"line {number}" for number in range(2000)), "hello"])
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


# ── lines ──

MOMENT = "2026-11-23T20:11:05.000Z"


@pytest.mark.parametrize("raw, level, message, task, created", [
    (b"plain", "info", "plain", None, MOMENT),
    (b"2026-11-23T20:11:00.123Z [task 12] text", "info", "text", 12, "2026-11-23T20:11:00.123Z"),
    (b"2026-11-23T21:11:00+01:00 ERROR x", "error", "ERROR x", None, "2026-11-23T20:11:00.000Z"),
    (b"2999-01-01T00:00:00.000Z future", "info", "future", None, MOMENT),
    (b"2026-13-99T00:00:00.000Z nonsense", "info", "2026-13-99T00:00:00.000Z nonsense", None, MOMENT),
    (b"Traceback (most recent call last):", "error", "Traceback (most recent call last):", None, MOMENT),
    (b"ValueError: no", "error", "ValueError: no", None, MOMENT),
    (b"npm WARN old", "warn", "npm WARN old", None, MOMENT),
    (b"fatal: not a git repository", "error", "fatal: not a git repository", None, MOMENT),
    (b"INFO retried after an error", "info", "INFO retried after an error", None, MOMENT),
    (b"terror of warnings is information", "error", "terror of warnings is information", None, MOMENT),
    (b"\x1b[31mred\x1b[0m\r", "info", "\\x1b[31mred\\x1b[0m", None, MOMENT),
    (b"caf\xe9 \x00", "info", "caf\ufffd \\x00", None, MOMENT),
])
def test_what_a_line_becomes(raw, level, message, task, created):
    row = parse(raw, MOMENT, "logs/x.log")
    assert (row["level"], row["message"], row["task_id"], row["created_at"]) == (level, message, task, created)


@pytest.mark.parametrize("raw", [b"", b"   ", b"\r", b"2026-11-23T20:11:00.123Z "])
def test_empty_lines_are_left_out(raw):
    assert parse(raw, MOMENT, "logs/x.log") is None


# ── the wire ──

NEW = {"agent": "felix", "message": "It works"}


@pytest.fixture
def felix(application):
    return Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])


@pytest.mark.parametrize("body, status", [
    (NEW, 201),
    (NEW | {"level": "warn", "meta": {"a": {"b": [1]}}}, 201),
    (NEW | {"message": "x" * 20_000}, 201),
    (NEW | {"level": "loud"}, 400),
    (NEW | {"level": "debug"}, 201),
    (NEW | {"level": "ERROR"}, 201),
    (NEW | {"message": ""}, 400),
    (NEW | {"message": " \n"}, 400),
    (NEW | {"agent": ""}, 400),
    (NEW | {"meta": []}, 400),
    (NEW | {"meta": {"x": "y" * 20_000}}, 400),
    (NEW | {"time": "now"}, 400),
    ({"message": "x"}, 400),
])
def test_storing_a_line(client, felix, body, status):
    assert client.post("/logs", body).status == felix.post("/logs", body).status == status


def test_an_agents_key_writes_for_itself_alone(felix):
    answer = felix.post("/logs", {"agent": "mallory", "message": "x"})
    assert (answer.status, "felix" in answer.error["message"]) == (403, True)


def test_a_sent_line_is_escaped_and_cut(client):
    made = client.post("/logs", {"agent": "felix", "message": "a\nb\x1b[31m" + "x" * 10_000}).data
    assert made["message"].startswith("a\nb\\x1b[31mxx") and made["message"].endswith(CUT)


def test_the_list_is_newest_first_and_narrows(client, data, stderr):
    write(stderr, "Cloning the repository", "ERROR No such file")
    look(Tailer(data))
    client.post("/logs", {"agent": "otto", "message": "The repository is clean", "level": "warn"})
    assert [line["level"] for line in client.get("/logs").data] == ["warn", "error", "info"]
    for query, count in [("source=file", 2), ("source=db", 1), ("source=all", 3), ("agent=felix", 2), ("level=error", 1),
                         ("q=repository", 2), ("q=repo", 2), ("q=repository&agent=otto", 1), ("q=repository%20clean&source=db", 1),
                         ('q="-NEAR(', 0), ("q=...", 0), ("q=", 0), ("limit=1", 1)]:
        assert len(client.get(f"/logs?{query}").data) == count, query
    assert client.get("/logs?q=repository").data[0]["agent"] == "otto"
    for query in ("limit=0", "limit=201", "source=disk", "level=debug", "since=1"):
        assert client.get(f"/logs?{query}").status == 400, query


@pytest.mark.parametrize("role, tenant, status", [
    ("admin", 1, 200), ("editor", 1, 200), ("member", 1, 403), ("viewer", 1, 403), ("admin", None, 403)])
def test_logs_are_for_the_hosts_editors(as_, role, tenant, status):
    ann = as_("ann", role, tenant)
    assert ann.get("/logs").status == ann.get("/logs/files").status == status


def test_the_files_are_listed_with_how_far_they_were_read(client, data, stderr):
    write(stderr, "one")
    look(Tailer(data))
    write(stderr, "two")
    (stderr.parent / "link.log").symlink_to("/etc/passwd")
    found, = client.get("/logs/files").data
    assert (found["path"], found["size"], found["offset"], found["lost"]) == ("agents/felix/logs/stderr.log", 8, 4, 0)


def test_the_tail_of_a_task_is_its_last_lines_in_order(data, stderr):
    write(stderr, *(f"{now()} [task {task}] line {number}" for number in range(30) for task in (7, 8)))
    look(Tailer(data))
    assert logs.tail("felix", 7, 3) == ["line 27", "line 28", "line 29"]
    assert logs.tail("otto", 7) == []


def test_old_and_surplus_lines_go_in_batches(data, stderr, monkeypatch):
    write(stderr, "2001-01-01T00:00:00.000Z ancient", *(f"line {number}" for number in range(10)))
    look(Tailer(data))
    assert (logs.prune(), messages()[0]) == (1, "line 0")
    monkeypatch.setitem(settings.values, "log_keep_lines", 4)
    assert [logs.prune(4), logs.prune(4), logs.prune(4)] == [4, 2, 0]
    assert messages() == [f"line {number}" for number in range(6, 10)]
    assert db.value("SELECT count(*) FROM log_lines_fts WHERE log_lines_fts MATCH 'line'") == 4
