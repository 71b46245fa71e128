"""What is written in a release: names, parameters, decorators, messages. Nothing is imported."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from .processes import tracked

# What the course is about. Modules that it imports besides come from `uses`.
SUBJECT = (
    "generation/*.py",
    "cache_utils.py",
    "masking_utils.py",
    "modeling_outputs.py",
    "configuration_utils.py",
    "tokenization*.py",
    "utils/generic.py",
    "models/gpt2/*.py",
    "models/llama/*.py",
)
MESSAGES = {"warn", "warning", "warning_once", "warning_advice", "warn_once"}


@dataclass
class Catalog:
    """Of several modules. A name is "generation.utils.GenerationMixin.generate".

    functions:  name -> {parameter: its default as code, "" without}, in their order
    decorators: name -> tuple of code. names: classes, functions, fields and constants
    modules:    their dotted names. messages: (module, text), with {…} for what is filled in
    """

    functions: dict = field(default_factory=dict)
    decorators: dict = field(default_factory=dict)
    names: set = field(default_factory=set)
    modules: set = field(default_factory=set)
    messages: set = field(default_factory=set)


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(package: Path, modules=()) -> Catalog:
    """Read the subject's modules and these, dotted names, of a `transformers` folder."""
    files = {path for pattern in SUBJECT for path in package.glob(pattern)}
    for name in modules:
        path = package.joinpath(*name.split("."))
        files |= {file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()}
    catalog = Catalog()
    for file in tracked(sorted(files), "reading modules"):
        module = module_name(file, package)
        catalog.modules.add(module)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        _add_body(catalog, tree.body, module)
        catalog.messages |= {(module, text) for text in _messages(tree)}
    return catalog


def _add_body(catalog, body, prefix):
    """The names that a module or a class binds, also under `if` and `try`."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            catalog.names.add(name)
            catalog.decorators[name] = tuple(map(ast.unparse, node.decorator_list))
            if isinstance(node, ast.ClassDef):
                _add_body(catalog, node.body, name)
            else:
                catalog.functions[name] = _parameters(node.args)
        elif isinstance(node, ast.If | ast.Try):
            for part in ("body", "orelse", "finalbody"):
                _add_body(catalog, getattr(node, part, []), prefix)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            catalog.names |= {f"{prefix}.{target.id}" for target in targets if isinstance(target, ast.Name)}


def _parameters(arguments):
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(positional, defaults, strict=True)]
    if arguments.vararg:
        pairs.append((arguments.vararg, None))
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    if arguments.kwarg:
        pairs.append((arguments.kwarg, None))
    return {argument.arg: ast.unparse(default) if default else "" for argument, default in pairs}


def _messages(tree):
    """Texts that are raised, warned of or logged as a warning."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not (isinstance(call, ast.Call) and call.args):
            continue
        warns = isinstance(call.func, ast.Attribute) and call.func.attr in MESSAGES
        if (warns or isinstance(node, ast.Raise)) and (text := template(call.args[0])):
            yield text


def template(node) -> str:
    """The text of a literal, an f-string or a sum of them; "" where there is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return ""


def deprecated_arguments(package: Path) -> dict[tuple, int]:
    """{(old name, release, new name or ""): how many functions} of a whole `transformers` folder."""
    found = {}
    for path in tracked([*package.rglob("*.py")], "reading the release"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "@deprecate_kwarg" not in text:
            continue
        for piece in re.findall(r"@deprecate_kwarg(\([^()]*(?:\([^()]*\)[^()]*)*\))", text):
            call = ast.parse(f"f{piece}", mode="eval").body
            given = dict(zip(("old_name", "version", "new_name"), call.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in call.keywords}
            values = {name: template(value) for name, value in given.items()}
            key = tuple(values.get(name, "") for name in ("old_name", "version", "new_name"))
            found[key] = found.get(key, 0) + 1
    return found


def starts(file: Path) -> dict[str, tuple[int, int]]:
    """{"GenerationMixin.generate": (first line, last line)} of a module, decorators included."""
    found = {}

    def walk(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
                found[prefix + node.name] = (first, node.end_lineno)
                walk(node.body, f"{prefix}{node.name}.")

    walk(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found
