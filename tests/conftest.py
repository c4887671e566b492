"""What every test stands on: a fresh data folder, a client that speaks WSGI in-process, a real server.

Surprise: an answer whose status the endpoint does not declare fails the test that got it, so
the OpenAPI page cannot fall behind the code.
"""
import contextlib
import copy
import email
import email.policy
import functools
import http.client
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from emptied import narrow, pytest_addoption, pytest_cmdline_main, pytest_runtestloop  # noqa: F401

import orkosi
from orkosi import HOST_TENANT, acting, db, emit, seconds, settings, system

HOME = Path(orkosi.HOME)
orkosi.load()
from plugins import storage, supervisor  # noqa: E402
from plugins.docs.openapi import declared_errors  # noqa: E402
from plugins.server.application import Application  # noqa: E402
from plugins.server.hosts import Hosts  # noqa: E402
from plugins.server.limits import limiter  # noqa: E402

# Where it is set, as in many containers, each of the thousand commands and servers that are started would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Every test opens a data folder, and each has the same schema to be compared with; and the same endpoints.
sys.modules["plugins.storage.upgrade"].model_of = functools.cache(storage.model_of)
orkosi.Endpoint.bind = functools.cache(orkosi.Endpoint.bind)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Real tools mostly wait: one of their tests after each other file, and the machine is never idle for all that wait at once."""
    waiting, rest = [one for one in items if one.path.name == "test_adapters.py"], [one for one in items if one.path.name != "test_adapters.py"]
    items[:] = []
    for _, file in itertools.groupby(rest, lambda one: one.path):
        items += [*file, *waiting[:1]]
        del waiting[:1]
    items += waiting
    narrow(config, items)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, dict(headers), body
        self.json = json.loads(body) if body and self.headers.get("Content-Type", "").startswith("application/json") else None

    data = property(lambda self: self.json["data"])
    meta = property(lambda self: self.json["meta"])
    error = property(lambda self: self.json["error"])
    code = property(lambda self: self.json["error"]["code"])
    wrong = property(lambda self: sorted(one["field"] for one in self.json["error"]["details"]))

    def __repr__(self):
        return f"<{self.status} {self.body[:500]!r}>"


class Client:
    """Speaks to the application as one principal: `client.post("/tasks", {...}).data`."""

    def __init__(self, application, token="", address="127.0.0.1"):
        self.application, self.token, self.address = application, token, address

    def request(self, method, path, body=None, headers=None, raw=None, root="/api"):
        payload = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        path, _, query = (path if path.startswith(root) else root + path).partition("?")
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1"), "QUERY_STRING": query,
                   "CONTENT_LENGTH": str(len(payload)), "CONTENT_TYPE": "application/json" if payload else "",
                   "wsgi.input": io.BytesIO(payload), "REMOTE_ADDR": self.address}
        if self.token:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        for name, value in (headers or {}).items():
            environ["CONTENT_TYPE" if name.lower() == "content-type" else "HTTP_" + name.upper().replace("-", "_")] = value
        seen = []
        watch = lambda request, status, *_: seen.append((request, status)) if request.environ is environ else None  # noqa: E731
        self.application.watchers.append(watch)
        try:
            got = []
            chunks = self.application(environ, lambda status, heads: got.extend([int(status.split()[0]), heads]))
        finally:
            self.application.watchers.remove(watch)
        answer = Answer(*got, b"".join(chunks))
        endpoint = seen[0][0].endpoint
        if endpoint and got[0] not in endpoint.statuses:
            assert got[0] in declared_errors(endpoint), f"{endpoint.operation} does not declare {answer}"
        return answer

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body, **more)

    def patch(self, path, body=None, **more):
        return self.request("PATCH", path, body, **more)

    def delete(self, path, body=None, **more):
        return self.request("DELETE", path, body, **more)


# ── what a story compares with ──


class Like:
    """Equals every text of a form: `Like("job_[0-9]+")`."""

    def __init__(self, pattern):
        self.pattern = pattern

    def __eq__(self, other):
        return isinstance(other, str) and bool(re.fullmatch(self.pattern, other))

    __hash__ = None

    def __repr__(self):
        return f"<like {self.pattern}>"


class Lately(Like):
    """Equals every time since it was made; `lately(300)` what was then five minutes ahead."""

    def __init__(self, began=None, ahead=0.0):
        super().__init__(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
        self.began, self.ahead = began or time.time(), ahead

    def __call__(self, ahead):
        return Lately(self.began, ahead)

    def __eq__(self, other):
        return super().__eq__(other) and self.began - 0.002 <= seconds(other) - self.ahead <= time.time()

    def __repr__(self):
        return f"<lately, {self.ahead} s ahead>"


def put(table, **row):
    """Store a row as it is, past every verb; its id."""
    row = {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in row.items()}
    with acting(system()):
        return db.write(lambda: db.add(f"INSERT INTO {table} ({', '.join(row)}) VALUES (:{', :'.join(row)})", **row))


CURSOR = r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}"


def listed(client, path, rows, default=50, **meta):
    """Whether a list is exactly these rows, whole, in pieces and from cursor to cursor, and says so of itself."""
    sign = "&" if "?" in path else "?"
    for query, limit, offset in (("", default, 0), (f"{sign}limit=1&offset=1", 1, 1), (f"{sign}limit=2", 2, 0)):
        answer, more = client.get(path + query), offset + limit < len(rows)
        assert answer.json == {"data": rows[offset:offset + limit], "meta": {
            "total": len(rows), "limit": limit, "offset": offset, "has_more": more, "next_after": Like(CURSOR) if more else None} | meta}, path + query
    after, seen = "", []
    while after is not None:
        answer = client.get(f"{path}{sign}limit=1{after and '&after='}{after}")
        seen += answer.data
        after = answer.meta["next_after"]
        assert answer.meta == {"total": len(rows), "limit": 1, "offset": 0, "has_more": len(seen) < len(rows),
                               "next_after": Like(CURSOR) if len(seen) < len(rows) else None} | meta, path
    assert seen == rows[:len(seen)] and len(seen) == len(rows), path
    return True


@pytest.fixture
def lately():
    """Equals every time since this test began."""
    return Lately()


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch):
    """Argon2id as it is, but with less memory: a test makes many users."""
    from plugins.users import passwords
    monkeypatch.setattr(passwords, "MEMORY_KIB", 64)
    passwords._dummy.cache_clear()


@pytest.fixture(scope="session")
def blank(tmp_path_factory):
    """A data folder as it is right after its first start: to copy it takes a thirtieth of the time of making one."""
    folder = tmp_path_factory.mktemp("blank") / "data"
    settings.load({}, data=folder)
    storage.open_data(exclusive=True)
    storage.close_data()
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch, blank):
    """An open data folder, fresh for this test; no service runs."""
    for name in list(os.environ):
        if name.startswith("ORKOSI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORKOSI_LIMIT_LOGIN", "off")
    monkeypatch.setenv("ORKOSI_LIMIT_REGISTER", "off")
    monkeypatch.setenv("ORKOSI_LIMIT_KEY_MANAGEMENT", "off")
    monkeypatch.setenv("ORKOSI_SUPERVISOR", "embedded")
    monkeypatch.setenv("ORKOSI_MASTER_KEY_FILE", str(tmp_path / "master.key"))
    monkeypatch.setenv("HOME", str(tmp_path))
    settings.load(data=tmp_path / "data")
    limiter.__init__()
    supervisor.embedded.driver.jobs.clear()
    shutil.copytree(blank, settings.data)
    storage.open_data(exclusive=True)
    try:
        with acting(system()):
            yield settings.data
    finally:
        storage.close_data()


whole = functools.cache(Application)


@pytest.fixture
def application(data):
    """An application with nothing of another test's but the router, which is the same in all."""
    one = copy.copy(whole())
    one.hosts, one.watchers = Hosts(), list(one.watchers)
    return one


@pytest.fixture
def people(data):
    """Makes users: `people("ann", role="viewer")` → (user, access token); `tenant=None` founds a tenant."""
    from plugins import users

    def make(name, role="member", tenant=HOST_TENANT):
        with acting(system()):
            user = users.add(name, f"{name}@example.com", users.passwords.hashed("correct horse"), role, tenant)
            return user, users.open_session(user.id, "test").access
    return make


@pytest.fixture
def client(application, people):
    """The host's administrator."""
    return Client(application, people("root", "admin")[1])


@pytest.fixture
def as_(application, people):
    """A client for a new person: `as_("ann", role="viewer")`."""
    return lambda name, role="member", tenant=HOST_TENANT: Client(application, people(name, role, tenant)[1])


@pytest.fixture
def key_for(application, people):
    """A client with an API key of a new person: `key_for("tasks:read", role="viewer")`."""
    from plugins import keys

    def make(*scopes, role="admin", tenant=HOST_TENANT):
        maker, _ = people(f"maker-of-{os.urandom(4).hex()}", role, tenant)
        return Client(application, keys.issue(maker.tenant_id, "key", scopes, by=maker.id)[1])
    return make


@pytest.fixture
def crew(application, client):
    """Agents by name, each with a client of its own key; `crew("ada", delegates=True)`."""
    def hire(name, **more):
        client.post("/agents", {"name": name, "role": f"{name}'s role", **more})
        return Client(application, (settings.data / "keys" / name).read_text().strip())
    return hire


@pytest.fixture
def anonymous(application):
    return Client(application)


@pytest.fixture
def posted(data):
    """Delivers the mail that waits, and returns it: `posted()` → messages with `link`, the one that is in the text."""
    from plugins import queue
    from plugins.queue import executor

    def deliver():
        with acting(system()):
            for job in queue.claim(executor.OWN, "test", batch=100):
                executor.run(job)
        found = []
        for file in sorted((data / "outbox").glob("*.eml")):
            message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
            message.text = message.get_body(("plain",)).get_content()
            message.link = next(iter(re.findall(r"https?://\S+", message.text)), None)
            message.token = message.link and message.link.rpartition("/")[2]
            found.append(message)
            file.unlink()
        return found
    return deliver


class Server:
    """A real server in a process of its own."""

    def __init__(self, folder, *arguments, env=None, wait=True):
        self.folder = Path(folder)
        self.is_new = not (self.folder / "orkosi.db").exists()
        self.env = os.environ | {"ORKOSI_LIMIT_LOGIN": "off", "ORKOSI_LIMIT_KEY_MANAGEMENT": "off", "ORKOSI_SUPERVISOR": "embedded", "ORKOSI_NO_INSTALL": "1",
                                 "ORKOSI_MASTER_KEY_FILE": str(self.folder.parent / "master.key")} | (env or {})
        self.process = subprocess.Popen([sys.executable, str(HOME / "orkosi.py"), "serve", "--port", "0", "--data", str(folder), *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)
        self.url = ""
        if wait:
            self.wait_ready()

    def wait_ready(self, patience=20):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.process.stdout.read()}")
            try:
                found = json.loads((self.folder / "server.json").read_text())
                if found["pid"] == self.process.pid:
                    self.url = found["url"]
                    urllib.request.urlopen(self.url + "/api/ready", timeout=2).read()
                    return self
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        raise AssertionError("the server did not become ready")

    def call(self, method, path, body=None, token="", timeout=30):
        """(status, parsed JSON) of one request over HTTP."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        with contextlib.closing(http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=timeout)) as connection:
            connection.request(method, "/api" + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def end(self):
        """Tell it to end; `stop` waits for it."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self):
        self.end()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self.process.stdout.closed:
            self.process.stdout.close()


def command(*arguments, folder, stdin="", env=None, check=True):
    """Run `orkosi.py …` on a data folder; the finished process."""
    done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), *arguments, "--data", str(folder)], input=stdin, text=True,
                          capture_output=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1"} | (env or {}), timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def complaints(done):
    """What commands had to complain of, but for writes that took long: that is for the machine to answer."""
    return "".join(line for line in done.stderr.splitlines(True) if not line.startswith("slow write "))


@pytest.fixture
def ordinary():
    """What a command line begins with so that modes of files hold for whoever runs the tests, root, too."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may do everything here")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture(scope="session")
def ending():
    """Servers that were told to end: the next test does not wait for them, but whoever runs the tests does."""
    servers = []
    yield servers
    for one in servers:
        one.stop()


@pytest.fixture
def server(tmp_path, ending):
    """Starts servers that end with the test: `server()`; `server.admin(s)` logs an administrator in."""
    with servers(tmp_path, ending) as start:
        yield start


@contextlib.contextmanager
def servers(place, ending):
    """What the fixture gives, for as long as one likes, in `place`."""
    started = []

    def start(*arguments, folder=place / "data", **options):
        started.append(Server(folder, *arguments, **options))
        return started[-1]

    def admin(running):
        if running.is_new:  # by the link that it prints: a command would be another start of Python
            said = next(line for line in iter(running.process.stdout.readline, "") if "/setup/" in line)
            return running.call("POST", "/auth/setup", {"token": said.split("/setup/")[1].strip(), "username": "root", "email": "root@example.com",
                                                        "password": "correct horse battery"})[1]["token"]
        command("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin",
                folder=running.folder, stdin="correct horse battery\n")
        return running.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    start.admin = admin
    yield start
    while ending and (ending[0].process.poll() is not None or len(ending) > 8):
        ending.pop(0).stop()
    for one in started:
        one.end()
        ending.append(one)


@pytest.fixture
def launchctl(data, tmp_path, monkeypatch):
    """A faithful launchctl first on PATH; what it gives is the list of calls."""
    program, state = tmp_path / "bin" / "launchctl", tmp_path / "launchd"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nFAKE_LAUNCHD='{state}' exec {sys.executable} -S {HOME}/tests/fake_launchctl.py \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setitem(settings.values, "supervisor", "launchd")
    yield lambda: [json.loads(line) for line in (state / "calls").read_text().splitlines()]
    for label in [one.parent for one in state.glob("*/plist")]:
        with contextlib.suppress(OSError):
            (label / "out").write_text("")
    eventually(lambda: not list(state.glob("*/plist")), patience=25)


@pytest.fixture
def stripe_outside():
    """Stripe, as an HTTP server on loopback; every shape it used was one of Stripe's. `env` leads a server to it."""
    from fake_stripe import FakeStripe
    shapes = json.loads((HOME / "tests" / "stripe_shapes.json").read_text())["resources"]
    with FakeStripe(shapes) as fake:
        fake.env = {"ORKOSI_STRIPE_SECRET_KEY": "sk_test_fake", "ORKOSI_STRIPE_WEBHOOK_SECRET": "whsec_fake", "ORKOSI_STRIPE_API_BASE": fake.url}
        yield fake
        assert fake.errors == []


@pytest.fixture
def stripe(data, stripe_outside, monkeypatch):
    """The same, and the settings of this process lead to it."""
    from plugins.billing import till
    for name, value in stripe_outside.env.items():
        monkeypatch.setitem(settings.values, name.removeprefix("ORKOSI_").lower(), value)
    till.forget("opened", None)
    return stripe_outside


@pytest.fixture
def worked(data):
    """Does what waits for other machines: `worked()` → the results of the jobs that were due."""
    from plugins import queue
    from plugins.queue import executor

    def work():
        done = []
        with acting(system()):
            while jobs := queue.claim(queue.OUTSIDE, "test", batch=50):
                for job in jobs:
                    executor.run(job)
                    done.append(queue.find(job.id))
        return [one.result if one.state == "completed" else one.error for one in done]
    return work


@pytest.fixture
def told(application, stripe, worked):
    """Hands over what Stripe has told since, and does what follows: `told()`, or `told(events)`."""
    def tell(events=None):
        for event in events or [one for one in stripe.events if one["id"] not in stripe.delivered]:
            raw, headers = stripe.signed(event, at=time.time())
            assert Client(application).post("/billing/webhook", raw=raw, headers=headers).json == {"received": True}
            stripe.delivered.add(event["id"])
        return worked()
    return tell


@pytest.fixture
def olga(as_):
    """Olga, who founded a tenant, and its number."""
    olga = as_("olga", "admin", tenant=None)
    olga.home = olga.get("/tokens/balance").data["company_id"]
    olga.id = olga.get("/auth/me").data["id"]
    return olga


@pytest.fixture
def paying(olga, stripe, told):
    """Olga, whose tenant pays for the tier solo."""
    stripe.pay(olga.post("/billing/checkout", {"tier": "solo"}).data["session_id"])
    told()
    olga.customer, = stripe.customers
    olga.subscription, = stripe.subscriptions
    return olga


@pytest.fixture
def browser(tmp_path):
    from browser import Browser
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


def eventually(claim, patience=10.0, every=0.02):
    """Wait until `claim()` is truthy, and return it; what must happen soon, but not at once."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := claim():
            return found
        time.sleep(every)
    raise AssertionError(f"did not come true within {patience} s")


__all__ = ["HOME", "Answer", "Application", "Client", "Like", "Server", "command", "emit", "eventually", "db", "limiter", "listed", "put"]
