"""One ES module out of several, and one style sheet, as anywidget and a saved page need them.

Each imported module keeps a scope of its own: it becomes a function that is called at once and returns what
it exports, so that two modules may use the same name. What is whole is then minified (`smaller`, `style`),
since every saved output holds a copy.
"""

import re
from pathlib import Path

import minify_html

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.{1,2}/[\w./-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|let|class)", re.MULTILINE)
_EXPORTED = re.compile(r"^export (?:async )?(?:function\*?|const|let|class) (\w+)", re.MULTILINE)
# minify-html keeps the comments before statements.
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*(?:.|\n)*?\*/[ \t]*)\n", re.MULTILINE)
_STYLE = re.compile(r'^@import "(\.{1,2}/[\w./-]+\.css)";\n', re.MULTILINE)


def bundle(path, given=()):
    """A module with all that it imports: str, one ES module without imports.

    path:  Path of the module; it imports by `import { a, b as c } from "./other.js";`, one statement a module
    given: the modules (Paths) that are already there, each as a constant named `scope_name(path)`
    """
    written, parts = {Path(item).resolve() for item in given}, []

    def write(path):
        text = path.read_text(encoding="utf-8")
        for _, name in _IMPORT.findall(text):
            imported = (path.parent / name).resolve()
            if imported not in written:
                written.add(imported)
                body = write(imported)
                parts.append(f"const {scope_name(imported)} = {_called_at_once(body, imported)};\n")
        return _without_imports(text, path)

    entry = write(Path(path).resolve())
    return "".join(parts) + entry


def scope_name(path):
    """The constant that holds what a module exports: str, "core_dom" for core/dom.js."""
    path = Path(path)
    return re.sub(r"\W", "_", f"{path.parent.name}_{path.stem}")


def exports(path):
    """The names that a module exports: list of str, in its order."""
    return _EXPORTED.findall(Path(path).read_text(encoding="utf-8"))


def scoped(path, given=()):
    """An expression for what a module exports: str, with all that it imports."""
    return _called_at_once(bundle(path, given), path)


def style(path):
    """The style sheet at `path` (Path) with those that it imports, `@import "./a.css";`, as one: str."""
    path = Path(path)

    def imported(found):
        return style(path.parent / found[1])

    return _within("style", _STYLE.sub(imported, path.read_text(encoding="utf-8")), minify_css=True)


def smaller(module):
    """A whole ES module (str), minified: str, the same program.

    Whole, since a constant that nothing in it uses or exports is dropped. Text that is not JavaScript keeps
    all but its comments. A line that begins with // or /* is a comment, so none may stand in a template
    literal.
    """
    # In a string or a regular expression, where alone it can stand, "<\\/script" means the same.
    text = re.sub(r"</(?=script)", r"<\\/", _COMMENT.sub("", module), flags=re.IGNORECASE)
    return _within('script type="module"', text, minify_js=True)


def _within(tag, text, **options):
    """What minify-html makes of an element's text: str."""
    element = minify_html.minify(f"<{tag}>{text}</{tag.split()[0]}>", **options)
    return element[element.index(">") + 1 : element.rindex("</")]


def _called_at_once(body, path):
    """A function that runs `body` (str) and returns what the module at `path` exports, called: str."""
    return f"(() => {{\n{body}\nreturn {{ {', '.join(exports(path))} }};\n}})()"


def _without_imports(text, path):
    """A module's text with its imports as constants, and without `export` before a declaration: str."""

    def constants(found):
        names = re.sub(r"(\w+) as (\w+)", r"\1: \2", " ".join(found[1].split()))
        scope = scope_name((path.parent / found[2]).resolve())
        return f"const {{ {names.strip().rstrip(',')} }} = {scope};\n"

    return _EXPORT.sub("", _IMPORT.sub(constants, text))
