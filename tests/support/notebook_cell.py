"""The widget of a notebook in a browser, with substitutes for the kernel and the notebook."""

from __future__ import annotations

import base64
import json
from typing import Any

from tiepoint.notebook import SCRIPT, Viewer

HARNESS = """
<!doctype html><html lang="en"><title>cell</title><body><main><h1>cell</h1>
<div id="cell"></div></main></body></html>
"""
START = """
async ([script, state]) => {
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  // At an odd offset, as a kernel's buffers come.
  const view = text => {
    const data = bytes(text), held = new Uint8Array(data.length + 3);
    held.set(data, 3);
    return new DataView(held.buffer, 3, data.length);
  };
  const values = {
    _about: state.about, _pictures: state.pictures.map(view), _first: view(state.first),
  };
  const acts = new Set();
  const model = {
    get: name => values[name],
    on: (_, act) => acts.add(act),
    off: (_, act) => acts.delete(act),
    send: request => {
      if (!window.kernel) throw new Error("no kernel");
      window.kernel(JSON.stringify(request)).then(text => {
        const { content, buffers } = JSON.parse(text);
        for (const act of acts) act(content, buffers.map(view));
      });
    },
  };
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const widget = (await import(url)).default;
  window.keys = 0;
  document.addEventListener("keydown", () => window.keys++);
  window.end = widget.render({ model, el: document.getElementById("cell") });
  window.listeners = acts;
}
"""


class Cell:
    """A page with one cell; Playwright reaches into its open shadow root."""

    def __init__(
        self, browser: Any, widget: Viewer, *, kernel: bool = True, **options: Any
    ) -> None:
        width, height = 1000, 640
        given = {"viewport": {"width": width, "height": height}, "locale": "en-US", **options}
        self.page = browser.new_context(**given).new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "request",
            lambda request: (
                request.url.startswith(("about:", "blob:", "data:", "http://cell/"))
                or self.problems.append(request.url)
            ),
        )
        self.page.route(
            "http://cell/", lambda route: route.fulfill(body=HARNESS, content_type="text/html")
        )
        self.page.goto("http://cell/")
        if kernel:
            answering = Kernel(widget)

            def answer(text: str) -> str:
                answering.widget._handle_custom_msg(json.loads(text), [])
                content, buffers = answering.sent.pop()
                return json.dumps({"content": content, "buffers": [coded(b) for b in buffers]})

            self.page.expose_function("kernel", answer)
        state = {
            "about": widget._about, "pictures": [coded(one) for one in widget._pictures],
            "first": coded(widget._first),
        }  # fmt: skip
        self.page.evaluate(START, [SCRIPT.read_text(encoding="utf-8"), state])

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=30_000)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def until(self, selector: str, words: str) -> None:
        for _ in range(600):
            if words in self.text(selector):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{words!r} never in {self.text(selector)!r}")


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Kernel:
    """Sends requests to a widget, and catches what it sends."""

    def __init__(self, widget: Viewer) -> None:
        self.widget = widget
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        widget.send = lambda content, buffers=None: self.sent.append((content, buffers or []))

    def ask(self, **request: Any) -> tuple[dict[str, Any], bytes]:
        """The content and the bytes of the answer."""
        self.widget._handle_custom_msg({"id": 7, **request}, [])
        content, buffers = self.sent.pop()
        assert content["id"] == 7
        return content, buffers[0] if buffers else b""
