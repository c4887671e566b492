"""A real Chromium, driven through its debugging pipe: no driver, no package, no port."""
import base64
import json
import os
import shutil
import subprocess
import time

import pytest

CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "/": 191, "[": 219, "]": 221, "?": 191}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--window-size=1200,900"]


def required(command, what):
    """Skip a test whose tool is not on this machine; where nothing may be skipped, fail."""
    found = shutil.which(command)
    if not found and os.environ.get("ORKOSI_TESTS_SKIP") == "never":
        pytest.fail(f"{what} is not installed, and no test may be skipped here")
    if not found:
        pytest.skip(f"{what} is not installed")
    return found


class Browser:
    """One page. `run` evaluates a script in it and waits for its promise; `seen` has what it complained of."""

    def __init__(self, profile):
        chromium = required("chromium", "Chromium")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def hand_over():  # Chromium reads its commands from 3 and writes to 4; first away from each other's way
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3)
            os.dup2(b, 4)
        self.process = subprocess.Popen([chromium, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"], preexec_fn=hand_over,
                                        close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer, self.number, self.buffer, self.seen, self.session = ours_in, ours_out, 0, b"", [], None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Network.requestWillBeSent"):
                self.seen.append(answer)

    def receive(self):
        while b"\0" not in self.buffer:
            more = os.read(self.reader, 1 << 16)
            assert more, "Chromium ended"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        self.send("Page.navigate", url=url)

    def run(self, script):
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def soon(self, script, patience):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if found := self.run(script):
                    return found
            except AssertionError as error:  # the page that was asked is just being left: the next one is
                if "navigated or closed" not in str(error):
                    raise
            time.sleep(0.1)
        return None

    def wait(self, script, patience=15):
        if found := self.soon(script, patience):
            return found
        raise AssertionError(f"never true: {script}\n{self.run('document.body.innerText')}\n{self.complaints}")

    def key(self, name, text=None):
        """Press a key, as a person does: `key("j")`, `key("Enter")`."""
        text = name if text is None and len(name) == 1 else "\r" if name == "Enter" else text
        more = {"text": text} if text else {}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", key=name, windowsVirtualKeyCode=CODES.get(name, ord(name[0].upper())), **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name)

    def type(self, text):
        """Write into what has the focus."""
        self.send("Input.insertText", text=text)

    def picture(self):
        """What is seen, as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def size(self, width, theme="light", height=900):
        """Be so wide, in the light or in the dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    @property
    def complaints(self):
        return [one["params"] for one in self.seen if one["method"] != "Network.requestWillBeSent"]

    @property
    def asked(self):
        return [one["params"]["request"]["url"] for one in self.seen if one["method"] == "Network.requestWillBeSent"]

    def close(self):
        self.process.terminate()
        self.process.wait()
        os.close(self.reader)
        os.close(self.writer)
