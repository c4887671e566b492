"""What the real BullMQ said on Redis (bullmq.json, which bench/bullmq_transcript.mjs writes), step by step, and what is said here.

Where the two differ, the difference has a name, which stands in the table of `plugins.bull`; anything else is a failure."""
import json
from pathlib import Path

from plugins import bull

TOLD = json.loads((Path(__file__).parent / "bullmq.json").read_text())
STATES = ("waiting", "active", "completed", "failed", "delayed", "paused", "prioritized")


RETRIED = {"#3", "#50"}  # jobs that were retried after they had failed


def named(where, theirs, ours):
    """Whether a difference is one that the table names: `retry` gives a job all its attempts again, and shows why it failed until it ends."""
    _, _, field = where.rpartition(" ")
    if not RETRIED & set(where.split()):
        return False
    return (field == "attempts_made" and 0 <= ours < theirs) or (field == "failed_reason" and theirs is None and ours in ("no such host", "second"))


class Here:
    """The same steps, by this face and, for what a worker does, by the queue's own."""

    def __init__(self, client):
        self.client, self.held, self.numbers = client, {}, {}

    def known(self, id):
        return f"#{self.numbers[id]}" if id in self.numbers else id

    def real(self, id):
        return next(own for own, number in self.numbers.items() if f"#{number}" == id) if id.startswith("#") else id

    def post(self, path, body=None):
        answer = self.client.post(f"/bull-queue/{path}", body)
        assert answer.status in (200, 201), answer
        return answer.data

    def do(self, verb, what, number):
        return getattr(self, verb)(number=number, **what) if verb == "submit" else getattr(self, verb)(**what)

    def submit(self, number, **what):
        made = self.post("submit", {"queue": "t", "data": {}} | what)
        if "job_id" not in what:
            self.numbers[made["id"]] = number
        return self.known(made["id"])

    def claim(self):
        job = self.client.post("/task-queue/claim", {"worker_id": "w", "queue_name": "t"}).data
        if not job:
            return None
        self.held[job["task_type"]] = job
        return self.known(next(one["id"] for one in self.client.get("/bull-queue/t/jobs?status=active").data if one["name"] == job["task_type"]))

    def work(self, name, how, **more):
        job = self.held.pop(name) if how != "heartbeat" else self.held[name]
        assert self.client.post(f"/task-queue/{job['id']}/{how}", {"lease_token": job["lease_token"], **more}).status == 200

    def complete(self, name, result=None):
        self.work(name, "complete", result=result)

    def fail(self, name, error):
        self.work(name, "fail", error=error)

    def progress(self, name, value):
        self.work(name, "heartbeat", progress=value)

    def pause(self):
        self.post("t/pause")

    def resume(self):
        self.post("t/resume")

    def promote(self, id):
        self.post(f"t/jobs/{self.real(id)}/promote")

    def retry(self, id):
        self.post(f"t/jobs/{self.real(id)}/retry")

    def remove(self, id):
        assert self.client.delete(f"/bull-queue/t/jobs/{self.real(id)}").status == 200

    def clean(self, status, limit=1000):
        return [self.known(id) for id in self.post("t/clean", {"status": status, "limit": limit})["removed"]]

    def retry_all(self):
        self.post("t/retry", {})

    def range(self, status, start, end):
        return [self.known(one["id"]) for one in self.client.get(f"/bull-queue/t/jobs?status={status}&start={start}&end={end}").data]

    def look(self):
        """What the queue looks like, in BullMQ's words."""
        of = self.client.get("/bull-queue/stats?queue=t").data[0]
        jobs = {state: [self.shown(one) for one in self.client.get(f"/bull-queue/t/jobs?status={state}").data] for state in STATES}
        return {"paused": of["is_paused"], "counts": of["counts"], "jobs": jobs}

    def shown(self, one):
        return {"id": self.known(one["id"]), "name": one["name"], "data": one["data"], "priority": one["opts"]["priority"], "attempts": one["opts"]["attempts"],
                "attempts_made": one["attempts_made"], "failed_reason": one["failed_reason"], "return_value": one["return_value"], "progress": one["progress"], "state": one["state"]}


def test_every_step_is_as_the_real_bullmq_has_it(client):
    here, wrong = Here(client), []
    for step in TOLD["steps"]:
        answer = here.do(step["verb"], step["what"], step["number"])
        for where, theirs, ours in [("answer", step["answer"], answer), *parts(step["after"], here.look())]:
            if theirs != ours and not named(where, theirs, ours):
                wrong.append((step["number"], step["verb"], where, theirs, ours))
    assert not wrong, f"{len(wrong)} of BullMQ {TOLD['bullmq']}:\n" + "\n".join(map(str, wrong[:99]))


def parts(theirs, ours):
    """What a step left, in pieces: which jobs of a state in which order, and each field of each."""
    yield "paused", theirs["paused"], ours["paused"]
    yield "counts", theirs["counts"], ours["counts"]
    for state in STATES:
        yield state, [one["id"] for one in theirs["jobs"][state]], [one["id"] for one in ours["jobs"][state]]
        there = {one["id"]: one for one in ours["jobs"][state]}
        for one in theirs["jobs"][state]:
            for name in one:
                if one["id"] in there:
                    yield f"{state} {one['id']} {name}", one[name], there[one["id"]][name]


def test_the_transcript_is_of_the_version_that_the_table_is_about():
    assert TOLD["bullmq"].startswith("5.") and "BullMQ (5)" in bull.__doc__ and len(TOLD["steps"]) >= 60


