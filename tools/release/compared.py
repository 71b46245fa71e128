"""Stages that run the probe under both releases: anchors and line numbers, the map, messages, numbers."""

import json
import re

from . import DoesNotRun
from .catalog import starts
from .probe import MARK
from .report import Section, code, count, folded, some
from .workplace import last_words

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# "transformers.cache_utils, line 119", "generation/utils.py, lines 3122 to 3339", "generation/utils.py:2529"
PRINTED = re.compile(r"\b([\w./]*\w)(?:, lines? |:)(\d+)\b")


def ask(place, what: str, *arguments, pinned: bool = False):
    """What the probe finds under one release; raises DoesNotRun where it ends without an answer."""
    release = place.pinned if pinned else place.version
    variables = place.variables(pinned=pinned) | ONE_THREAD
    command = [place.python, "-m", "release.probe", what, *arguments]
    done = place.run(command, f"{what}, transformers {release}", variables=variables)
    answers = [line for line in done.output.splitlines() if line.startswith(MARK)]
    if done.status or not answers:
        raise DoesNotRun(f"The probe does not run under transformers {release}: {last_words(done.output)}")
    return json.loads(answers[-1].removeprefix(MARK))


def ask_both(place, what, *arguments):
    """(under the pinned release or None, under the new one, a remark). Raises DoesNotRun for the new one."""
    after = ask(place, what, *arguments)
    try:
        return ask(place, what, *arguments, pinned=True), after, ""
    except DoesNotRun as error:
        return None, after, f"Not compared. {error}"


def anchors(place, uses) -> Section:
    """Anchors and imports that are gone, anchors that moved, and the line numbers that notebooks print."""
    file = place.folder / "anchors.json"
    question = {"shows": [call for _, _, call in uses.shows], "imports": sorted(uses.imports)}
    file.write_text(json.dumps(question), encoding="utf-8")
    old, new, remark = ask_both(place, "anchors", file)
    wrong, moved = [], []
    for index, (name, line, _) in enumerate(uses.shows):
        where, after = f"{name}:{line}", new["shows"][index]
        before = old["shows"][index] if old else after
        if after["problem"]:
            wrong.append(f"- {where}: {after['problem']}")
            continue
        if before["problem"]:
            continue
        for note, number in after["notes"].items():
            if before["notes"].get(note, number) != number:
                moved.append(f"- {where}, {code(note)}: line {before['notes'][note]} → {number}")
    known = set(old["missing"]) if old else set()
    missing = [name for name in new["missing"] if name not in known]
    wrong += [
        f"- import of {code('transformers.' + name)}: gone. Used in {uses.said(last(name))}"
        for name in missing
    ]
    numbers, gone, total = printed(place)
    body = "\n".join(
        [remark, *wrong, *gone, "", folded("Anchors that moved", moved), folded("Printed numbers", numbers)]
    )
    summary = (
        f"{count(len(wrong), 'anchor or import', 'anchors or imports')} gone, "
        f"{count(len(moved), 'anchor')} moved; of {count(total, 'printed line number')} "
        f"{len(numbers)} moved and {len(gone)} gone (a build prints them anew)."
    )
    return Section("Anchors and line numbers", summary, body, moved=bool(wrong or moved or numbers or gone))


def last(name):
    return name.rpartition(".")[2]


def printed(place) -> tuple[list[str], list[str], int]:
    """Line numbers of transformers in the stored outputs: those that moved, those gone, how many."""
    moved, gone, seen = [], [], set()
    for path in sorted((place.checkout / "notebooks").glob("*.ipynb")):
        for text in texts_of(json.loads(path.read_text(encoding="utf-8"))):
            for name, number in PRINTED.findall(text):
                module = name.removeprefix("transformers").removesuffix(".py").strip("./").replace("/", ".")
                if (key := (path.stem, module, int(number))) not in seen and module:
                    file = module.replace(".", "/") + ".py"
                    if not (place.old / "transformers" / file).is_file():
                        continue
                    seen.add(key)
                    after = line_now(place, file, int(number))
                    said = f"- {path.stem}: {file}:{number}"
                    if after is None:
                        gone.append(f"{said}, gone")
                    elif after != int(number):
                        moved.append(f"{said} → {after}")
    return moved, gone, len(seen)


def texts_of(notebook):
    """Every text of the outputs."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), output.get("traceback", [])]
            texts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
            for text in texts:
                joined = text if isinstance(text, str) else "".join(text)
                yield re.sub(r"\x1b\[[\d;]*m", "", joined)


def line_now(place, file: str, number: int):
    """The new number of a line of the pinned release: the same function and text; None if it is gone."""
    old, new = (folder / "transformers" / file for folder in (place.old, place.new))
    if not new.is_file():
        return None
    before, after = starts(old), starts(new)
    around = [name for name, (first, end) in before.items() if first <= number <= end]
    name = max(around, key=lambda name: before[name][0], default=None)  # the innermost
    if name is None or name not in after:
        return None
    if number == before[name][0]:
        return after[name][0]
    lines_old, lines_new = (path.read_text(encoding="utf-8").splitlines() for path in (old, new))
    text, (first, end) = lines_old[number - 1].strip(), after[name]
    same = [n for n in range(first, end + 1) if lines_new[n - 1].strip() == text]
    expected = number - before[name][0] + first
    return min(same, key=lambda n: abs(n - expected), default=None)


def version_map(place) -> Section:
    """Entries that do not hold under the new release, one that recommends what is deprecated among them."""
    old, new, remark = ask_both(place, "map")
    before = {line: problem for line, _, problem in old or []}
    moved, known = [], []
    for line, instead, problem in new:
        if problem and before.get(line, "") == problem:
            known.append(f"- {code(line)}: {problem}")
        elif problem:
            moved.append(f"- {code(line)}{f' → {code(instead)}' if instead else ''}: {problem}")
        elif before.get(line):
            moved.append(f"- {code(line)} holds again. Under {place.pinned}: {before[line]}")
    advice = sum("the line to write is deprecated" in line for line in moved)
    summary = f"Of {len(new)} entries {len(moved)} changed; {advice} recommend what is deprecated now."
    body = "\n".join([remark, *moved, "", folded(f"Nor did these hold under {place.pinned}", known)])
    return Section("Version map", summary, body, moved=bool(moved))


def messages(place) -> Section:
    """Messages of appendix B that have other words now, or are not said, and cures that do not run."""
    old, new, remark = ask_both(place, "messages")
    before = dict(old or [])
    moved, known = [], []
    for title, problem in new:
        if problem and before.get(title, "") == problem:
            known.append(f"- {title}: {problem}")
        elif problem:
            moved.append(f"- {title}: {problem}")
        elif before.get(title):
            moved.append(f"- {title}: holds again. Under {place.pinned}: {before[title]}")
    summary = f"Of {len(new)} messages that appendix B explains {len(moved)} changed."
    body = "\n".join([remark, *moved, "", folded(f"Nor did these hold under {place.pinned}", known)])
    return Section("Messages", summary, body, moved=bool(moved))


def numbers(place) -> Section:
    """Logits, scores and ids that are not bitwise the same."""
    old, new, remark = ask_both(place, "numbers")
    if old is None:
        return Section("Numbers", remark, moved=True)
    lines = []
    for key, after in new.items():
        if (before := old[key]) != after:
            raised = [text for text in (before, after) if ": " in text]
            lines.append(
                f"- {key}" + (f": {some([code(text) for text in (before, after)])}" if raised else "")
            )
    summary = (
        f"{len(lines)} of {len(new)} comparisons of logits, scores and ids differ (bitwise, one thread)."
    )
    return Section("Numbers", summary, "\n".join(lines), moved=bool(lines))
