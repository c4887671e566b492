"""huey and litequeue, each on a SQLite file of its own: `pyqueues.py huey|litequeue FILE CALLS`. Prints {"submit": …, "work": …} a second.

They run with the settings that they have by themselves, one caller, in the folder's own Python: both use the standard library's SQLite.
"""
import json
import sys
import time


def huey(file, calls):
    from huey import SqliteHuey
    queue = SqliteHuey(filename=file)

    @queue.task()
    def job(n):
        return n

    def submit():
        for n in range(calls):
            job(n)

    def work():
        for _ in range(calls):
            queue.execute(queue.dequeue())
    return submit, work


def litequeue(file, calls):
    from litequeue import LiteQueue
    queue = LiteQueue(file)

    def submit():
        for n in range(calls):
            queue.put(json.dumps({"n": n}))

    def work():
        for _ in range(calls):
            queue.done(queue.pop().message_id)
    return submit, work


def timed(do, calls):
    began = time.perf_counter()
    do()
    return calls / (time.perf_counter() - began)


if __name__ == "__main__":
    kind, file, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    submit, work = {"huey": huey, "litequeue": litequeue}[kind](file, calls)
    print(json.dumps({"submit": timed(submit, calls), "work": timed(work, calls)}))
