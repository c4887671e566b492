"""Told to end under load: what was acknowledged is there, and nobody is left without an answer or a closed connection."""
import http.client
import json
import random
import threading
import time
from urllib.parse import urlsplit

import apsw
import pytest

CYCLES, CLIENTS = 20, 8


class Worker(threading.Thread):
    """Submits until its connection ends; what it was told of each key."""

    def __init__(self, url, token, name):
        super().__init__()
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=15)
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        self.prefix, self.told = name, {}

    def run(self):
        for number in range(100_000):
            key = f"{self.prefix}-{number}"
            self.told[key] = "nothing"
            try:
                self.connection.request("POST", "/api/task-queue/submit", json.dumps({"task_type": "t", "idempotency_key": key}), self.headers)
                answer = self.connection.getresponse()
                answer.read()
                self.told[key] = "acknowledged" if answer.status == 201 else f"answered {answer.status}"
            except TimeoutError:
                return
            except (OSError, http.client.HTTPException):
                self.told[key] = "closed"
                return


@pytest.mark.slow
def test_twenty_ends_under_load(server):
    dice, told, ends = random.Random(7), {}, []
    running = server()
    token = server.admin(running)
    for cycle in range(CYCLES):
        workers = [Worker(running.url, token, f"{cycle}-{number}") for number in range(CLIENTS)]
        parked = threading.Thread(target=running.call, args=("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "empty", "wait_seconds": 20}, token))
        for one in (*workers, parked):
            one.start()
        time.sleep(dice.uniform(0.1, 0.5))  # the load, up to a moment by chance
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(15) == 0, "it ends in order"
        ends.append(time.monotonic() - began)
        for one in (*workers, parked):
            one.join()
        for one in workers:
            told |= one.told
        running = server()
    running.stop()
    assert max(ends) < 6, f"the slowest end took {max(ends):.1f} s"
    assert set(told.values()) <= {"acknowledged", "closed"}, {outcome for outcome in told.values()}
    con = apsw.Connection(str(running.folder / "orkosi.db"))
    kept = {key for key, in con.execute("SELECT idempotency_key FROM jobs WHERE idempotency_key IS NOT NULL")}
    con.close()
    acknowledged = {key for key, outcome in told.items() if outcome == "acknowledged"}
    assert len(acknowledged) > 500 and acknowledged <= kept, "an acknowledged write is gone"
    assert kept <= acknowledged, f"{len(kept - acknowledged)} were committed, and their clients never told: what is under way is answered first"
