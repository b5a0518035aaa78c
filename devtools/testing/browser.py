"""A Chromium without a screen, spoken to by its DevTools protocol through a pipe: no driver needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

import pytest

from devtools.testing.installed import BROWSERS, NO_CHROMIUM
from devtools.testing.patience import PATIENCE

__all__ = ["Browser", "Tab", "chromium"]

# As root there is no sandbox, and a container may have a small /dev/shm.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)


class PageWent(RuntimeError):
    """The page was left for another one before it had answered."""


@dataclass(slots=True)
class Browser:
    """Commands out, answers and events in, each a JSON value ended by a NUL."""

    _commands: IO[bytes]
    _answers: IO[bytes]
    _number: int = 0
    _rest: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """One command and its result; what happened meanwhile goes to `events`."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "navigated" in str(answer.get("error")):
                    raise PageWent(method)
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        """Until this event has come since the last time `events` was cleared."""
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            left = max(0.0, give_up - time.monotonic())
            ready, _, _ = select.select([self._answers], [], [], left)
            assert ready, f"Chromium has not answered for {PATIENCE:.0f} s."
            data = os.read(self._answers.fileno(), 1 << 20)
            assert data, "Chromium has ended."
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        value: dict[str, Any] = json.loads(message)
        return value

    def tab(self) -> Tab:
        """A new page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            tab.call(f"{domain}.enable")
        return tab


@dataclass(frozen=True, slots=True)
class Tab:
    """One page."""

    browser: Browser
    session: str

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def log_in(self, url: str, cookies: Mapping[str, str]) -> None:
        """Send these cookies to this address."""
        for name, value in cookies.items():
            self.call("Network.setCookie", name=name, value=value, url=url)

    def show(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """The window's size in CSS pixels, and the colour scheme that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def go(self, url: str) -> None:
        """Load a page whole."""
        self.browser.events.clear()
        self.call("Page.navigate", url=url)
        self.browser.wait_for("Page.loadEventFired")

    def value(self, script: str) -> Any:
        """What an expression of JavaScript gives; asked again where the page goes meanwhile."""
        while True:
            with suppress(PageWent):
                answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
                break
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def promised(self, script: str) -> Any:
        """What the promise gives that an expression of JavaScript makes."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """What the browser has said against the page since it was loaded: also what its
        Content-Security-Policy has kept from it."""
        entries = [
            event["params"]["entry"]["text"]
            for event in self.browser.events
            if event.get("method") == "Log.entryAdded"
        ]
        failed = [
            event["params"]["exceptionDetails"]["text"]
            for event in self.browser.events
            if event.get("method") == "Runtime.exceptionThrown"
        ]
        return entries + failed

    def requested(self) -> list[str]:
        """The addresses that the page has asked for since it was loaded."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def heard(self) -> list[tuple[str, str]]:
        """(role, name) of what a screen reader would read."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    def window(self) -> bytes:
        """What the window shows, as a PNG."""
        answer = self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    def press(self, key: str, *, shift: bool = False) -> None:
        """A key by its name: Tab, Enter, Escape, or a space."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        given = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **given, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def whole(self) -> bytes:
        """The page from its head to its end, as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call(
            "Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=clip
        )
        return base64.b64decode(answer["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with nothing stored, gone with the end of the block. Without one on PATH whatever
    asks for it is skipped, with what to install."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(NO_CHROMIUM)
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    # Out of the way of 3 and 4, where Chromium wants its ends.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
    script = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        with os.fdopen(ours_out, "wb") as commands, os.fdopen(ours_in, "rb") as answers:
            browser = Browser(commands, answers)
            try:
                yield browser
                browser.call("Browser.close")
            finally:
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
