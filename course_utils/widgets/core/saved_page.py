"""A widget as a piece of HTML that is alive without a kernel, and notebooks that keep each module once."""

import base64
import functools
import hashlib
import json
import re
from pathlib import Path

from .bundle import scope_name, scoped, smaller, style

_HERE = Path(__file__).parent
SHARED_MODULE, SHARED_STYLE = _HERE / "dom.js", _HERE / "style.css"
_HOST = _HERE / "host.js"
_MODULE = re.compile(r'<script type="module" data-course-module="([\w-]+)">.*?</script>\n', re.DOTALL)


def saved_html(still, module, css, state):
    """A saved widget: str, HTML, the still and three scripts.

    The first script holds what all widgets share, the second the module, the same for all widgets of a class,
    so that a notebook need keep each once (`drop_known_modules`). The third shows this widget. Each waits
    for what it needs, since a page may run them in any order.

    still:  str, HTML for where scripts do not run
    module: str, the widget's module without what all widgets share
    css:    str, its own style
    state:  dict, JSON-able but for bytes
    """
    shared, common = _shared_script()
    module = (
        f"const {{ {scope_name(SHARED_MODULE)}, saved }} = await {_arrival(shared)};\n"
        f"const css = {_as_script(css)};\n{module}"
    )
    own = f"course-{_digest(module)}"
    values = _as_script(state)
    view = _digest(still + values + own)
    return (
        f'<div data-course-view="{view}">{still}</div>\n'
        f"{common}{_named_script(own, module, 'saved(css, render)')}"
        f'<script type="module">\n(await {_arrival(own)})("{view}", {values});\n</script>'
    )


def drop_known_modules(page, known):
    """`page` (str, HTML that holds widgets' pages) without the modules named in the set `known`, to which
    those that it keeps are added. All that remains still works where the pages stand in one document."""

    def keep_new(found):
        if found[1] in known:
            return ""
        known.add(found[1])
        return found[0]

    return _MODULE.sub(keep_new, page)


@functools.cache
def _shared_script():
    """The name of the script that all saved widgets share, and the script: (str, str)."""
    name_of_dom = scope_name(SHARED_MODULE)
    module = smaller(
        f"const sharedCss = {_as_script(style(SHARED_STYLE))};\n"
        f"const {name_of_dom} = {scoped(SHARED_MODULE)};\n{_HOST.read_text(encoding='utf-8')}"
    )
    name = f"course-{_digest(module)}"
    return name, _named_script(name, module, f"{{ {name_of_dom}, saved }}")


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


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_script(value):
    """`value` as JSON that may stand in a script: str, bytes as the page's host reads them."""
    return json.dumps(value, default=_bytes_as_json, separators=(",", ":")).replace("<", "\\u003c")


def _bytes_as_json(value):
    """bytes for `json.dumps`: {"$bytes": base64}. Raises TypeError for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"page_state() holds a {type(value).__name__}, which JSON cannot represent")
