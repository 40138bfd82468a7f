"""Chromium without a window, driven by its own chromedriver over plain HTTP (W3C WebDriver)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Generous: the machine may be busy. A test of correctness has no time limit but this net.
NET_S = 120.0
_POLL_S = 0.05
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's name for a reference
# As root Chromium starts only without its sandbox; its shared memory may be small in a container.
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--force-color-profile=srgb",
)


def missing() -> str | None:
    """What has to be installed for tests in a browser; None where all is there."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt install chromium chromium-driver"
    return None


class Browser:
    """One session with one window."""

    def __init__(self, port: int, arguments: tuple[str, ...]) -> None:
        self._port = port
        options = {"args": [*_ARGUMENTS, *arguments], "binary": shutil.which("chromium")}
        wanted = {
            "alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": int(NET_S * 1000), "pageLoad": int(NET_S * 1000)},
            }
        }
        made = self._send("POST", "/session", {"capabilities": wanted})
        self._session = f"/session/{made['sessionId']}"

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=NET_S)
        with contextlib.closing(link):
            link.request(method, path, None if body is None else json.dumps(body))
            value = json.loads(link.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

    def command(self, method: str, path: str, body: Any = None) -> Any:
        """One command of the session."""
        return self._send(method, self._session + path, body)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.command("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; a promise is waited for."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> str:
        """The first element that a selector finds; waited for."""
        found: dict[str, str] = self.until(lambda: self._found(css), css)
        return found[_ELEMENT]

    def _found(self, css: str) -> Any:
        found = self.command("POST", "/elements", {"using": "css selector", "value": css})
        return found[0] if found else None

    def click(self, css: str) -> None:
        """Click on an element as a person would; it has to be visible."""
        self.command("POST", f"/element/{self.find(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Type into an element."""
        self.command("POST", f"/element/{self.find(css)}/value", {"text": text})

    def keys(self, text: str) -> None:
        """Press keys, whatever has the focus; Tab is U+E004, Enter U+E007 (WebDriver, 17.4.2)."""
        actions = [{"type": t, "value": key} for key in text for t in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.command("POST", "/actions", {"actions": [keyboard]})

    def text(self, css: str) -> str:
        """An element's text as it is shown."""
        return str(self.command("GET", f"/element/{self.find(css)}/text"))

    def until(self, what: Callable[[], Any], why: str = "") -> Any:
        """Wait until something is true, and return it."""
        deadline = time.monotonic() + NET_S
        while not (value := what()):
            if time.monotonic() > deadline:
                raise AssertionError(f"never came: {why}\n{self.log()}")
            time.sleep(_POLL_S)
        return value

    def resize(self, width: int, height: int) -> None:
        """Give the page this size, as a phone would have it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def devtools(self, method: str, **parameters: Any) -> Any:
        """One command of Chromium's own protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.command("GET", "/screenshot")))

    def log(self) -> list[str]:
        """What the page wrote to its console since the last time."""
        entries = self.command("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def close(self) -> None:
        """End the session and its window."""
        self.command("DELETE", "")


@contextlib.contextmanager
def browser(*arguments: str) -> Iterator[Browser]:
    """A browser for as long as the block lasts."""
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert driver.stdout is not None
        port = next(
            int(match[1])
            for line in driver.stdout
            if (match := re.search(r"successfully on port (\d+)", line))
        )
        made = Browser(port, arguments)
        try:
            yield made
        finally:
            made.close()
    finally:
        driver.terminate()
        driver.wait()
        assert driver.stdout is not None
        driver.stdout.close()
