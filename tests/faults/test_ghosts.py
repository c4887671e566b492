"""Clients that are gone: no job is leased to them, and none that was loses an attempt."""
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from conftest import eventually


def claim(running, token, **fields):
    """A connection on which a claim was sent, and nothing read."""
    where = urlsplit(running.url)
    one = socket.create_connection((where.hostname, where.port), timeout=10)
    body = json.dumps({"worker_id": "ghost"} | fields).encode()
    one.sendall(f"POST /api/task-queue/claim HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return one


def submit(running, token, count, **fields):
    found = [running.call("POST", "/task-queue/submit", {"task_type": "t"} | fields, token) for _ in range(count)]
    assert {status for status, _ in found} == {201}
    return {answer["data"]["id"] for _, answer in found}


def working(running, token, got, stop):
    while not stop.is_set():
        _, answer = running.call("POST", "/task-queue/claim", {"worker_id": "live", "wait_seconds": 2}, token)
        if job := answer["data"]:
            assert running.call("POST", f"/task-queue/{job['id']}/complete", {"lease_token": job["lease_token"]}, token)[0] == 200
            got.append((job["id"], job["attempt"]))


@pytest.mark.slow
def test_after_a_hundred_killed_long_polls_all_jobs_go_to_the_living(server):
    running = server(env={"ORKOSI_TENANT_WAITING": "48"})
    token = server.admin(running)
    killed = 0
    while killed < 100:
        wave = [claim(running, token, wait_seconds=25) for _ in range(34)]
        time.sleep(0.4)  # they are on their way, and nothing shows those that wait
        for number, one in enumerate(wave):
            if number % 2:  # ended hard, as by a kill
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            one.close()
        killed += len(wave)
        if killed < 100:
            time.sleep(1.0)  # within which they are forgotten, so that the next may wait
    jobs = submit(running, token, 100)  # while the last wave is still listed as waiting
    got, stop = [], threading.Event()
    living = [threading.Thread(target=working, args=(running, token, got, stop)) for _ in range(4)]
    for one in living:
        one.start()
    eventually(lambda: len(got) >= 100, patience=15)
    stop.set()
    for one in living:
        one.join()
    assert {id for id, _ in got} == jobs and len(got) == 100 and {attempt for _, attempt in got} == {1}


@pytest.mark.slow
def test_one_that_speaks_while_it_waits_and_then_dies_gets_nothing(server):
    """A request behind the claim hides the end of the connection from who only tries to read."""
    running = server()
    token = server.admin(running)
    one = claim(running, token, wait_seconds=25)
    one.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.3)  # both requests are on their way, and nothing shows one that waits
    one.close()
    job, = submit(running, token, 1)
    _, answer = running.call("POST", "/task-queue/claim", {"worker_id": "live", "wait_seconds": 5}, token)
    assert (answer["data"]["id"], answer["data"]["attempt"]) == (job, 1)


@pytest.mark.slow
def test_a_batch_that_is_never_read_comes_back(server):
    running = server()
    token = server.admin(running)
    jobs = submit(running, token, 16, payload={"text": "x" * 250_000})
    one = claim(running, token, batch_size=16)
    eventually(lambda: {row["status"] for row in running.call("GET", "/task-queue?limit=20", token=token)[1]["data"]} == {"active"})
    one.close()
    eventually(lambda: {row["status"] for row in running.call("GET", "/task-queue?limit=20", token=token)[1]["data"]} == {"waiting"}, patience=5)
    got = running.call("POST", "/task-queue/claim", {"worker_id": "live", "batch_size": 16}, token)[1]["data"]
    assert {job["id"] for job in got} == jobs and {job["attempt"] for job in got} == {1}


def test_the_next_job_of_a_completion_that_is_not_read_comes_back(server):
    running = server()
    token = server.admin(running)
    submit(running, token, 1)
    _, first = running.call("POST", "/task-queue/claim", {"worker_id": "w"}, token)
    following, = submit(running, token, 1, payload={"text": "x" * 250_000})
    where = urlsplit(running.url)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((where.hostname, where.port))
    body = json.dumps({"lease_token": first["data"]["lease_token"], "result": "y" * 900_000, "claim_next": True}).encode()
    one.sendall(f"POST /api/task-queue/{first['data']['id']}/complete HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    eventually(lambda: running.call("GET", f"/task-queue/{following}", token=token)[1]["data"]["status"] == "active")
    one.close()
    job = eventually(lambda: (found := running.call("GET", f"/task-queue/{following}", token=token)[1]["data"])["status"] == "waiting" and found, patience=5)
    assert job["attempt"] == 0
    assert running.call("GET", f"/task-queue/{first['data']['id']}", token=token)[1]["data"]["status"] == "completed"
