"""A widget as a piece of HTML that is alive without a kernel, and notebooks that keep each module once."""

import base64
import functools
import hashlib
import json
import re
from pathlib import Path

from .bundle import bundle, scope_name, scoped, smaller, style

_HERE = Path(__file__).parent
SHARED_MODULES = [_HERE / name for name in ("dom.js", "numbers.js", "typing.js")]
SHARED_STYLE = _HERE / "style.css"
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
    own, script = _named_script(
        f"const {{ {', '.join([*_used_scopes(module), 'saved'])} }} = await {_arrival(shared)};\n{module}",
        f"saved({_as_script(css)}, render)",
    )
    values = _as_script(state)
    view = _digest(still + values + own)
    return (
        f'<div data-course-view="{view}">{still}</div>\n{common}{script}'
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
    scopes = "".join(
        f"const {scope_name(path)} = {scoped(path, SHARED_MODULES)};\n" for path in SHARED_MODULES
    )
    names = ", ".join(map(scope_name, SHARED_MODULES))
    return _named_script(
        scopes + bundle(_HOST), f"{{ {names}, saved: host({_as_script(style(SHARED_STYLE))}) }}"
    )


def _used_scopes(module):
    """The scopes of shared modules that `module` (str) takes names from: list of str."""
    return [name for name in map(scope_name, SHARED_MODULES) if re.search(rf"= {name};", module)]


@functools.lru_cache(maxsize=64)
def _named_script(module, value):
    """A script that runs `module` (str) and then gives `value`, an expression of it, to whoever waits: its
    name and the script, (str, str)."""
    name = f"course-{_digest(module + value)}"
    # Only with what it gives is the module whole, so that minifying keeps all that is used.
    whole = f'{module}\nglobalThis["{name}"] = {value};\ndispatchEvent(new Event("{name}"));\n'
    return name, f'<script type="module" data-course-module="{name}">{smaller(whole)}</script>\n'


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
