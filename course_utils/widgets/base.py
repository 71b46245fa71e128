"""CourseWidget: one ES module, two hosts.

With a kernel, anywidget runs the module. In a saved page (a committed notebook, an exported HTML file) a
short script runs the same module on a state that was saved beside it, with no kernel and no network. Where
scripts do not run, a still table stands in its place.
"""

import base64
import functools
import hashlib
import html
import itertools
import json
import re
from pathlib import Path

import anywidget
import traitlets

from ..errors import CourseError
from .labels import visible as visible

_HERE = Path(__file__).parent
_SHARED = "shared.js"
_SHARED_NAMES = ("element", "control", "uniqueId", "typed", "arrowKeys", "connect", "saved")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_STYLE = re.compile(r'^@import "\./(\w+\.css)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const|class)", re.MULTILINE)
_COMMENT_OR_INDENT = re.compile(r"^[ \t]*(?://.*\n|/\*(?:.|\n)*?\*/[ \t]*\n)|^[ \t]+", re.MULTILINE)
_AROUND_SIGN = re.compile(r"\s*([{};,])\s*")
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

    # What a saved page needs beside what all widgets share.
    _own_module, _own_style = "", ""

    def __init_subclass__(cls, **kwargs):
        module, style = cls.__dict__.get("_esm"), cls.__dict__.get("_css")
        if isinstance(module, Path):
            cls._esm, cls._own_module = _one_module(module), _one_module(module, {_SHARED})
        elif isinstance(module, str):
            cls._own_module = module
        if isinstance(style, Path):
            cls._own_style = _one_style(style)
            cls._css = _text(_HERE / "shared.css") + cls._own_style
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
        """The widget as a piece of HTML that is alive without a kernel: str, the still and three scripts. The
        first holds what all widgets share, the second the module, the same for all widgets of a class, so
        that a notebook need keep each only once (`drop_known_modules`). The third shows this widget. Each
        waits for what it needs, since a page may run them in any order."""
        still = self.still()
        shared, common = _shared_module()
        module = _in_fewer_lines(
            f"const {{ {', '.join(_SHARED_NAMES)} }} = await {_arrival(shared)};\n"
            f"const css = {_as_script(_in_one_line(self._own_style))};\n{self._own_module}"
        )
        own = f"course-{_digest(module)}"
        state = _as_script(self.page_state() | {"live": False})
        view = _digest(still + state + own)
        return (
            f'<div data-course-view="{view}">{still}</div>\n'
            f"{common}{_named_script(own, module, 'saved(css, render)')}"
            f'<script type="module">\n(await {_arrival(own)})("{view}", {state});\n</script>'
        )


@functools.cache
def _shared_module():
    """The name of the script that all saved widgets share, and the script: (str, str)."""
    style = _as_script(_in_one_line(_text(_HERE / "shared.css")))
    module = _EXPORT.sub("", _one_module(_HERE / _SHARED))
    module = _in_fewer_lines(f"const sharedCss = {style};\n{module}\n{_text(_HERE / 'page_host.js')}")
    name = f"course-{_digest(module)}"
    return name, _named_script(name, module, f"{{ {', '.join(_SHARED_NAMES)} }}")


def _named_script(name, module, value):
    """A script that runs `module` (str) and then gives `value`, an expression of it, to whoever waits."""
    return (
        f'<script type="module" data-course-module="{name}">\n{module}\n'
        f'globalThis["{name}"] = {value};\ndispatchEvent(new Event("{name}"));\n</script>\n'
    )


def _arrival(name):
    """JavaScript for what the script `name` gives, or a promise of it: str."""
    here = f'globalThis["{name}"]'
    later = f'new Promise((go) => addEventListener("{name}", () => go({here}), {{ once: true }}))'
    return f"({here} ?? {later})"


def _in_one_line(style):
    """CSS (str) without line feeds, which take six bytes in a notebook, and without spaces beside brackets,
    commas and semicolons. None of the sheets has these in a string."""
    return _AROUND_SIGN.sub(r"\1", style).replace(";}", "}").replace("\n", " ")


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
