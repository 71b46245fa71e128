"""library: the installed source with notes, and the map of older names, entry by entry."""

import ast
import html
import logging as python_log
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging

from course_utils import library, releases
from course_utils.errors import CourseError
from course_utils.library import lookup
from course_utils.library.entries import ENTRIES, KINDS, SEEN, TOPICS, OldName
from course_utils.library.lookup import VersionMap
from course_utils.library.verify import problem
from course_utils.releases import is_before

SAMPLE = "generation.utils.GenerationMixin._sample"
ARGMAX, CAT = "torch.argmax(", "input_ids = torch.cat("
SOURCES = Path(__file__).parents[3] / "notebooks" / "source"


def text_of(page):
    """What is left of HTML without its tags, with spaces and line feeds as one space."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def installed_line(number):
    path = Path(transformers.__file__).parent / "generation" / "utils.py"
    return path.read_text(encoding="utf-8").splitlines()[number - 1].strip()


# Source with notes


def test_a_note_stands_below_its_line_with_the_number_in_the_installed_file():
    lines = repr(library.show(SAMPLE, {ARGMAX: "greedy"}, context=0)).splitlines()
    place = next(i for i, line in enumerate(lines) if ARGMAX in line)
    number, mark, code = lines[place].split(maxsplit=2)
    assert (mark, lines[place + 1].split()) == ("▶", ["▲", "greedy"])
    assert installed_line(int(number)) == code


def test_the_title_names_version_file_and_function():
    title = repr(library.show(SAMPLE, {ARGMAX: "greedy"})).splitlines()[0]
    assert title.startswith(
        f"GenerationMixin._sample · transformers {transformers.__version__} · generation/utils.py"
    )


def test_every_line_is_shown_or_counted():
    excerpt = library.show(SAMPLE, {CAT: "append", ARGMAX: "greedy"})
    left_out = sum(map(int, re.findall(r"⋮ (\d+) line", repr(excerpt))))
    assert left_out + len(excerpt.shown) == len(excerpt.lines) == len(library.show(SAMPLE).lines)


def test_notes_come_in_the_order_of_the_source():
    text = repr(library.show(SAMPLE, {CAT: "second", ARGMAX: "first"}))
    assert text.index("▲ first") < text.index("▲ second")


def test_context_counts_lines_on_both_sides():
    def shown(context):
        return len(library.show(SAMPLE, {ARGMAX: "greedy"}, context=context).shown)

    assert (shown(0), shown(1)) == (1, 2)  # the line below is empty, and would end the excerpt
    assert shown(2) == 5


def test_two_anchors_on_one_line_give_two_notes():
    text = repr(library.show(SAMPLE, {ARGMAX: "one", "next_tokens = torch.argmax": "two"}, context=0))
    assert text.count("▶") == 1
    assert text.index("▲ one") < text.index("▲ two")


@pytest.mark.parametrize("options", [{}, {"notes": {ARGMAX: "greedy"}, "whole": True}])
def test_all_lines_on_request_and_without_notes(options):
    excerpt = library.show(SAMPLE, **options)
    assert len(excerpt.shown) == len(excerpt.lines)
    assert "⋮" not in repr(excerpt)
    assert repr(excerpt).count("▲") == len(options.get("notes", {}))


def test_a_decorated_method_a_class_and_a_long_name_are_found():
    decorators = library.show("generation.utils.GenerationMixin.generate").lines[:3]
    assert any("@torch.no_grad()" in line for line in decorators)
    assert library.show("transformers.TopKLogitsWarper").lines[0].startswith("class TopKLogitsWarper")
    assert library.show("PreTrainedModel.from_pretrained").lines[0] == "@classmethod"


def test_html_says_the_same_and_escapes_everything():
    excerpt = library.show(SAMPLE, {"-> GenerateNonBeamOutput": "`a<b>` & <i>c</i>"}, context=1)
    page = excerpt._repr_html_()
    assert "<i>" not in page
    assert "-&gt; GenerateNonBeamOutput" in page
    assert "<code>a&lt;b&gt;</code> &amp; &lt;i&gt;" in page
    assert text_of(page).replace(" >", ">") == " ".join(repr(excerpt).replace("`", "").split())


def test_nothing_of_this_machine_is_shown_and_the_same_twice():
    once, again = (library.show(SAMPLE, {ARGMAX: "greedy"}) for _ in range(2))
    for text in (repr(once), once._repr_html_()):
        assert sys.prefix not in text
        assert "site-packages" not in text
    assert repr(once) == repr(again)


def test_anchors_that_do_not_fit_are_all_named():
    with pytest.raises(CourseError) as error:
        library.show(SAMPLE, {"no such line": "a", "next_tokens": "b", ARGMAX: "c"})
    assert "'no such line' is on no line" in str(error.value)
    assert re.search(r"'next_tokens' is on \d+ lines \(\d+, ", str(error.value))
    assert ARGMAX not in str(error.value)
    assert f"library.show({SAMPLE!r})" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generation.utils.GenerationMixin.greedy_search",), "library.where('greedy_search')"),
        (("nothing.at.all",), "has no 'nothing.at.all'"),
        ((3,), "3 is not a name"),
        (("",), "'' is not a name"),
        (("generation.utils",), "is a module"),
        (("generation.utils.torch.nn.Module",), "not a part of transformers"),
        ((SAMPLE, {ARGMAX: "x"}, -1), "context is -1"),
        ((SAMPLE, ARGMAX, 1), "The notes are a dictionary of texts"),
        ((SAMPLE, {ARGMAX: 3}, 1), "The notes are a dictionary of texts"),
    ],
)
def test_what_cannot_be_shown_gets_a_sentence(arguments, sentence):
    target, notes, context = (*arguments, None, 1)[:3] if len(arguments) < 3 else arguments
    with pytest.raises(CourseError, match=re.escape(sentence)):
        library.show(target, notes, context=context)


def shows_in_lessons():
    """Every call of library.show() in the notebooks' sources."""
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "library.show":
                yield pytest.param(ast.unparse(node), id=f"{path.stem}:{node.lineno}")


@pytest.mark.parametrize("call", list(shows_in_lessons()))
def test_anchors_of_the_lessons_are_in_the_pinned_source(call):
    assert "▲" in repr(eval(call, {"library": library}))


# The map


def entry(**changes):
    """An entry that is right, with changes."""
    base = OldName(
        "decoding", "gone", "model.greedy_search()", "model.generate(**inputs)", fails="AttributeError"
    )
    return replace(base, **changes)


@pytest.mark.skipif(is_before(releases.NEWEST), reason="the map speaks of the pinned release")
@pytest.mark.parametrize("old_name", ENTRIES, ids=lambda old_name: old_name.old)
def test_every_entry_is_right_for_the_pinned_version(old_name):
    assert problem(old_name) == ""


LOOP = {"source": SAMPLE, "fails": ""}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ""),
        ({"fails": "ValueError"}, "the old line raises AttributeError"),
        ({"fails": ""}, "the old line raises AttributeError"),
        ({"old": "model.generate(**inputs)"}, "the old line runs"),
        ({"now": "model.greedy_search()"}, "the new line raises AttributeError"),
        ({"now": "model.greedy_search()", "hub": True}, ""),
        ({"holds": "input_ids.shape == (0, 0)"}, "what the note says is not so"),
        ({"holds": "1 / 0"}, "checking it raised ZeroDivisionError"),
        ({"also": "_greedy_search generate"}, "generate is there"),
        ({**LOOP, "old": "while True:", "now": "torch.argmax("}, ""),
        ({**LOOP, "old": "torch.argmax(", "now": "torch.multinomial("}, "the old piece of code is there"),
        ({**LOOP, "old": "while True:", "now": "torch.argmin("}, "the code to look for is not there"),
        ({**LOOP, "old": "while True:", "now": ""}, "the code to look for is not there"),
        ({**LOOP, "source": SAMPLE + "_"}, "checking it raised LookupError"),
    ],
)
def test_an_entry_that_is_wrong_says_how(changes, found):
    assert problem(entry(**changes)) == found


def test_an_entry_changes_nothing_for_the_next_one():
    spoil = (
        "model.lm_head.weight.data.zero_(); input_ids.zero_(); cache.crop(-2); model.config.vocab_size = 1"
    )
    assert problem(entry(now=spoil)) == ""
    fresh = "model.lm_head.weight.any() and input_ids.any() and cache.get_seq_length() == 4"
    assert problem(entry(holds=f"{fresh} and model.config.vocab_size > 1")) == ""


def test_checking_leaves_random_state_warnings_and_log_alone(capsys):
    logging.enable_progress_bar()
    noisy = "warnings.warn('loud'); torch.manual_seed(1); torch.rand(3); print('x', file=sys.stderr)"
    before, verbosity, filters = torch.get_rng_state(), logging.get_verbosity(), warnings.filters[:]
    with warnings.catch_warnings(record=True) as caught:
        assert problem(entry(now=f"import sys, warnings; {noisy}")) == ""
        assert problem(entry(now="transformers.AutoModelForCausalLM.from_pretrained(name)")) == ""
    assert not caught
    assert torch.equal(torch.get_rng_state(), before)
    assert (logging.get_verbosity(), warnings.filters[:]) == (verbosity, filters)
    assert logging.is_progress_bar_enabled()
    assert capsys.readouterr() == ("", "")


def test_a_message_that_comes_once_still_comes_after_the_map():
    message = "a message that comes once in a process"
    noisy = f"transformers.utils.logging.get_logger('transformers').warning_once({message!r})"
    assert problem(entry(now=noisy)) == ""
    records = []
    log, handler = logging.get_logger("transformers"), python_log.Handler()
    handler.emit = records.append
    log.addHandler(handler)
    try:
        log.warning_once(message)
    finally:
        log.removeHandler(handler)
    assert [record.levelno for record in records] == [python_log.WARNING]


def test_entries_are_well_formed():
    assert len({old_name.old for old_name in ENTRIES}) == len(ENTRIES)
    assert {old_name.topic for old_name in ENTRIES} == set(TOPICS)
    assert {old_name.kind for old_name in ENTRIES} == set(KINDS)
    assert {label for old_name in ENTRIES for label in old_name.seen} == set(SEEN)
    for old_name in ENTRIES:
        assert bool(old_name.by) == (old_name.kind != "same") or old_name.seen == ("S4",), old_name.old
        assert old_name.now or old_name.kind in ("same", "changed"), old_name.old


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_can_be_had_by_kind(kind):
    shown = library.version_map(kind)
    assert shown.entries == tuple(old_name for old_name in ENTRIES if old_name.kind == kind)
    assert shown.right == len(shown) - sum(map(is_to_come, shown.entries))


def is_to_come(old_name):
    """Whether the installed release is older than the change."""
    return bool(old_name.by) and is_before(old_name.by)


def test_the_map_can_be_had_by_topic_and_all_of_it():
    assert {old_name.topic for old_name in library.version_map(topic="cache").entries} == {"cache"}
    everything = library.version_map()
    wrong = {e.old: said for e, said in zip(everything.entries, everything.problems, strict=True) if said}
    assert wrong == {e.old: f"it comes with {e.by}" for e in ENTRIES if is_to_come(e)}
    right = len(ENTRIES) - len(wrong)
    assert (
        everything.summary
        == f"checked {right} of {len(ENTRIES)} against transformers {transformers.__version__}"
    )


def test_an_older_release_says_which_changes_are_still_to_come(monkeypatch):
    monkeypatch.setattr(releases, "installed", lambda: "5.23.0")
    monkeypatch.setattr(lookup, "_known_problem", lookup._known_problem.__wrapped__)
    monkeypatch.setattr(lookup, "problem", lambda entry: "")
    shown = library.where("past_key_values")
    assert "Not so in the installed version: it comes with 5.24." in repr(shown)
    assert 0 < shown.right < len(shown)


def test_advice_that_is_deprecated_is_wrong():
    log = "transformers.utils.logging.get_logger('transformers')"
    for now in (
        "import warnings; f = 1; warnings.warn('`f` is deprecated', FutureWarning)",
        "import warnings; f = 1; warnings.warn('use g in place of `f`', DeprecationWarning)",
        f"f = 1; {log}.warning('`f` is deprecated and will be removed')",
        f"f = 1; {log}.warning_once('`f` is deprecated and will be removed soon')",
    ):
        assert problem(entry(now=now)).startswith("the line to write is deprecated: "), now
        assert problem(entry(old=now, fails="", now="f = 2")) == "", now  # an old line may well be
        assert "deprecated" in problem(entry(old=now, fails="", now="", kind="same")), now
    for now in (
        # The library's own calls: nothing that is named stands in the line.
        "import warnings; warnings.warn('`{}` is deprecated'.format('oth' + 'er'), FutureWarning)",
        "import warnings; f = 1; warnings.warn('`f` is slow', UserWarning)",
        f"f = 1; {log}.warning('`f` is slow')",
    ):
        assert problem(entry(now=now)) == "", now


@pytest.mark.parametrize("options", [{"kind": "lost"}, {"topic": "lost"}])
def test_an_unknown_kind_or_topic_gets_a_sentence(options):
    with pytest.raises(CourseError, match=r"There is no \w+ 'lost'\. Take one of '"):
        library.version_map(**options)


@pytest.mark.parametrize(
    "line",
    [
        "greedy_search sample beam_search beam_sample contrastive_search group_beam_search assisted_decoding",
        "constrained_beam_search BeamSearchScorer low_memory penalty_alpha num_beam_groups force_words_ids",
        "prepare_inputs_for_generation _get_logits_warper logits_warper LogitsWarper MaxNewTokensCriteria",
        "compute_transition_scores length_penalty output_length negative_prompt_ids assistant_model",
        "synced_gpus GenerationConfig max_length use_model_defaults torch_dtype cache_position",
        "past past_key_values to_legacy_cache get_usable_length seen_tokens key_cache crop",
        "head_mask output_attentions modeling_attn_mask_utils token_type_ids",
        "GPT2Tokenizer GPT2TokenizerFast vocab_file merges_file",
        "TFAutoModelForCausalLM FlaxGenerationMixin FlaxLogitsProcessorList AdamW GradientAccumulator",
        "OnnxConfig OnnxConfigWithPast OnnxSeq2SeqConfigWithPast FeaturesManager",
    ],
)
def test_names_of_the_articles_are_in_the_map(line):
    for name in line.split():
        assert len(library.where(name)) >= 1


@pytest.mark.parametrize(
    "spelled", ["greedy_search", "model.greedy_search()", "self.greedy_search", "Greedy_Search"]
)
def test_a_name_is_found_as_an_article_spells_it(spelled):
    assert [old_name.old for old_name in library.where(spelled).entries] == ["model.greedy_search(input_ids)"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("greedy_serch", "Close to it: greedy_search"),
        ("tie_weights", "has it, as transformers.PreTrainedModel.tie_weights."),
        ("xyzzy", "The map has no 'xyzzy'. library.version_map() shows all names."),
        ("", "'' is not a name"),
        (None, "None is not a name"),
    ],
)
def test_an_unknown_name_gets_a_sentence(name, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)):
        library.where(name)


def test_a_table_shows_what_is_wrong_in_words():
    wrong = entry(old="a < b", note="`c < d`", by="4.41")
    shown = VersionMap((wrong, entry()), ("the old line runs", ""), "9.9")
    page = shown._repr_html_()
    for text in (repr(shown), text_of(page)):
        assert "checked 1 of 2 against transformers 9.9" in text
        assert "✘ a < b" in text
        assert "gone by 4.41 · older" in text
        assert "Not so in the installed version: the old line runs." in text
        assert "✔ model.greedy_search()" in text
    assert "<code>c &lt; d</code>" in page
    assert 'scope="col"' in page


def test_a_line_that_fetches_code_is_said_not_to_be_run():
    assert "Not run here" in repr(library.where("penalty_alpha"))
    assert "Not run here" not in repr(library.where("greedy_search"))


def test_lines_are_found_by_their_anchors():
    target = "generation.utils.GenerationMixin._sample"
    found = library.lines_at(
        target, {"choice": "torch.argmax(", "many": "next_tokens", "none": "no such line"}
    )
    assert list(found) == ["choice"]
    number, line = found["choice"]
    assert line == "next_tokens = torch.argmax(next_token_scores, dim=-1)"
    assert f"{number:5} ▶ " in repr(library.show(target, {"torch.argmax(": "greedy"}))
