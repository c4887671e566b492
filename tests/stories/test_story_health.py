"""Stories of health, of the description of the API, and of the pages."""
import re
import time
from pathlib import Path

import pytest
from conftest import db

import orkosi
from orkosi import HOME
from plugins import health


@pytest.fixture
def hours(monkeypatch):
    """The server has been up for three hours and a bit."""
    monkeypatch.setattr(health, "STARTED", time.monotonic() - 3 * 3600 - 0.5)


@pytest.mark.story("GET /api/health", "GET /api/v1/public/health")
def test_a_server_whose_database_answers_is_well(anonymous, hours):
    answer = anonymous.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "version": "0.1.0", "uptime": 10800, "db": "connected", "redis": "not_configured"})
    assert anonymous.get("/v1/public/health").json == {"data": {"status": "ok", "version": "0.1.0"}}


@pytest.mark.story("GET /api/health", "GET /api/ready", "GET /api/v1/public/health")
def test_a_server_whose_database_does_not_answer_says_so(anonymous, hours, monkeypatch):
    def refuse(*_, **__):
        raise orkosi.Damaged("The file is damaged")
    monkeypatch.setattr(db, "value", refuse)
    answer = anonymous.get("/health")
    assert (answer.status, answer.json) == (503, {"status": "error", "version": "0.1.0", "uptime": 10800, "db": "error", "redis": "not_configured"})
    refused = anonymous.get("/ready")
    assert (refused.status, refused.error["message"]) == (503, "Not ready: The file is damaged")
    assert anonymous.get("/v1/public/health").status == 503


@pytest.mark.story("GET /api/ready")
def test_a_server_that_can_serve_is_ready(anonymous):
    assert anonymous.get("/ready").json == {"data": {"ready": True}}


@pytest.mark.story("GET /api/version")
def test_the_version_is_the_one_of_the_project(anonymous, hours):
    import tomllib
    with open(f"{HOME}/pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert anonymous.get("/version").json == {"data": {"version": version, "uptime": 10800}}


# ── what is no JSON ──


@pytest.mark.story("GET /api/openapi.json")
def test_the_description_names_every_operation_as_it_answers(anonymous):
    described = anonymous.get("/openapi.json")
    assert described.headers["Content-Type"] == "application/json"
    paths = {(method.upper(), "/api" + path) for path, methods in described.json["paths"].items() for method in methods}
    assert paths == {(one.method, one.path) for one in orkosi.endpoints() if one.path.startswith("/api/")}
    show = described.json["paths"]["/tasks/{id}"]["get"]
    assert show["parameters"] == [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}, "example": 1}]
    shown = show["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"]["$ref"].rpartition("/")[2]
    fields = described.json["components"]["schemas"][shown]["properties"]
    assert fields["status"]["enum"] == sorted(["todo", "in_progress", "review", "done", "blocked", "archived"]) and "title" in fields
    assert (described.json["openapi"], described.json["info"]["title"], described.json["info"]["version"]) == ("3.1.0", "Orkosi", "0.1.0")


@pytest.mark.story("GET /api/docs", "GET /api/docs/{file}")
def test_the_page_of_the_api_and_each_file_it_asks_for(anonymous):
    page = anonymous.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8" and b"<title>Orkosi API</title>" in page.body
    asked = re.findall(r'(?:src|href)="docs/([^"]+)"', page.body.decode())
    assert asked == ["swagger-ui.css", "swagger-ui-bundle.js", "start.js"]
    for name, type, word in [("swagger-ui.css", "text/css", b".swagger-ui"), ("swagger-ui-bundle.js", "text/javascript", b"SwaggerUIBundle"),
                             ("start.js", "text/javascript", b'url: "openapi.json"'), ("LICENSE", "text/plain; charset=utf-8", b"Apache License")]:
        file = anonymous.get(f"/docs/{name}")
        assert (file.status, file.headers["Content-Type"], word in file.body) == (200, type, True), name


@pytest.mark.story("GET /invite/{token}", "GET /reset/{token}", "GET /verify/{token}", "GET /pages/{file}")
def test_each_page_is_its_file_and_asks_for_files_that_are_there(anonymous):
    for path, name in [("/invite/x", "invite"), ("/reset/x", "reset"), ("/verify/x", "verify")]:
        page = anonymous.get(path, root="/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert page.body == (Path(HOME) / f"plugins/pages/pages/{name}.html").read_bytes() and b"<title>" in page.body
        for asked in re.findall(r'(?:src|href)="(/pages/[^"]+)"', page.body.decode()):
            file = anonymous.get(asked, root="/")
            assert file.body == (Path(HOME) / "plugins/pages" / asked[1:]).read_bytes()
            assert file.headers["Content-Type"] == {".js": "text/javascript", ".css": "text/css"}[Path(asked).suffix]
