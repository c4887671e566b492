"""Stories of logs: lines as they came in, and the files they stand in."""
import json
import os
import re

import pytest
from conftest import Client, listed, put

from orkosi import now
from plugins import keys
from plugins.logs.tailer import Tailer


def stored(id, **fields):
    """A line as it is stored, and as it is shown."""
    shown = {"source": "db", "file": None, "agent": "felix", "level": "info", "message": f"line {id}", "meta": None, "task_id": None,
             "created_at": "2026-11-02T10:00:00.000Z"} | fields
    put("log_lines", id=id, **shown)
    put("log_lines_fts", rowid=id, message=shown["message"])
    return {"id": id} | shown


@pytest.mark.story("GET /api/logs")
def test_lines_are_listed_newest_first_and_narrowed(client):
    one = stored(1, meta={"tokens": 7}, task_id=12)
    two = stored(2, source="file", file="agents/otto/logs/stderr.log", agent="otto", level="error", message="Disk full", created_at="2026-11-01T10:00:00.000Z")
    three = stored(3, level="warn", agent=None, message="disk nearly full")
    assert listed(client, "/logs", [three, two, one])
    for query, found in [("source=all", [three, two, one]), ("source=db", [three, one]), ("source=file", [two]), ("agent=felix", [one]), ("level=warn", [three]),
                         ("level=info", [one]), ("q=dis", [three, two]), ("q=disk+nearly", [three]), ("q=disk&level=error&source=file&agent=otto", [two]),
                         ("q=%22", []), ("q=disk&level=info", [])]:
        assert listed(client, f"/logs?{query}", found)


@pytest.mark.story("GET /api/logs")
def test_a_line_of_a_file_is_shown_as_it_was_written(client, data):
    file = data / "agents/felix/logs/stderr.log"
    file.parent.mkdir(parents=True)
    file.write_text("2026-11-02T10:00:00.000Z [task 12] ERROR no such host\n")
    Tailer(data).look()
    assert client.get("/logs").data == [{"id": 1, "source": "file", "file": "agents/felix/logs/stderr.log", "agent": "felix", "level": "error",
                                         "message": "ERROR no such host", "meta": None, "task_id": 12, "created_at": "2026-11-02T10:00:00.000Z"}]


@pytest.mark.story("POST /api/logs")
def test_a_line_is_what_was_sent(client, application, lately):
    full = {"agent": "otto", "message": "Bought\x07 milk", "level": "warn", "meta": {"shop": ["corner"]}}
    made = client.post("/logs", full)
    told = {"source": "db", "file": None, "task_id": None, "created_at": lately}
    assert (made.status, made.json) == (201, {"data": full | told | {"id": made.data["id"], "message": "Bought\\x07 milk"}})
    felix = Client(application, keys.issue(1, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    bare = felix.post("/logs", {"agent": "felix", "message": "x"}).data
    assert bare == told | {"id": made.data["id"] + 1, "agent": "felix", "message": "x", "level": "info", "meta": None}
    assert client.get("/logs").data == [bare, made.data] and client.get("/logs?q=milk").data == [made.data]


@pytest.mark.story("GET /api/logs/files")
def test_the_files_are_shown_as_they_stand_on_the_disk(client, data):
    folder = data / "agents/felix/logs"
    folder.mkdir(parents=True)
    for name, text in (("stderr.log", "one\ntwo\nhal"), ("stderr.log.1", "older\n"), ("notes.txt", "no log")):
        (folder / name).write_text(text)
        os.utime(folder / name, (86400, 86400))
    (data / "logs").mkdir(exist_ok=True)
    (data / "logs" / "server.log").write_text("up\n")
    os.utime(data / "logs" / "server.log", (172800, 172800))
    tailer = Tailer(data)
    tailer.look()
    with open(folder / "stderr.log", "w") as file:
        file.write("new\n")  # what was there is cut off, half a line with it
    os.utime(folder / "stderr.log", (90000, 90000))
    tailer.look()
    assert client.get("/logs/files").json == {"data": [
        {"path": "agents/felix/logs/stderr.log", "size": 4, "modified_at": "1970-01-02T01:00:00.000Z", "offset": 4, "lost": 1},
        {"path": "agents/felix/logs/stderr.log.1", "size": 6, "modified_at": "1970-01-02T00:00:00.000Z", "offset": 0, "lost": 0},
        {"path": "logs/server.log", "size": 3, "modified_at": "1970-01-03T00:00:00.000Z", "offset": 3, "lost": 0}]}


@pytest.mark.story("GET /api/logs")
def test_lines_are_followed_as_they_come(client):
    lines = [{"id": id, "source": "db", "file": None, "agent": agent, "level": level, "message": message, "meta": None, "task_id": None, "created_at": now()}
             for id, (agent, level, message) in enumerate((("felix", "info", "One good"), ("felix", "error", "two BAD things"), ("otto", "error", "three bad")), 11)]
    for line in lines:
        put("log_lines", **line)
    stream = lambda query, last="10": [json.loads(part) for part in re.findall(r"event: line\ndata: (.*)\n", client.get(  # noqa: E731
        f"/logs?follow=true{query}", headers={"Last-Event-ID": last}).body.decode())]
    assert stream("") == lines and stream("", "12") == lines[2:] and stream("&agent=felix") == lines[:2] and stream("&level=error") == lines[1:]
    assert stream("&agent_name=otto") == lines[2:] and client.get("/logs?follow=true&agent=a&agent_name=b").status == 400
    assert stream("&q=bad thing") == [lines[1]] and stream("&source=file") == [] and stream("", "") == []
    for last in ("5", "99"):
        assert "event: reset\ndata: {\"last_id\":13}" in client.get("/logs?follow=true", headers={"Last-Event-ID": last}).body.decode()
