"""Deliveries at their worst: one event many times at once over real connections, and a server that is killed in between."""
import http.client
import json
import threading
from urllib.parse import urlsplit

from conftest import Server


def deliver(url, raw, number, answers):
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    try:
        connection.request("POST", where.path, raw, {"Content-Type": "application/json", "X-Id": number})
        answer = connection.getresponse()
        answers.append((number, answer.status, json.loads(answer.read())["data"]["task_id"]))
    except (OSError, http.client.HTTPException, ValueError):
        pass  # killed, or hung up: the sender comes again
    finally:
        connection.close()


def together(calls):
    threads = [threading.Thread(target=deliver, args=call) for call in calls]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def hook_of(running, token):
    status, made = running.call("POST", "/hooks", {"name": "h", "kind": "none", "title": {"pointer": "/n", "text": "x"}, "delivery_header": "X-Id"}, token)
    assert status == 201
    return f"{running.url}/hooks/{made['data']['url'].rpartition('/')[2]}"


def test_one_event_many_times_at_once_makes_one_task(server):
    running = server()
    token = server.admin(running)
    url, answers = hook_of(running, token), []
    together([(url, json.dumps({"n": f"event {number % 5}"}).encode(), str(number % 5), answers) for number in range(60)])
    assert len(answers) == 60 and sorted(status for _, status, _ in answers) == [200] * 55 + [201] * 5
    assert len({(number, task) for number, _, task in answers}) == 5 and len(running.call("GET", "/tasks", token=token)[1]["data"]) == 5


def test_a_kill_loses_no_delivery_that_was_answered_and_doubles_none(server, tmp_path):
    running = server()
    token = server.admin(running)
    path, answers = urlsplit(hook_of(running, token)).path, []
    for cycle in range(4):
        wave = [(running.url + path, b'{"n": "event"}', f"{cycle}-{number}", answers) for number in range(40)]
        killer = threading.Timer(0.03 + cycle * 0.03, running.kill)
        killer.start()
        together(wave)
        killer.join()
        running = Server(running.folder)
        together([(running.url + path, *call[1:]) for call in wave])  # all of them come again
    tasks = {}
    for number, _, task in answers:
        assert tasks.setdefault(number, task) == task, "an answered delivery makes the same task, for good"
    found = running.call("GET", "/tasks?limit=200", token=token)[1]["data"]
    running.stop()
    assert len(tasks) == 160 == len(found) == len(set(tasks.values())) and {one["id"] for one in found} == set(tasks.values())
