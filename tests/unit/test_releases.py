"""The one module that knows what differs between releases of transformers."""

import ast
import re
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from course_utils import CourseError, load, needs_transformers, releases
from tiny import tiny_gpt2

PROMPT = {"input_ids": torch.tensor([[40, 765]]), "attention_mask": torch.tensor([[1, 1]]), "pad_token_id": 0}
ROOT = Path(__file__).resolve().parents[2]


def test_the_pin_is_the_newest_release_that_was_tried():
    pin = re.search(r"^transformers==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pin[1] == releases.NEWEST


def test_no_other_module_looks_at_the_version_of_transformers_or_tests_for_a_name_of_the_cache():
    for path in (ROOT / "course_utils").rglob("*.py"):
        if path.name == "releases.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert "is_before" not in names or path.name == "lookup.py", path  # which entries the map shows
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr != "past_key_values", f"{path.name}, line {node.lineno}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value != "past_key_values", f"{path.name}, line {node.lineno}"
            if isinstance(node, ast.keyword):
                assert node.arg != "past_key_values", f"{path.name}, line {node.value.lineno}"


@pytest.mark.parametrize(
    ("installed", "release", "is_before"),
    [
        ("5.23.0", "5.24", True),
        ("5.24.0", "5.24", False),
        ("5.24.1", "5.24", False),
        ("5.9.0", "5.20", True),  # as numbers, not as text
        ("5.24.0.dev0", "5.24", False),
        ("5.24.0rc1", "5.24.0", False),
        ("6.0.0", "5.24", False),
    ],
)
def test_releases_are_compared_as_numbers(monkeypatch, installed, release, is_before):
    monkeypatch.setattr(releases, "installed", lambda: installed)
    assert releases.is_before(release) is is_before


@pytest.mark.parametrize("installed", ["5.23.0", None])
def test_a_lesson_refuses_a_release_that_reads_its_lines_in_another_way(monkeypatch, installed):
    monkeypatch.setattr(releases, "installed", lambda: installed)
    with pytest.raises(CourseError, match=f"%pip install .transformers=={releases.NEWEST}") as refused:
        needs_transformers("5.24")
    assert (installed or "none is installed") in str(refused.value)
    monkeypatch.setattr(releases, "installed", lambda: "5.25.0")
    needs_transformers("5.24")


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
@torch.no_grad()
def test_a_cache_goes_in_and_comes_out_under_its_name_of_today_without_a_message(name, recwarn, caplog):
    model, tokenizer = load(name, device="cpu")
    ids = tokenizer("Today is the day", return_tensors="pt").input_ids
    whole = model(ids, use_cache=True)
    first = model(ids[:, :-1], use_cache=True)
    rest = model(ids[:, -1:], use_cache=True, **releases.as_argument(releases.cache_of(first)))
    assert releases.cache_of(rest).get_seq_length() == ids.shape[1]
    torch.testing.assert_close(rest.logits[:, -1], whole.logits[:, -1], atol=1e-5, rtol=0)
    assert releases.cache_of(model(ids, use_cache=False)) is None
    assert releases.takes_cache(model)
    assert not [warning for warning in recwarn if "deprecated" in str(warning.message)]
    assert "deprecated" not in caplog.text


@torch.no_grad()
def test_generate_and_masks_take_the_cache_by_that_name():
    model = tiny_gpt2()
    cache = DynamicCache(config=model.config)
    kept = releases.as_argument(cache)
    output = model.generate(**PROMPT, **kept, max_new_tokens=2, return_dict_in_generate=True)
    assert releases.cache_of(output) is cache and cache.get_seq_length() == output.sequences.shape[1] - 1
    embeddings = torch.zeros(1, 2, model.config.n_embd)
    create_causal_mask(model.config, embeddings, torch.ones(1, 2), **releases.as_argument(None))


def test_a_cache_that_somebody_else_named_is_found_in_either_spelling():
    for name in ("cache", "past_key_values"):
        assert releases.cache_given({name: "kept", "use_cache": True}) == "kept"
        assert releases.cache_given({name: None}) is None
    assert releases.cache_given({"past_key_values": None, "cache": "kept"}) == "kept"
    assert releases.cache_given({}) is None


def test_a_model_that_keeps_nothing_takes_no_cache():
    class Reads(torch.nn.Module):
        def forward(self, input_ids):
            return input_ids

    assert not releases.takes_cache(Reads())


def test_the_bare_generate_keeps_its_gradients():
    model = tiny_gpt2()
    made = releases.bare_generate(model)(
        model, **PROMPT, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
    )
    assert made.logits[0].requires_grad
    usual = model.generate(**PROMPT, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
    assert not usual.logits[0].requires_grad
