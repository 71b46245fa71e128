"""library.explain: every entry's proof, and whether a pasted message finds its entry."""

import html
import logging
import re
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging as library_log

from course_utils import library, releases
from course_utils.errors import CourseError
from course_utils.library.messages import show
from course_utils.library.messages.catalog import MESSAGES, finder, phrases
from course_utils.library.messages.entry import GROUPS, HOLE, KINDS, SETUP, Message
from course_utils.library.messages.find import FITS
from course_utils.library.messages.glossary import TERMS
from course_utils.library.messages.heard import told
from course_utils.library.messages.reading import READING
from course_utils.library.messages.trial import TRIAL
from course_utils.library.messages.verify import _bench, has_words, problem
from course_utils.releases import is_before
from lesson_source import read_source

SOURCES = Path(__file__).parents[3] / "notebooks" / "source"
ONE = {entry.key: entry for entry in MESSAGES}
by_key = pytest.mark.parametrize("entry", MESSAGES, ids=lambda entry: entry.key)
pinned_only = pytest.mark.skipif(
    is_before(releases.NEWEST), reason="messages are those of the pinned release"
)


# The proofs


@pinned_only
@by_key
def test_every_entry_holds_for_the_pinned_version(entry):
    assert problem(entry) == ""


@pinned_only
def test_entries_leave_the_models_as_they_are():
    """They share two models and two tokenizers, which no entry may change for the next one."""
    for entry in MESSAGES:
        problem(entry)
    names = _bench()
    fresh: dict = {}
    exec(SETUP, fresh)
    for name in ("model", "small"):
        assert names[name].config.to_dict() == fresh[name].config.to_dict()
        assert names[name].generation_config.to_dict() == fresh[name].generation_config.to_dict()
        for (path, weight), other in zip(
            names[name].named_parameters(), fresh[name].parameters(), strict=True
        ):
            assert torch.equal(weight, other), path
            assert weight.grad is None or not weight.grad.any(), path
    for name in ("tokenizer", "gpt2"):
        assert len(names[name]) == len(fresh[name])
        assert names[name].special_tokens_map == fresh[name].special_tokens_map
        assert names[name].padding_side == fresh[name].padding_side
    assert torch.equal(names["ids"], fresh["ids"]) and names["question"] == fresh["question"]


def entry_with(**changes):
    base = Message(
        key="test",
        group="padding",
        kind="error",
        title="A test",
        says="ValueError: the number … is too large",
        raises="raise ValueError(f'the number {3} is too large')",
        cause="",
        cure="",
        cured="print('fine')",
        lesson="02_padding",
        section="1. A tensor has rows of one length",
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ""),
        ({"says": "ValueError: the number … is large"}, "it says 'ValueError: the number 3 is too large'"),
        ({"says": "the number … is too large"}, "it says 'ValueError: the number 3 is too large'"),
        ({"says": "TypeError: the number … is too large"}, "it says 'ValueError"),
        ({"raises": "1 + 1"}, "nothing is said"),
        ({"cured": "1 / 0"}, "the cure raises 'ZeroDivisionError: division by zero'"),
        (
            {"cured": "print('ValueError: the number 4 is too large')"},
            "the message comes after the cure as well",
        ),
        ({"raises": "print('x')", "says": "x", "kind": "symptom"}, ""),
        ({"raises": "import warnings; warnings.warn('so 1')", "says": "so …", "kind": "warning"}, ""),
        ({"raises": "import sys; sys.exit(2)", "says": "SystemExit: 2"}, None),
    ],
)
def test_an_entry_that_is_wrong_says_how(changes, found):
    if found is None:
        with pytest.raises(SystemExit):
            problem(entry_with(**changes))
    else:
        assert problem(entry_with(**changes)).startswith(found)
        assert bool(problem(entry_with(**changes))) == bool(found)


def test_what_the_log_says_is_a_message():
    log = "import transformers; transformers.utils.logging.get_logger('transformers.x')"
    for call in ("warning", "warning_once"):
        changes = {"raises": f"{log}.{call}('see 12 here')", "says": "see … here", "kind": "warning"}
        for _ in range(2):  # what is said once in a process is said again
            assert problem(entry_with(**changes)) == ""


@pytest.mark.parametrize(
    ("text", "pattern", "same"),
    [
        ("a 1 b", "a … b", True),
        ("a b", "a … b", True),
        ("a\n  1 b", "a … b", True),
        ("a 1 b c", "a … b", False),
        ("x a 1 b", "a … b", False),
        ("a.b", "a+b", False),
        ("anything", "…", True),
    ],
)
def test_words_are_compared_with_holes(text, pattern, same):
    assert has_words(text, pattern) is same


def test_a_proof_leaves_random_state_warnings_and_log_alone(capsys):
    before, filters = torch.get_rng_state(), warnings.filters[:]
    logger = library_log.get_logger("transformers")
    handlers, level = logger.handlers[:], logger.level
    noisy = "import torch, sys; torch.manual_seed(1); torch.rand(3); print('x', file=sys.stderr)"
    assert problem(entry_with(cured=noisy)) == ""
    assert torch.equal(torch.get_rng_state(), before)
    assert (warnings.filters[:], logger.handlers, logger.level) == (filters, handlers, level)
    assert capsys.readouterr() == ("", "")


def test_heard_prints_what_a_block_is_told(capsys):
    with library.heard():
        warnings.warn("careful", UserWarning, stacklevel=1)
        library_log.get_logger("transformers.y").warning("from the log")
        library_log.get_logger("transformers.y").warning("from the log")
        raise ValueError("wrong " * 30)
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["careful", "from the log"]
    assert " ".join(out.split()).endswith("ValueError: " + ("wrong " * 30).strip())
    assert max(map(len, out.splitlines())) <= 108
    assert err == ""


def test_heard_does_not_hold_back_an_interrupt():
    with pytest.raises(KeyboardInterrupt), library.heard():
        raise KeyboardInterrupt


# The entries


def test_there_are_enough_entries_and_each_is_well_formed():
    assert len(MESSAGES) >= 30
    for name in ("key", "title", "anchor"):
        assert len({getattr(entry, name) for entry in MESSAGES}) == len(MESSAGES)
    assert {entry.group for entry in MESSAGES} == set(GROUPS)
    assert {entry.kind for entry in MESSAGES} == set(KINDS)
    assert [entry.group for entry in MESSAGES] == sorted(
        (entry.group for entry in MESSAGES), key=list(GROUPS).index
    )
    for entry in MESSAGES:
        assert re.fullmatch(r"[A-Za-z0-9 ]+", entry.title), entry.title  # its anchor needs no quoting
        assert entry.cause.endswith((".", ".)")) and entry.cure.endswith((".", ".)")), entry.key
        assert entry.kind != "error" or re.match(r"\w+Error:", entry.says), entry.key
        assert max(map(len, f"{entry.raises}\n{entry.cured}".splitlines())) <= 110, entry.key


@by_key
def test_the_lesson_has_the_section(entry):
    source = (SOURCES / f"{entry.lesson}.py").read_text(encoding="utf-8")
    assert re.search(rf"^# ##+ {re.escape(entry.section)}$", source, re.MULTILINE)
    assert re.fullmatch(r"(lesson \d\d|appendix A), (section \d+|“.+”)", entry.place)


def one_line(text):
    return " ".join(text.split())


def test_the_appendix_has_each_entry_as_it_is_proven():
    """Its code in two cells, and its words above them."""
    cells = read_source(SOURCES / "appendix_messages.py")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    text = [one_line(cell.source) for cell in cells if cell.cell_type == "markdown"]
    assert SETUP in code
    for entry in MESSAGES:
        brought = entry.raises
        if entry.kind != "symptom":
            brought = "with heard():\n" + textwrap.indent(entry.raises, "    ")
        at = code.index(brought)
        assert code[at + 1] == entry.cured
        section = (
            f"### {entry.title} {entry.cause} **Cure:** {entry.cure} ([{entry.place}]({entry.lesson}.ipynb))"
        )
        assert any(found.endswith(one_line(section)) for found in text), section


# Finding


def message_of(entry):
    """A message with other numbers and names than the entry's own, if it has any."""
    return entry.says.replace(HOLE, "7")


def found(text):
    return library.explain(text).entries[0].key


WITH_MESSAGE = [entry for entry in MESSAGES if entry.kind != "symptom"]
SAME_WORDS = {"no-position": "no-row", "no-row": "no-position"}


def in_a_traceback(text):
    lines = "\n".join(f'  File "/a/b{n}.py", line {n}, in run\n    out = model(x)' for n in range(40))
    return f"Some log\nTraceback (most recent call last):\n{lines}\n{text}\n"


@pytest.mark.parametrize("entry", WITH_MESSAGE, ids=lambda entry: entry.key)
@pytest.mark.parametrize(
    "change",
    [
        str,
        str.upper,
        lambda text: text.replace("`", "'").replace("'", "’"),
        lambda text: re.sub(r"\d+", "123456", text),
        lambda text: "".join(f"\x1b[31m{word}\x1b[39m " for word in text.split()),
        lambda text: "\n".join(textwrap.wrap(text, 60)),
        lambda text: text[: max(45, 2 * len(text) // 3)],
        in_a_traceback,
    ],
    ids=["as it is", "capitals", "quotes", "numbers", "colours", "wrapped", "cut off", "traceback"],
)
def test_a_message_is_found_however_it_is_pasted(entry, change):
    shown = library.explain(change(message_of(entry)))
    if entry.key == "not-unpacked":  # a type and nothing else: "AttributeError:" is not enough to tell
        return
    assert shown.fits
    assert shown.entries[0].key in (entry.key, SAME_WORDS.get(entry.key))


@by_key
def test_titles_and_other_words_are_found(entry):
    for phrase in phrases(entry):
        best = finder().best(phrase)
        top = {MESSAGES[index].key for index, score in best if score == best[0][1]}
        assert entry.key in top, phrase


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("i get an empty reply", "empty-reply"),
        ("why does every answer start with assistant", "says-assistant"),
        ("set the seed but text is different", "same-seed"),
        ("grpo loss is zero", "loss-zero"),
        ("loss becomes nan", "loss-nan"),
        ("weird \ufffd symbols when streaming", "replacement-character"),
        ("two bos tokens", "double-begin"),
        ("it answers my old question", "old-answer"),
        ("scores not equal to logits", "scores-not-logits"),
        ("how to stop at a string", "stop-strings"),
        ("Setting `pad_token_id` to `eos_token_id`:2 for open-end generation.", "no-mask"),
        ("paddi", "no-pad-token"),
    ],
)
def test_a_few_words_are_enough(text, key):
    assert found(text) == key


def test_public_messages_find_their_entries():
    """Ten messages that were not used in writing the entries; the appendix prints how many."""
    assert len(TRIAL) == 10 and {about for _, _, about in TRIAL} <= set(ONE)
    assert sum(found(text) == about for _, text, about in TRIAL) >= 8


@pytest.mark.parametrize(
    "text",
    [
        "ModuleNotFoundError: No module named 'foo'",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 8.00 GiB total)",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)",
        "Repo id must be in the form 'repo_name' or 'namespace/repo_name'",
        "how do I load a model from disk",
        "SyntaxError: invalid syntax",
    ],
)
def test_what_has_no_entry_is_said_so(text):
    shown = library.explain(text)
    assert not shown.fits
    assert "No message here fits closely" in repr(shown) or "has any of these words" in repr(shown)
    assert 'library.where("name")' in html.unescape(shown._repr_html_())


def test_without_a_common_word_nothing_is_offered():
    for text in ("xyzzy", "123 456", "你好"):
        shown = library.explain(text)
        assert shown.entries == () and not shown.fits
        assert repr(shown).startswith("No message here has any of these words.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The text is empty"),
        ("  \n", "Paste a message between quotes"),
        (None, "takes the message as text, and got NoneType"),
        (ValueError("x"), "got an exception, ValueError. Write explain(str(...))"),
        ("x" * 200_001, "has 200,001 characters, and at most 200,000 are searched"),
    ],
)
def test_what_is_no_message_gets_a_sentence(text, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)):
        library.explain(text)


def test_a_long_paste_is_searched_at_its_end():
    text = "\n".join(f"step {n} loss {n / 7}" for n in range(5_000)) + "\n" + message_of(ONE["no-room"])
    assert found(text) == "no-room"


@pinned_only
def test_an_explanation_says_message_cause_cure_and_lesson(monkeypatch):
    shown = library.explain("Asking to pad but the tokenizer does not have a padding token")
    entry = ONE["no-pad-token"]
    assert shown.entries[0] is entry
    page = html.unescape(re.sub(r"<[^>]*>", "", shown._repr_html_()))
    said = told(entry.raises, dict(_bench()))[1]
    assert "tokenizer.add_special_tokens({'pad_token': '[PAD]'})" in said  # in no entry: it was brought about
    for text in (repr(shown), page):
        assert said in text
        cause, cure = (
            words if text is not page else words.replace("`", "") for words in (entry.cause, entry.cure)
        )
        assert cause in text and cure in text and entry.place in text
        assert entry.cured.splitlines()[0] in text
    monkeypatch.setattr(show, "_known_message", lambda entry: "<script>alert(1)</script>")
    assert "<script" not in shown._repr_html_()


def test_an_explanation_needs_no_model(monkeypatch):
    def fails(entry):
        raise CourseError("no model")

    monkeypatch.setattr(show, "message", fails)
    monkeypatch.setattr(show, "_known_message", show._known_message.__wrapped__)
    assert ONE["no-template"].says in repr(library.explain("tokenizer.chat_template is not set"))


@pinned_only
def test_all_messages_says_what_holds(monkeypatch):
    shown = library.all_messages("padding")
    assert {entry.group for entry in shown.entries} == {"padding"} and set(shown.problems) == {""}
    number = len(shown)
    assert shown.summary == f"checked {number} of {number} against transformers {transformers.__version__}"
    monkeypatch.setattr(
        show, "_known_problem", lambda entry: "it says '<b>'" if entry.key == "ragged" else ""
    )
    shown = library.all_messages("padding")
    assert shown.summary.startswith(f"checked {number - 1} of {number} ")
    assert "✘ The rows have different lengths: it says '<b>'" in repr(shown)
    assert "<b>" not in shown._repr_html_()
    with pytest.raises(CourseError, match=r"There is no group 'lost'\. Take one of 'padding', "):
        library.all_messages("lost")


# Words and sources


def test_the_glossary_uses_words_as_the_lessons_do():
    words = [term.word for term in TERMS]
    assert len(words) >= 45 and words == sorted(words, key=str.lower) and len(set(words)) == len(words)
    for term in TERMS:
        lesson = (SOURCES / f"{term.lesson}.py").read_text(encoding="utf-8")
        text = (
            one_line(re.sub(r"^# ?", "", lesson, flags=re.MULTILINE))
            .lower()
            .replace("-", " ")
            .replace("_", " ")
        )
        assert term.word.lower().replace("-", " ") in text, term.word
    shown = library.glossary()
    assert repr(shown) == f"{len(TERMS)} terms, from 'advantage' to 'vocabulary'"
    page = shown._repr_html_()
    assert page.count("<th scope=row>") == len(TERMS)
    assert "<s>" not in page and "&lt;s&gt;" in page


def test_the_reading_list_names_lessons_and_places():
    lessons = {path.stem[:2] for path in SOURCES.glob("[0-9]*.py")}
    for source in READING:
        assert set(source.lessons.split(", ")) <= lessons
        assert not source.where.startswith("arXiv") or re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", source.where)
        assert 1990 <= source.year <= 2026 and source.why
        if source.where.startswith("arXiv"):  # the number begins with year and month of the first version
            assert int(source.where[6:8]) + 2000 in (source.year, source.year - 1), source.title
    assert len({source.title for source in READING}) == len(READING) == len(library.reading_list())
    page = library.reading_list()._repr_html_()
    assert page.count("<tr>") == len(READING) + 1


def test_nothing_of_the_library_log_is_changed_by_an_explanation():
    handlers = logging.getLogger("transformers").handlers[:]
    repr(library.explain("right-padding was detected"))
    assert logging.getLogger("transformers").handlers == handlers


def test_the_bound_lies_between_what_fits_and_what_does_not():
    worst = min(finder().best(message_of(e))[0][1] for e in WITH_MESSAGE if e.key != "not-unpacked")
    assert 0 < FITS < worst
