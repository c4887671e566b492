"""A thousand clients that drip: an honest one must hardly notice."""
import resource
import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import pytest

DRIPPERS, SECONDS = 1000, 24


def drip(host, port, stop, count, answers):
    """Hold `count` connections, one byte a second each; a closed one is opened again."""
    sockets, head = [], b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-Slow: "
    while not stop.is_set():
        while len(sockets) < count and not stop.is_set():
            try:
                one = socket.create_connection((host, port), timeout=2)
                one.sendall(head)
                one.setblocking(False)
                sockets.append(one)
            except OSError:
                break
        stop.wait(1)
        for one in list(sockets):
            try:
                one.send(b"a")
                try:
                    if one.recv(100) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
            except OSError:
                answers.append("closed")
                one.close()
                sockets.remove(one)
    for one in sockets:
        one.close()


@pytest.mark.slow
def test_an_honest_client_is_served_while_a_thousand_drip(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    running = server()
    where, stop, closed = urlsplit(running.url), threading.Event(), []
    crowd = [threading.Thread(target=drip, args=(where.hostname, where.port, stop, DRIPPERS // 4, closed)) for _ in range(4)]
    for one in crowd:
        one.start()
    began, waits = time.monotonic(), []
    while (passed := time.monotonic() - began) < SECONDS:
        asked = time.monotonic()
        try:
            urllib.request.urlopen(running.url + "/api/health", timeout=20).read()
        except OSError:
            assert passed < 15, "refused after the first 15 s"
        if passed >= 15:
            waits.append(time.monotonic() - asked)
        time.sleep(0.05)  # an honest client's pace
    stop.set()
    for one in crowd:
        one.join()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    waits.sort()
    assert len(waits) > 50 and waits[int(len(waits) * 0.99)] < 1.0, waits[-5:]
    assert len(closed) > DRIPPERS * 0.8, f"only {len(closed)} were put out"
