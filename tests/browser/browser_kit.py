"""What the browser tests are made of: Chromium, pages, a kernel for them, axe-core, contrast."""

import base64
import json
import os
import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from lab_session import CHROMIUM_NAMES, chromium_path

# Milliseconds after which what must happen has failed to. A page that has what is expected goes on at once.
# To see a failure soon on a quiet machine: COURSE_PATIENCE=10000.
PATIENCE = int(os.environ.get("COURSE_PATIENCE", "300000"))
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "file:", "data:", "blob:", "about:")
# What JupyterLab's two themes set, as far as the widgets use it.
THEMES = {
    "light": "data-jp-theme-light=true style='--jp-content-font-color1:#212121;background:#fff'",
    "dark": "data-jp-theme-light=false style='--jp-content-font-color1:#fff;background:#111;color:#fff'",
}
HOST = (Path(__file__).parent / "harness.js").read_text(encoding="utf-8")


def find_chromium(playwright):
    """Path of a Chromium; skips the test without one, and fails it where a browser is required."""
    if found := chromium_path(playwright):
        return found
    names = ", ".join(CHROMIUM_NAMES)
    reason = f"No Chromium: none of {names} on PATH. Install one, or run: playwright install chromium"
    if os.environ.get("COURSE_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def watch(context, errors, outside):
    """Collect a browser context's script errors and its requests to other machines, which are refused."""

    def check(route):
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", check)
    context.on("weberror", lambda error: errors.append(str(error.error)))


class Kernel:
    """Stands between a page and a Python widget, as the kernel does. `hold()` makes it busy."""

    def __init__(self, page, widget):
        self.page, self.widget, self.held, self.received = page, widget, None, []
        widget.send = lambda content, buffers=None: self._post({"message": content})
        widget.observe(self._trait_changed, names=list(widget.page_state()))
        page.expose_function("courseKernel", self.receive)

    def receive(self, text):
        """One message of the page, JSON: {"set": {trait: value}} or {"message": content}."""
        message = json.loads(text)
        if self.held is not None:
            self.held.append(text)
        elif "set" in message:
            for name, value in message["set"].items():
                setattr(self.widget, name, value)
        else:
            self.received.append(message["message"])
            self.widget._receive(self.widget, message["message"], [])

    def hold(self):
        """Answer nothing until `release()`."""
        self.held = []

    def release(self):
        held, self.held = self.held, None
        for text in held:
            self.receive(text)

    def _trait_changed(self, change):
        self._post({"set": {change.name: change.new}})

    def _post(self, message):
        # As a task of the page: a callback of `expose_function` must not wait for the page.
        text = json.dumps(json.dumps(message, default=bytes_as_json))
        self.page.evaluate(f"courseLater(() => courseReceive({text}))")


def stop_clock(page):
    """From here on time passes for the page's timers only in `page.clock.run_for(milliseconds)`."""
    page.clock.install(time=0)
    page.clock.pause_at(3_600_000)
    page.evaluate("() => { requestAnimationFrame = courseFrame; }")  # frames are drawn all the same


def until(page, condition):
    """Wait until Python knows what the page has told it, and `condition()` holds."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        page.wait_for_timeout(10)  # lets Playwright hand over what the page sends


def bytes_as_json(value):
    return {"$bytes": base64.b64encode(value).decode()}


def document(theme, content):
    """A page with a theme of JupyterLab's: str."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>widget</title></head>"
        f"<body {THEMES[theme]}><main><h1>Widget</h1>{content}</main></body></html>"
    )


def axe_violations(page, within="main"):
    """What axe-core finds in the part of the page: list of str, each a rule and where it is broken."""
    response = Axe().run(page, context=within).response
    return [f"{v['id']}: {[node['target'] for node in v['nodes']]}" for v in response["violations"]]


def worst_contrast(page, selector=".course-widget"):
    """The lowest contrast (WCAG 2) of a text in the page against what lies behind it: (ratio, text)."""
    return tuple(page.evaluate(_CONTRAST, selector))


# Colours are painted on a canvas, so that any CSS colour can be read.
_CONTRAST = """(selector) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = [21, ""];
  for (const root of document.querySelectorAll(selector)) {
    for (const node of [root, ...root.querySelectorAll("*")]) {
      const text = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
      if (!text || !node.checkVisibility()) continue;
      const behind = [];
      for (let up = node; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
      const a = luminance(paint(["white", ...behind]));
      const b = luminance(paint(["white", ...behind, getComputedStyle(node).color]));
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < worst[0]) worst = [ratio, text];
    }
  }
  return worst;
}"""
