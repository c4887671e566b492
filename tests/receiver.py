"""A receiver of webhooks, as an HTTP server on loopback, and the server's own hands that send to it."""
import http.server
import threading

from orkosi import acting, system
from plugins import queue
from plugins.queue import executor
from plugins.webhooks import sending


class Receiver:
    """What is sent to it, whole; it answers what it is told to, one after the other, and the last of that again and again."""

    def __init__(self, *answers):
        self.got, self.answers = [], list(answers)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                receiver.got.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
                status, text, *more = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                self.send_response_only(status)
                for name, value in {"X-Of": "the receiver", **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.handler, self.port = Handler, 0
        self.again()
        self.url = f"http://127.0.0.1:{self.port}/in"

    def again(self):
        """It is there, after it was not."""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def send(id):
    """What is due is sent. The server's own hands are ours here."""
    with acting(system(1)):
        sending.advance(id)
    with acting(system()):
        while jobs := queue.claim(queue.OUTSIDE, "w", batch=50):
            for job in jobs:
                executor.run(job)
