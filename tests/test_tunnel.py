"""The tunnel's door: the public API alone, for who comes from anywhere; tighter limits, and an address that only the tunnel can say."""
import http.client
import json
import socket
import threading
import time

import pytest
from conftest import command, eventually

import orkosi
from orkosi import settings
from plugins.server import door, limits, loop, tunnel
from plugins.users import sessions

FREE = ("127.0.0.1", 0)


class Through:
    """A server with a tunnel's door, in this process, and a client that comes in by either."""

    def __init__(self, application):
        self.listener = loop.listen(application, *FREE)
        self.listener.tunnel = door.Door(self.listener, 0)
        self.here, self.tunnel = int(self.listener.effective_port), self.listener.tunnel.port
        self.thread = threading.Thread(target=self.listener.run)
        self.thread.start()

    def ask(self, method, path, body=None, *, port=None, said="203.0.113.7", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.tunnel, timeout=10)
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Host": "api.firm.example", "CF-Connecting-IP": said, "Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw), answer.headers


@pytest.fixture
def through(application):
    one = Through(application)
    yield one
    one.listener.finish()
    one.thread.join(10)
    one.listener.shutdown()


def bearer(client):
    return {"Authorization": f"Bearer {client.token}"}


def test_the_public_api_works_through_the_tunnel_and_nothing_else_is_there(through, client, key_for):
    key = bearer(key_for("tasks:read", "tasks:write"))
    status, made, headers = through.ask("POST", "/api/v1/public/tasks", {"title": "From the world"}, **key)
    assert status == 201 and headers["Strict-Transport-Security"] == "max-age=31536000"
    status, found, _ = through.ask("GET", f"/api/v1/public/tasks/{made['data']['id']}", **key)
    assert status == 200 and found["data"]["title"] == "From the world"
    for endpoint in orkosi.endpoints():
        if endpoint.path.startswith("/api/v1/public/"):
            continue
        if endpoint.path == "/api/billing/webhook":  # Stripe comes from outside, with a signature
            assert through.ask("POST", endpoint.path, {})[1]["error"]["code"] == "stripe_not_configured"
            continue
        if endpoint.path == "/hooks/{token}":  # and other systems, with a token
            assert through.ask("POST", "/hooks/none", {})[1]["error"]["message"] == "There is no such hook"
            continue
        path = endpoint.path.replace("<id>", "1").replace("<", "").replace(">", "").split(":")[0]
        for credential in (key, bearer(client), {}):
            limits.limiter.__init__()
            status, answer, _ = through.ask(endpoint.method, path, None if endpoint.method == "GET" else {}, **credential)
            assert (status, answer["error"]["code"]) == (404, "not_found"), (endpoint.method, path)
    assert through.ask("GET", "/api/v1/public/health", port=through.here, **{"Host": "localhost"})[2]["Strict-Transport-Security"] is None


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1/public", "/api/v1/public/../tasks", "/api/v1/public/%2e%2e/%2e%2e/tasks", "//api/tasks",
                                  "/api/v1/publicx/tasks", "/api/v1/public//tasks", "/API/v1/public/tasks", "/api/tasks?/api/v1/public/",
                                  "http://x/api/tasks", "/login/ork_log_x", "/static/x.css"])
def test_no_way_of_writing_a_path_leads_past_the_door(through, client, path):
    status, answer, _ = through.ask("GET", path, **bearer(client))
    assert (status, answer["error"]["code"]) == (404, "not_found")


def test_a_cookie_is_nobody_there(through, client, people):
    person, _ = people("Somebody", "admin")
    with orkosi.acting(orkosi.system()):
        pair = sessions.open_session(person.id, "a browser")
    cookie = {"Cookie": f"orkosi={pair.access}.{pair.refresh}", "X-Orkosi": "1"}
    assert through.ask("GET", "/api/v1/public/tasks", port=through.here, **cookie | {"Host": "localhost"})[0] == 200
    assert through.ask("GET", "/api/v1/public/tasks", **cookie)[0] == 401


def test_each_address_has_a_limit_of_its_own_and_a_household_one_together(through, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_tunnel", "3/minute")
    def statuses(many, said):
        return [through.ask("GET", "/api/v1/public/health", said=said)[0] for _ in range(many)]
    assert statuses(4, "203.0.113.7") == [200, 200, 200, 429]
    assert statuses(1, "203.0.113.8") == [200]
    assert [statuses(1, f"2001:db8:0:1::{number}")[0] for number in range(4)] == [200, 200, 200, 429]
    assert statuses(1, "2001:db8:0:2::1") == [200]
    assert [statuses(1, said)[0] for said in ("", "not an address", "1.2.3.4, 5.6.7.8", "203.0.113.7" * 300)] == [200, 200, 200, 429]  # all of them one
    assert through.ask("GET", "/api/v1/public/health", port=through.here, Host="localhost")[0] == 200


def test_a_household_has_one_limit_at_the_first_door_too(through, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_link", "3/hour")
    def status(address):
        monkeypatch.setattr(loop.Server, "fix_addr", lambda server, addr: (address, *addr[1:]))  # as if it had come from there
        return through.ask("POST", "/api/auth/invitation", {"token": "ork_inv_none"}, port=through.here, Host="localhost")[0]
    assert [status(f"2001:db8:0:1::{number}") for number in range(4)] == [404, 404, 404, 429]
    assert status("2001:db8:0:2::1") == 404


def test_what_is_not_there_counts_against_the_limit_too(through, monkeypatch):
    monkeypatch.setitem(settings.values, "limit_tunnel", "3/minute")
    assert [through.ask("GET", "/api/tasks")[0] for _ in range(4)] == [404, 404, 404, 429]


def test_at_the_first_door_nobody_is_believed_about_an_address(through, monkeypatch):
    seen = []
    application = through.listener.application
    monkeypatch.setattr(application, "watchers", [*application.watchers, lambda request, *_: seen.append(request.address)])
    through.ask("GET", "/api/v1/public/health", port=through.here, Host="localhost")
    through.ask("GET", "/api/v1/public/health")
    eventually(lambda: len(seen) == 2)
    assert seen == ["127.0.0.1", "203.0.113.7"]


def test_the_header_is_the_one_of_the_setting(through, monkeypatch):
    monkeypatch.setitem(settings.values, "tunnel_address_header", "X-Forwarded-For")
    monkeypatch.setitem(settings.values, "limit_tunnel", "1/minute")
    assert [through.ask("GET", "/api/v1/public/health", **{"X-Forwarded-For": f"203.0.113.{number}"})[0] for number in (1, 2, 1)] == [200, 200, 429]


def test_a_body_may_be_a_quarter_of_a_megabyte_there(through, key_for):
    key = bearer(key_for("tasks:write"))
    status, answer, _ = through.ask("POST", "/api/v1/public/tasks", {"title": "x", "description": "x" * door.BODY}, **key)
    assert (status, answer["error"]["code"]) == (413, "too_large")
    status, answer, _ = through.ask("GET", "/api/v1/public/health", Long="x" * door.HEADERS)
    assert status == 431


def test_a_crowd_at_the_tunnel_leaves_the_first_door_its_places(through, monkeypatch):
    monkeypatch.setattr(door, "PLACES", 20)
    crowd = [socket.create_connection(("127.0.0.1", through.tunnel), timeout=10) for _ in range(60)]
    eventually(lambda: len(through.listener.tunnel.open) == 20)
    began = time.monotonic()
    assert through.ask("GET", "/api/v1/public/health", port=through.here, Host="localhost")[0] == 200
    assert time.monotonic() - began < 2
    for one in crowd:
        one.close()
    eventually(lambda: not through.listener.tunnel.open)
    assert through.ask("GET", "/api/v1/public/health")[0] == 200


def test_the_server_opens_it_where_the_setting_names_a_port(server, tmp_path):
    with socket.create_server(FREE) as taken:
        port = taken.getsockname()[1]
        said = command("serve", "--port", "0", folder=tmp_path / "other",
                       env={"ORKOSI_TUNNEL_PORT": str(port)}, check=False)
        assert said.returncode and f"127.0.0.1:{port} for the tunnel" in said.stderr
    server(env={"ORKOSI_TUNNEL_PORT": str(port)})
    for path, expected in (("/api/v1/public/health", 200), ("/api/ready", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path, headers={"Host": "api.firm.example"})
        assert connection.getresponse().status == expected
        connection.close()


def test_addresses_are_counted_by_what_one_household_has():
    assert tunnel.client_of(" 203.0.113.7 ") == "203.0.113.7"
    assert tunnel.client_of("2001:db8:1:2:3:4:5:6") == tunnel.client_of("2001:db8:1:2::") == "2001:db8:1:2::"
    assert tunnel.client_of("::ffff:203.0.113.7") == "203.0.113.7" and tunnel.client_of("::1") == "::1"
    assert tunnel.client_of("fe80::1:2%en0") != tunnel.client_of("fe80::1:3%en0"), "a whole network has the same"
    assert tunnel.client_of("") == tunnel.client_of("localhost") == ""


def test_a_port_where_somebody_listens_on_every_address_is_taken(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        said = command("serve", "--port", str(taken.getsockname()[1]), folder=tmp_path / "data", check=False)
    assert said.returncode and "Address already in use; choose another with --port" in said.stderr
