"""Stages: names, parameters and messages that changed, and arguments that are newly deprecated."""

from . import catalog
from .catalog import Catalog
from .report import Section, code, count, folded, some
from .uses import Uses

# Methods that nearly every class has, so that the word in the course says nothing about one of them
COMMON = {"forward", "__init__", "__call__", "update", "reset"}
KINDS = ("module", "name", "parameter", "default", "decorator")


def differences(old: Catalog, new: Catalog) -> dict[tuple, list[str]]:
    """{(kind, before, after): the functions or modules where it is so}, the same change once.

    kind: one of KINDS. before is "" for what is new, after for what
    is gone; with both it was renamed or changed.
    """
    found: dict[tuple, list[str]] = {}

    def add(kind, before, after, where):
        found.setdefault((kind, before, after), []).append(where)

    for name in sorted(old.modules ^ new.modules):
        add("module", *((name, "") if name in old.modules else ("", name)), name)
    _compare_names(old, new, add)
    for function in sorted(old.functions.keys() & new.functions.keys()):
        _compare_function(function, old.functions[function], new.functions[function], add)
    for function in sorted(old.decorators.keys() & new.decorators.keys()):
        before, after = old.decorators[function], new.decorators[function]
        for text in [text for text in before if text not in after]:
            add("decorator", text, "", function)
        for text in [text for text in after if text not in before]:
            add("decorator", "", text, function)
    return found


def _compare_names(old, new, add):
    """Names in modules that both have. One field of a class that is gone and one that is new are a rename."""
    gone, more = (
        [name for name in sorted(these.names - those.names) if _home(name, these) in those.modules]
        for these, those in ((old, new), (new, old))
    )
    gone = [name for name in gone if name.rpartition(".")[0] not in gone]  # the class says it for its methods
    more = [name for name in more if name.rpartition(".")[0] not in more]
    by_owner: dict[str, tuple[list, list]] = {}
    for side, names in enumerate((gone, more)):
        for name in names:
            owner, _, last = name.rpartition(".")
            by_owner.setdefault(owner, ([], []))[side].append(last)
    for owner, (lost, won) in sorted(by_owner.items()):
        in_class = owner not in old.modules
        if in_class and len(lost) == len(won) == 1:
            add("name", lost[0], won[0], owner)
            continue
        for last in lost:
            add("name", last, "", owner)
        for last in won:
            add("name", "", last, owner)


def _home(name, these):
    """The module that a name is in."""
    parts = name.split(".")
    return next(
        (home for n in range(len(parts), 0, -1) if (home := ".".join(parts[:n])) in these.modules), ""
    )


def _compare_function(function, before, after, add):
    gone = [name for name in before if name not in after]
    more = [name for name in after if name not in before]
    if len(gone) == len(more) == 1:
        add("parameter", gone[0], more[0], function)
    else:
        for name in gone:
            add("parameter", name, "", function)
        for name in more:
            add("parameter", "", name, function)
    for name in [name for name in before if name in after and before[name] != after[name]]:
        values = (f"{name}={side[name] or '(required)'}" for side in (before, after))
        add("default", *values, function)


def renamed(changes: dict, arguments: dict) -> dict[str, str]:
    """{old name: new name} of parameters and fields, from the changes and the deprecations."""
    pairs = {
        before: after for kind, before, after in changes if kind in ("name", "parameter") and before and after
    }
    return pairs | {old: new for old, _, new in arguments if new}


def stage(place, uses: Uses) -> tuple[Section, dict]:
    """The section, and the changes for the stages that follow."""
    packages = [folder / "transformers" for folder in (place.old, place.new)]
    modules = uses.modules(packages[0]) | uses.modules(packages[1])
    old, new = (catalog.read(package, modules) for package in packages)
    changes = differences(old, new)
    used, others = [], []
    in_order = sorted(changes.items(), key=lambda item: (KINDS.index(item[0][0]), item))
    for (kind, before, after), where in in_order:
        line = _line(kind, before, after, where)
        if _matters(uses, kind, before, where):
            said = uses.said(before.rpartition(".")[2]) if kind in ("module", "name", "parameter") else ""
            used.append(f"{line}{f'. Used in {said}' if said else ''}")
        else:
            others.append(line)
    messages, quoted = _messages(uses, old, new)
    body = "\n".join(
        [
            *used,
            *quoted,
            "",
            folded(f"{count(len(others), 'other change')}: not used by the course, or new", others),
            "",
            folded(f"{count(len(messages), 'text')} of errors and warnings, gone or new", messages),
        ]
    )
    summary = (
        f"{count(len(used), 'change')} of what the course uses, {count(len(others), 'other')}; of "
        f"{count(len(messages), 'message')} gone or new the course quotes {len(quoted)}. "
        f"Read: {len(new.modules)} modules."
    )
    return Section("Names", summary, body, moved=bool(used or quoted)), changes


def _matters(uses, kind, before, where):
    """Whether the course uses what is gone or changed; what is only new is no work."""
    if kind == "module":
        return bool(before) and uses.has(before.rpartition(".")[2])
    if kind == "decorator":  # one more layer over a function that the course may unwrap or show
        named = {name.rpartition(".")[2] for name in where} - COMMON
        return any(map(uses.has, named))
    if kind == "name":
        return bool(before) and not before.startswith("__") and uses.has(before)
    word = before.partition("=")[0]
    return bool(before) and uses.has(word) and any(map(uses.calls, where))


def _line(kind, before, after, where):
    homes = [
        name.rpartition(".")[2] if kind == "module" else ".".join(name.split(".")[-2:]) for name in where
    ]
    place = "" if kind == "module" else f" in {some([code(home) for home in homes], 3)}"
    if len(where) > 3:
        place = f" in {len(where)} places: {some([code(home) for home in homes], 3)}"
    if before and after:
        return f"- {kind} {code(before)} → {code(after)}{place}"
    return f"- {kind} {code(before or after)} {'gone' if before else 'new'}{place}"


def _messages(uses, old, new):
    """Lines for messages gone or new in modules that both have, and for those that the course quotes."""
    lines, quoted = [], []
    texts_old, texts_new = ({text for _, text in these.messages} for these in (old, new))
    for mark, these, others in (("gone", old, texts_new), ("new", new, texts_old)):
        for module, text in sorted(these.messages):
            if text in others or module not in old.modules & new.modules:
                continue
            line = f"- {mark} in {code(module)}: {code(text[:300])}"
            lines.append(line)
            if mark == "gone" and (files := uses.quotes(text)):
                quoted.append(f"- message {line[2:]}. Quoted in {some(files)}")
    return lines, quoted


def deprecations(place, uses: Uses) -> tuple[Section, dict]:
    """The section on arguments newly deprecated, and those as {(old, release, new): how many functions}."""
    old, new = (catalog.deprecated_arguments(folder / "transformers") for folder in (place.old, place.new))
    more = {key: number for key, number in new.items() if key not in old}
    lines, moved = [], False
    in_order = sorted(more.items(), key=lambda item: (not uses.has(item[0][0]), item))
    for (name, release, instead), number in in_order:
        said = uses.said(name)
        moved = moved or bool(said)
        promise = f", said to be removed in {release}" if release else ""
        change = f"{code(name)} → {code(instead)}" if instead else f"{code(name)}, without a new name"
        lines.append(
            f"- {change} in {count(number, 'function')}{promise}. "
            + (f"Used in {said}" if said else "Not used by the course")
        )
    ended = [f"- {code(name)} ({release})" for name, release, _ in sorted(old.keys() - new.keys())]
    body = "\n".join([*lines, "", folded("Deprecations that are over: the old name is gone", ended)])
    summary = f"{count(len(more), 'argument')} newly deprecated, {len(ended)} no longer."
    return Section("Deprecations", summary, body, moved), more
