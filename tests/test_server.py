"""Where a request is answered: by the loop, if it is quick; by a thread, if it is not, or turns out not to be."""
import http.client
import json
import threading
import time

import pytest

from orkosi import NOBODY, db, here
from plugins import tasks
from plugins.server import application as applications
from plugins.server import http as server

ENDLESS = "WITH RECURSIVE count (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM count WHERE x < 1000000000) SELECT max(x) FROM count"


@pytest.fixture
def listening(application, monkeypatch):
    """Starts the HTTP server in this process, with so many threads; an answer by `ask(method, path)`."""
    started = []

    def start(threads, token):
        monkeypatch.setattr(server, "THREADS", threads)
        listener = server.listen(application, "127.0.0.1", 0)
        loop = threading.Thread(target=listener.run)
        loop.start()
        started.append((listener, loop))

        def ask(method, path, timeout=3.0):
            connection = http.client.HTTPConnection("127.0.0.1", int(listener.effective_port), timeout=timeout)
            try:
                connection.request(method, f"/api{path}", headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
            finally:
                connection.close()
        return ask
    yield start
    for listener, loop in started:
        listener.finish()
        loop.join(10)
        listener.task_dispatcher.shutdown(timeout=1)
        listener.close()


def test_the_loop_needs_no_thread_for_what_is_quick(listening, client):
    client.post("/tasks", {"title": "A task"})
    ask = listening(0, client.token)
    assert ask("GET", "/tasks?limit=20")[1]["data"][0]["title"] == "A task"
    assert ask("GET", "/health")[1]["status"] == "ok" and ask("GET", "/auth/me")[1]["data"]["username"] == "root"
    assert ask("GET", "/tasks/999")[0] == 404 and ask("GET", "/tasks?limit=x")[0] == 400
    for method, path in (("GET", "/agents"), ("GET", "/nothing"), ("POST", "/auth/logout"), ("HEAD", "/tasks")):
        with pytest.raises(TimeoutError):
            ask(method, path, timeout=0.5)


def test_a_quick_read_that_takes_long_goes_to_a_thread_and_stays_there(listening, application, client, monkeypatch):
    plain = tasks.listed
    asked = []

    def slow(*args, **more):
        asked.append(threading.current_thread().name)
        if len(asked) == 1:
            db.value(ENDLESS)
        time.sleep(0.3)
        return plain(*args, **more)
    monkeypatch.setattr(tasks, "listed", slow)
    ask = listening(2, client.token)
    began = time.monotonic()
    assert ask("GET", "/tasks")[0] == 200
    assert time.monotonic() - began < 2, "it was cut off after 20 ms, and done again"
    assert len(asked) == 2 and asked[1].startswith("waitress-") and not asked[0].startswith("waitress-")
    waits = []
    others = [threading.Thread(target=lambda: asked.append(ask("GET", "/tasks")[0])) for _ in range(4)]
    for one in others:
        one.start()
    for _ in range(5):
        began = time.monotonic()
        ask("GET", "/health")
        waits.append(time.monotonic() - began)
    for one in others:
        one.join()
    assert max(waits) < 0.2, "the loop itself waits for none of them"
    assert [one for one in asked[2:] if isinstance(one, str)] == [one for one in asked[2:] if isinstance(one, str) and one.startswith("waitress-")]
    application.slow = {endpoint: 0.0 for endpoint in application.slow}
    assert ask("GET", "/tasks")[0] == 200 and not [one for one in asked if isinstance(one, str)][-1].startswith("waitress-"), "after a minute it is tried again"


def test_a_large_answer_is_no_matter_for_the_loop(listening, application, client):
    for number in range(30):
        client.post("/tasks", {"title": f"Task {number}", "description": "x" * 60_000})
    ask = listening(1, client.token)
    status, found = ask("GET", "/tasks?limit=200", timeout=10)
    assert status == 200 and len(found["data"]) == 30
    assert {endpoint.operation for endpoint in application.slow} == {"tasks.index"}


def test_nothing_of_the_loop_is_left_on_its_thread(application, client):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/tasks", "QUERY_STRING": "", "HTTP_AUTHORIZATION": f"Bearer {client.token}"}
    assert application.prepare_at_once(environ)[2][0] == 200
    assert not hasattr(here, "patience") and applications.PATIENCE == 0.02
    assert application.prepare_at_once(environ | {"HTTP_AUTHORIZATION": ""})[1].actor is NOBODY
    assert not application.quick("/api/nothing") and not application.quick("/api/agents") and application.quick("/api/tasks/7")


def test_what_the_loop_answers_is_declared_and_only_reads():
    import orkosi
    quick = [one for one in orkosi.endpoints() if one.quick]
    assert len(quick) > 20 and {one.method for one in quick} == {"GET"}
    assert not [one.path for one in quick if one.path.startswith(("/api/agents", "/api/automations", "/api/task-queue", "/api/files", "/api/products"))], \
        "these ask the supervisor or the disk, or carry payloads"
