"""CourseWidget: one ES module, two hosts.

With a kernel, anywidget runs the module. In a saved page (a committed notebook, an exported HTML file) a
short script runs the same module on a state that was saved beside it, with no kernel and no network. Where
scripts do not run, a still table stands in its place.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...errors import CourseError
from .bundle import bundle, smaller, style
from .saved_page import SHARED_MODULES, SHARED_STYLE, saved_html


class CourseWidget(anywidget.AnyWidget):
    """Base of the course's widgets.

    A subclass sets `_esm` and `_css` to paths and implements `summary` and `still`. Its ES module has a
    top-level function `render({ model, el })` and ends in `export default { render };`. What it imports
    (`import { element } from "../core/dom.js";`; in CSS, `@import "../core/batch.css";`) is written into it
    when the class is made, each module with a scope of its own, since anywidget takes one plain module.

    live: bool, True where a kernel answers, False in a saved page
    """

    live = traitlets.Bool(True, read_only=True).tag(sync=True)

    # What a saved page needs beside what all widgets share.
    _own_module, _own_style = "", ""

    def __init_subclass__(cls, **kwargs):
        module, sheet = cls.__dict__.get("_esm"), cls.__dict__.get("_css")
        if isinstance(module, Path):
            cls._esm, cls._own_module = smaller(bundle(module)), bundle(module, SHARED_MODULES)
        elif isinstance(module, str):
            cls._own_module = module
        if isinstance(sheet, Path):
            cls._own_style = style(sheet)
            cls._css = style(SHARED_STYLE) + cls._own_style
        super().__init_subclass__(**kwargs)

    def __init__(self, **traits) -> None:
        super().__init__(**traits)
        self.on_msg(self._receive)

    def summary(self) -> str:
        """What the widget shows, as text/plain: str, the same in every process (two decimals, no address)."""
        raise NotImplementedError

    def still(self) -> str:
        """What the widget shows, as HTML that needs no script: str, only plain tables and paragraphs, every
        token and every text of the learner's escaped. `html_table` helps."""
        raise NotImplementedError

    def page_state(self) -> dict[str, Any]:
        """The state for a page without a kernel: dict, JSON-able but for bytes, which the module finds as
        a DataView, as it does with a kernel. By default the widget's own synced traits; `live` is False."""
        own = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")} | {
            "live": False
        }

    def answer(self, request: dict) -> dict | None:
        """Do what the page asks for and set the traits that it shows.

        request: dict, what the module gave to `connect(...).ask`
        Returns None or a dict that is added to the reply. A CourseError reaches the learner as its sentence.
        """
        raise CourseError(f"{type(self).__name__} has no answer to {request!r}.")

    def _receive(self, _widget, content, _buffers):
        """Answer one request of the page; the reply repeats its number so that a stale one is ignored."""
        number = content.get("number")
        try:
            reply = self.answer(content["request"]) or {}
        except CourseError as error:
            reply = {"error": str(error)}
        except KeyboardInterrupt:  # reaches a kernel that answers in its main thread
            reply = {"error": "The kernel was interrupted before it had answered. Try again."}
        except (
            Exception
        ) as error:  # raised in a message handler it would reach only the log, and the page would wait
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.send({"number": number, **reply})

    def __repr__(self):
        return self.summary()

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        data["text/plain"] = repr(self)
        data["text/html"] = self.page()
        return data, metadata

    def page(self) -> str:
        """The widget as a piece of HTML that is alive without a kernel: str, the still and its scripts."""
        return saved_html(
            self.still(), self._own_module, self._own_style, self.page_state() | {"live": False}
        )
