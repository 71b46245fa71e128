"""What moved between two releases: names, parameters, requirements, line numbers, the version map."""

import json
import shutil

import pytest

from fake_release import NEW, OLD, UTILS, UTILS_NEW, make_place, metadata, release_files, write
from release import catalog, compared, names, packages
from release.uses import Uses


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def changes_of(place):
    return names.differences(*(catalog.read(folder / "transformers") for folder in (place.old, place.new)))


def test_every_kind_of_change_between_two_releases_is_found(place):
    generate = "generation.utils.Mixin.generate"
    assert changes_of(place) == {
        ("module", "generation.old", ""): ["generation.old"],
        ("name", "past_values", "cache_values"): ["cache_utils.Layer"],
        ("name", "sample", "draw"): ["generation.utils.Mixin"],
        ("parameter", "past", "cache"): [generate],
        ("default", "steps=20", "steps=30"): [generate],
        ("decorator", "", "deprecate_kwarg('past', version='6.0.0', new_name='cache')"): [generate],
        ("decorator", "", "deprecate_kwarg('inputs_of_old', '5.30.0')"): [generate],
    }


def test_a_class_that_is_gone_is_said_once_and_not_for_each_method(place):
    write(place.new, {"transformers/cache_utils.py": ""})
    of_the_module = [key for key, where in changes_of(place).items() if where == ["cache_utils"]]
    assert of_the_module == [("name", "Layer", "")]
    assert not any("cache_utils.Layer" in where for where in changes_of(place).values())


def test_the_same_change_in_two_functions_is_one(place):
    for folder, name in ((place.old, "past"), (place.new, "cache")):
        write(folder, {"transformers/masking_utils.py": f"def one({name}): pass\ndef two({name}): pass"})
    assert changes_of(place)["parameter", "past", "cache"] == [
        "generation.utils.Mixin.generate", "masking_utils.one", "masking_utils.two",
    ]  # fmt: skip


def test_the_names_that_the_course_uses_are_marked_with_their_lines(place):
    section, changes = names.stage(place, Uses(place.checkout))
    used, _, rest = section.body.partition("<details>")
    assert section.moved
    assert (
        "parameter `past` → `cache` in `Mixin.generate`. Used in 1 line of the course (course_utils/run.py 6)"
        in used
    )
    assert "module `generation.old` gone" in used or "module `generation.old` gone" in rest
    assert "name `sample` → `draw` in `utils.Mixin`. Used in 1 line" in used
    assert "`past_values`" not in used and "`past_values`" in rest
    assert "Give the model some inputs first, not {…}." in used and "Quoted in course_utils/run.py" in used
    assert "new in `generation.utils`: `Something is said that nobody said before.`" in rest
    assert names.renamed(changes, {}) == {"past": "cache", "sample": "draw", "past_values": "cache_values"}


def test_what_the_course_does_not_use_is_no_work(place):
    write(place.checkout, {"course_utils/run.py": "print('nothing of it')"})
    section, _ = names.stage(place, Uses(place.checkout))
    assert not section.moved
    assert "0 changes of what the course uses" in section.summary


def test_newly_deprecated_arguments_are_found_however_they_are_spelled(place):
    section, more = names.deprecations(place, Uses(place.checkout))
    assert more == {("past", "6.0.0", "cache"): 1, ("inputs_of_old", "5.30.0", ""): 1}
    assert section.moved
    first, second = [line for line in section.body.splitlines() if line.startswith("- ")]
    assert "`past` → `cache`" in first and "removed in 6.0.0. Used in 1 line" in first
    assert "`inputs_of_old`, without a new name" in second and second.endswith("Not used by the course")


def test_the_same_release_twice_moves_nothing(place):
    shutil.rmtree(place.new)
    write(place.new, release_files(OLD))
    uses = Uses(place.checkout)
    stages = [packages.stage(place), names.stage(place, uses)[0], names.deprecations(place, uses)[0]]
    assert [section.moved for section in stages] == [False] * 3


@pytest.mark.parametrize(
    ("changes", "moved", "line"),
    [
        ({}, False, ""),
        ({"python": 12}, True, "- `Python`: >=3.11 → >=3.12"),
        (
            {"more": "Requires-Dist: tokenizers<0.25,>=0.24"},
            True,
            "- `tokenizers`: <0.24, >=0.23.1 → <0.25, >=0.24",
        ),
        ({"more": "Requires-Dist: tokenizers (>=0.23.1,<0.24)"}, False, ""),  # another spelling of the same
        ({"more": ""}, True, "- `tokenizers`: <0.24, >=0.23.1 → no longer required"),
        (
            {"more": "Requires-Dist: tokenizers<0.24,>=0.23.1\nRequires-Dist: peft>=1; extra == 'x'"},
            False,
            "- `peft` (extra == 'x'): not required → >=1",
        ),
    ],
)
def test_requirements_that_changed_are_said_and_extras_are_no_work(place, changes, moved, line):
    (file,) = place.new.glob("*.dist-info/METADATA")
    file.write_text(metadata(NEW, **changes), encoding="utf-8")
    section = packages.stage(place)
    assert section.moved == moved
    assert line in section.body


def test_a_printed_line_number_is_found_again_in_the_same_function(place):
    def now(number):
        return compared.line_now(place, "generation/utils.py", number)

    before, after = UTILS.splitlines(), UTILS_NEW.splitlines()
    start, body = before.index("    def generate(self, inputs, past=None, *, steps=20, **kwargs):") + 1, 10
    assert before[body - 1] == "        return inputs"
    assert (
        after[now(start) - 1].strip().startswith("@deprecate_kwarg(")
    )  # a function starts at its decorators
    assert after[now(body) - 1] == "        return inputs" and now(body) != body
    assert now(body - 1) is None  # the error that it raised
    assert now(before.index("    def sample(self):") + 1) is None
    assert compared.line_now(place, "generation/old.py", 1) is None


def test_line_numbers_are_read_from_stored_outputs(place):
    text = "transformers.generation.old, line 1: gone\ngeneration/utils.py, lines 7 to 10\n"
    text += "File transformers/generation/utils.py:10, in generate\ncache_utils.py, line 3\ntorch/x.py:4"
    page = {"output_type": "display_data", "data": {"text/html": f"<p>{text}</p>", "text/plain": text}}
    notebook = {"cells": [{"cell_type": "code", "outputs": [page]}]}
    write(place.checkout, {"notebooks/01_a.ipynb": json.dumps(notebook)})
    moved, gone, total = compared.printed(place)
    assert moved == ["- 01_a: generation/utils.py:10 → 13"]
    assert gone == ["- 01_a: generation/old.py:1, gone"]
    assert total == 4


def test_a_pinned_release_that_does_not_run_beside_the_new_packages_is_said(place, monkeypatch):
    def ask(place, what, *arguments, pinned=False):
        if pinned:
            raise compared.DoesNotRun("ImportError: tokenizers")
        return [["old()", "", ""]]

    monkeypatch.setattr(compared, "ask", ask)
    section = compared.version_map(place)
    assert "Not compared. ImportError: tokenizers" in section.body and not section.moved


def test_the_map_says_what_moved_and_apart_from_it_what_did_not_hold_before(place, monkeypatch):
    answers = {
        OLD: [
            ["a()", "b()", ""],
            ["c()", "", "wrong"],
            ["d()", "", "wrong"],
            ["e()", "", "wrong"],
            ["f()", "", ""],
        ],
        NEW: [
            ["a()", "b()", "gone"],
            ["c()", "", "wrong"],
            ["d()", "", "other"],
            ["e()", "", ""],
            ["f()", "", ""],
        ],
    }
    monkeypatch.setattr(compared, "ask", lambda place, what, pinned=False: answers[OLD if pinned else NEW])
    section = compared.version_map(place)
    moved, _, known = section.body.partition("<details>")
    assert [line for line in moved.splitlines() if line] == [
        "- `a()` → `b()`: gone",
        "- `d()`: other",
        f"- `e()` holds again. Under {OLD}: wrong",
    ]
    assert "`c()`: wrong" in known and "`f()`" not in section.body


def test_a_message_with_other_words_is_said(place, monkeypatch):
    answers = {
        OLD: [
            ["Two lengths", ""],
            ["No room", "nothing is said"],
            ["Ragged", "nothing is said"],
            ["Fine", ""],
        ],
        NEW: [["Two lengths", "it says 'x'"], ["No room", "nothing is said"], ["Ragged", ""], ["Fine", ""]],
    }
    monkeypatch.setattr(compared, "ask", lambda place, what, pinned=False: answers[OLD if pinned else NEW])
    section = compared.messages(place)
    moved, _, known = section.body.partition("<details>")
    assert [line for line in moved.splitlines() if line] == [
        "- Two lengths: it says 'x'",
        f"- Ragged: holds again. Under {OLD}: nothing is said",
    ]
    assert "No room: nothing is said" in known and "Fine" not in section.body
    assert section.moved and section.summary == "Of 4 messages that appendix B explains 2 changed."
