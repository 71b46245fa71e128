"""CourseWidget: one ES module, two hosts.

With a kernel, anywidget runs the module. In a saved page (a committed notebook, an exported HTML file) a
short script runs the same module on a state that was saved beside it, with no kernel and no network. Where
scripts do not run, a still table stands in its place.
"""

import base64
import hashlib
import html
import itertools
import json
import re
from pathlib import Path

import anywidget
import traitlets

from ..errors import CourseError

_HERE = Path(__file__).parent
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_STYLE = re.compile(r'^@import "\./(\w+\.css)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const|class)", re.MULTILINE)
_COMMENT_OR_INDENT = re.compile(r"^[ \t]*(?://.*\n|/\*(?:.|\n)*?\*/[ \t]*\n)|^[ \t]+", re.MULTILINE)
_GOES_ON = re.compile(r"(?:[{(\[,;:?=]|=>|&&|\|\|)$")
_CONTINUES = re.compile(r"[})\].?:]|&&|\|\|")


class CourseWidget(anywidget.AnyWidget):
    """Base of the course's widgets.

    A subclass sets `_esm` and `_css` to paths and implements `summary` and `still`. Its ES module has a
    top-level function `render({ model, el })` and ends in `export default { render };`. What it imports
    from beside it ("./shared.js"; in CSS, `@import "./batch.css";`) is written into it when the class is
    made, since anywidget takes one plain module. All of it then shares one scope.

    live: bool, True where a kernel answers, False in a saved page
    """

    live = traitlets.Bool(True, read_only=True).tag(sync=True)

    def __init_subclass__(cls, **kwargs):
        if isinstance(cls.__dict__.get("_esm"), Path):
            cls._esm = _one_module(cls._esm)
        if isinstance(cls.__dict__.get("_css"), Path):
            cls._css = _text(_HERE / "shared.css") + _one_style(cls._css)
        super().__init_subclass__(**kwargs)

    def __init__(self, **traits):
        super().__init__(**traits)
        self.on_msg(self._receive)

    def summary(self):
        """What the widget shows, as text/plain: str, the same in every process (two decimals, no address)."""
        raise NotImplementedError

    def still(self):
        """What the widget shows, as HTML that needs no script: str, only plain tables and paragraphs, every
        token and every text of the learner's escaped. `html_table` helps."""
        raise NotImplementedError

    def page_state(self):
        """The state for a page without a kernel: dict, JSON-able but for bytes, which the module finds as
        a DataView, as it does with a kernel. By default the widget's own synced traits; `live` is False."""
        own = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")} | {
            "live": False
        }

    def answer(self, request):
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
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/plain"] = repr(self)
        data["text/html"] = self.page()
        return data, metadata

    def page(self):
        """The widget as a piece of HTML that is alive without a kernel: str, the still and two scripts. The
        first holds the module, the same for all widgets of a class, so that a notebook need keep it only
        once (`drop_known_modules`); the second shows this widget, as soon as the first has run."""
        still = self.still()
        css = str(getattr(self, "_css", "")).replace("\n", " ")  # a line feed takes six bytes in a notebook
        module = f"const css = {_as_script(css)};\n{self._esm}\n"
        module = _in_fewer_lines(module + _text(_HERE / "page_host.js"))
        event = f"course-{_digest(module)}"
        state = _as_script(self.page_state() | {"live": False})
        view = _digest(still + state + event)
        return (
            f'<div data-course-view="{view}">{still}</div>\n'
            f'<script type="module" data-course-module="{event}">\n{module}\n'
            f'globalThis["{event}"] = showSaved;\ndispatchEvent(new Event("{event}"));\n</script>\n'
            f'<script type="module">\nconst show = () => globalThis["{event}"]("{view}", {state});\n'
            f'if (globalThis["{event}"]) show(); else addEventListener("{event}", show, {{ once: true }});\n'
            "</script>"
        )


_MODULE = re.compile(r'<script type="module" data-course-module="([\w-]+)">.*?</script>\n', re.DOTALL)


def drop_known_modules(page, known):
    """`page` (str, HTML that holds widgets' pages) without the modules named in the set `known`, to which
    those that it keeps are added. All that is left still works where the pages stand in one document."""

    def keep_new(found):
        if found[1] in known:
            return ""
        known.add(found[1])
        return found[0]

    return _MODULE.sub(keep_new, page)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_script(value):
    """`value` as JSON that may stand in a script: str, bytes as the page's host reads them."""
    return json.dumps(value, default=_bytes_as_json, separators=(",", ":")).replace("<", "\\u003c")


def html_table(header, rows):
    """A plain table as str: `header` an iterable of str, `rows` an iterable of iterables; all is escaped.
    JupyterLab would align cells to the right, where bars and tokens are hard to compare."""

    def row(cells, tag):
        tds = (f'<{tag} style="text-align:left">{html.escape(str(cell))}</{tag}>' for cell in cells)
        return f"<tr>{''.join(tds)}</tr>"

    return "<table>" + row(header, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


_VISIBLE = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text):
    """`text` with what cannot be seen made visible: str, a space as "·", a line feed as "⏎", other
    characters without a shape (controls, zero width, direction marks) as their number, "U+200B"."""
    return "".join(_VISIBLE.get(c) or (c if c.isprintable() else f"U+{ord(c):04X}") for c in text)


def _one_module(path, written=None):
    """The module at `path` with the modules it imports from beside it written in, each once: str."""
    written = set() if written is None else written

    def imported(found):
        if found[1] in written:
            return ""
        written.add(found[1])
        return _EXPORT.sub("", _one_module(path.parent / found[1], written))

    return _IMPORT.sub(imported, _text(path))


def _one_style(path):
    """The style sheet at `path` with those it imports from beside it written in: str."""
    return _STYLE.sub(lambda found: _text(path.parent / found[1]), _text(path))


def _text(path):
    """The JavaScript or CSS at `path` without comment lines and indentation: str. Every saved output holds a
    copy, and a lesson has many. Lines inside a template literal lose their indentation too."""
    return _COMMENT_OR_INDENT.sub("", path.read_text(encoding="utf-8"))


def _in_fewer_lines(module):
    """JavaScript (str) without the line feeds that mean nothing: each takes a dozen bytes in a notebook.

    They are those after an opening bracket, a comma, a semicolon or an operator, and before a closing bracket
    or an operator: there JavaScript never inserts a semicolon. A line with "//" in it may end in a comment,
    and keeps its end.
    """
    lines = module.split("\n")
    joined = lines[0]
    for last, line in itertools.pairwise(lines):
        safe = "//" not in last and (_GOES_ON.search(last) or _CONTINUES.match(line))
        joined += (" " if safe else "\n") + line
    return joined


def _bytes_as_json(value):
    """bytes for `json.dumps`: {"$bytes": base64}. Raises TypeError for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"page_state() holds a {type(value).__name__}, which JSON has no word for")
