"""Hub names, through a stand-in server for the Hub's download protocol."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from stand_ins import hub
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils import load_tokenizer

# Reads lists of names, a line each, and prints what came of loading them. A process of its own, because the
# Hub's address is read when its library is imported.
PROGRAM = """
import json, sys
from course_utils import CourseError, load

def outcome(name):
    try:
        model, tokenizer = load(name, device="cpu")
        return [type(model).__name__, model.name_or_path, len(tokenizer), tokenizer.name_or_path]
    except CourseError as error:
        return str(error)

for line in sys.stdin:
    print(json.dumps({name: outcome(name) for name in json.loads(line)}), flush=True)
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Folders as the Hub would hold them: right, pickled only, with code of its own, without a tokenizer."""
    import torch

    places = {name: tmp_path_factory.mktemp(name.replace("/", "-")) for name in ("gpt2", "some/model")}
    model = GPT2LMHeadModel(GPT2Config(n_positions=8, n_embd=8, n_layer=1, n_head=1))
    tokenizer = load_tokenizer("gpt2")
    for place in places.values():
        model.save_pretrained(place)
    tokenizer.save_pretrained(places["some/model"])

    places["some/pickle"] = tmp_path_factory.mktemp("pickle")
    model.config.save_pretrained(places["some/pickle"])
    torch.save(model.state_dict(), places["some/pickle"] / "pytorch_model.bin")

    places["some/code"] = tmp_path_factory.mktemp("code")
    model.save_pretrained(places["some/code"])
    config = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (places["some/code"] / "config.json").write_text(json.dumps(config))
    (places["some/code"] / "own.py").write_text("open('executed', 'w')")
    return places


@pytest.fixture(scope="module")
def outcomes(repositories, tmp_path_factory):
    """What came of loading names: for the first time, once more, and when the Hub was gone; and the number of
    requests the Hub had seen after the first and the second time."""
    home = tmp_path_factory.mktemp("home")
    asked = []
    patient = dict.fromkeys(["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"], "600")  # a busy machine's
    with hub(repositories, ["some/gated"], asked) as address:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": address, **patient},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        first = _ask(process, [*repositories, "some/gated", "some/missing"])
        requests = [len(asked)]
        again = _ask(process, ["gpt2", "some/model"])
        requests.append(len(asked))
    offline = _ask(process, ["some/model", "some/other"])
    process.communicate()
    return SimpleNamespace(first=first, again=again, offline=offline, requests=requests)


def _ask(process, names):
    process.stdin.write(json.dumps(names) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def test_a_hub_name_loads_and_asks_the_hub_only_once(outcomes):
    loaded = ["GPT2LMHeadModel", "some/model", 50257, "some/model"]
    assert outcomes.first["some/model"] == outcomes.again["some/model"] == loaded
    first, again = outcomes.requests
    assert again == first > 0


def test_gpt2_comes_with_the_embedded_vocabulary(outcomes):
    assert outcomes.first["gpt2"] == ["GPT2LMHeadModel", "gpt2", 50257, "gpt2"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("some/pickle", "no weights as safetensors"),
        ("some/code", "needs code of its own"),
        ("some/gated", "hf auth login"),
        ("some/missing", "no model called"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence_naming_it(outcomes, name, sentence):
    outcome = outcomes.first[name]
    assert f'"{name}"' in outcome and sentence in outcome
    assert outcome.endswith(".") and "\n" not in outcome


def test_code_from_the_hub_is_neither_fetched_nor_executed(outcomes, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    assert not list(base.rglob("executed"))
    assert len(list(base.rglob("own.py"))) == 1  # the one on the server


def test_without_the_hub_a_downloaded_model_loads_and_another_is_a_sentence(outcomes):
    assert outcomes.offline["some/model"][0] == "GPT2LMHeadModel"
    assert "is not on this machine and the Hub cannot be reached" in outcomes.offline["some/other"]
