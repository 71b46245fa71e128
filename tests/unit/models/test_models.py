"""load(): the embedded model, the tiny ones, folders, devices; what it must leave as it was."""

import logging
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Tokenizer, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config
from transformers import T5ForConditionalGeneration as T5
from transformers.utils import logging as transformers_logging

from course_utils import CourseError, load, load_tokenizer, models, pick_device
from course_utils.models.bundled import assets
from course_utils.texts import varied_texts

TINY = ["tiny-gpt2", "tiny-llama"]
EXACT_IDS = {
    "Hello world": [15496, 995],
    " Hello world": [18435, 995],
    "It will rain in the": [1026, 481, 6290, 287, 262],
}


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2-135m", device="cpu")


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


@pytest.fixture
def said(caplog):
    """What transformers logs, which otherwise goes to stderr only."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_embedded_model_is_the_one_the_lessons_describe(smollm2):
    model, tokenizer = smollm2
    assert type(model) is LlamaForCausalLM and not model.training
    assert model.num_parameters() == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.name_or_path == tokenizer.name_or_path == "smollm2-135m"


def test_the_capital_of_france(smollm2):
    model, tokenizer = smollm2
    with torch.no_grad():
        probs = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1].softmax(-1)
    assert tokenizer.decode(probs.argmax()) == " Paris"
    assert probs.max().item() == pytest.approx(0.7725, abs=5e-4)


def test_generation_of_the_embedded_model_is_quiet_and_stable(smollm2, said):
    model, tokenizer = smollm2
    inputs = tokenizer("Once upon a time, there was a", return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    continuation = " small town nestled in the heart of a bustling city. The"
    assert tokenizer.decode(ids[0]) == "Once upon a time, there was a" + continuation
    assert not said.records


def test_chat_template_gives_the_turns_that_the_model_was_trained_on(smollm2):
    chat = smollm2[1].apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n")


if sys.platform == "linux":

    def test_embedded_weights_are_mapped_from_disk_so_that_kernels_share_them(smollm2):
        address = smollm2[0].model.embed_tokens.weight.data_ptr()
        with open("/proc/self/maps") as maps:
            for line in maps:
                start, end = (int(number, 16) for number in line.split()[0].split("-"))
                if start <= address < end:
                    assert line.rstrip().endswith("model.safetensors")
                    return
        pytest.fail("the embedding is in no mapping of this process")


def test_loading_leaves_the_random_state_threads_and_settings_as_they_were(on_cpu, capfd):
    torch.manual_seed(123)
    expected = torch.rand(3)
    for shown in (True, False):
        (transformers_logging.enable_progress_bar if shown else transformers_logging.disable_progress_bar)()
        for name in ["smollm2-135m", *TINY]:
            torch.manual_seed(123)
            threads = torch.get_num_threads()
            load(name)
            assert torch.equal(torch.rand(3), expected)
            assert torch.get_num_threads() == threads
            assert transformers_logging.is_progress_bar_enabled() is shown
    transformers_logging.enable_progress_bar()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_come_from_a_fixed_seed(name, on_cpu):
    torch.manual_seed(1)
    first, tokenizer = load(name)
    torch.manual_seed(2)
    second, _ = load(name)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(tokenizer) == first.config.vocab_size == 50257


def test_tiny_models_differ_in_architecture_and_share_their_ids(on_cpu):
    (gpt2, gpt2_tokenizer), (llama, llama_tokenizer) = map(load, TINY)
    assert (gpt2.config.model_type, llama.config.model_type) == ("gpt2", "llama")
    assert any("wpe" in name for name, _ in gpt2.named_parameters())
    assert not any("wpe" in name for name, _ in llama.named_parameters())
    for text in varied_texts(50):
        assert gpt2_tokenizer(text).input_ids == llama_tokenizer(text).input_ids


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_shows_effects_in_its_logits(name, on_cpu):
    model, tokenizer = load(name)
    ids = torch.tensor([tokenizer("It will rain in the").input_ids])
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
        without_first = model(ids[:, 1:]).logits[0, -1]
        train_mode = model.train()(ids).logits[0, -1]
    assert 0.5 < logits.std() < 3
    assert (logits - without_first).abs().max() > 0.5
    assert torch.equal(logits, train_mode)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_has_gpt2s_special_tokens_and_like_it_none_to_pad_with(name, on_cpu, said):
    model, tokenizer = load(name)
    config = model.generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (50256, 50256, None)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (50256, 50256, None)
    inputs = tokenizer("My dog is", return_tensors="pt")
    model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert not said.records
    model.generate(inputs.input_ids.repeat(2, 1), max_new_tokens=3, do_sample=False)
    assert any("attention mask" in record.getMessage() for record in said.records)


@pytest.mark.parametrize("name", ["gpt2", *TINY])
def test_gpt2_vocabulary_gives_the_exact_ids(name):
    tokenizer = load_tokenizer(name)
    for text, ids in EXACT_IDS.items():
        assert tokenizer(text).input_ids == ids
    assert len(tokenizer) == 50257
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 50256)
    assert tokenizer("a<|endoftext|>b").input_ids == [64, 50256, 65]
    assert tokenizer.model_max_length == 1024
    assert type(tokenizer) is GPT2Tokenizer


def test_add_prefix_space_is_a_space_before_the_text():
    plain, spaced = load_tokenizer("gpt2"), load_tokenizer("gpt2", add_prefix_space=True)
    assert spaced("Hello world").input_ids == [18435, 995] == plain(" Hello world").input_ids
    words = ["Hello", "world"]
    assert spaced(words, is_split_into_words=True).input_ids == [18435, 995]


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
def test_tokenizers_survive_saving(name, tmp_path):
    tokenizer = load_tokenizer(name)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    for text in varied_texts(100):
        ids = tokenizer(text).input_ids
        assert again(text).input_ids == ids
        assert again.decode(ids) == tokenizer.decode(ids)


def test_gpt2_gives_every_text_back():
    tokenizer = load_tokenizer("gpt2")
    for text in varied_texts(100):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_smollm2_splits_digits_one_by_one():
    tokenizer = load_tokenizer("smollm2-135m")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert [tokenizer.decode(token) for token in tokenizer("x2026").input_ids] == ["x", "2", "0", "2", "6"]


def test_course_model_chooses_what_load_loads(on_cpu, monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", "tiny-llama")
    assert load()[0].name_or_path == "tiny-llama"
    assert load_tokenizer().name_or_path == "gpt2"
    monkeypatch.setenv("COURSE_MODEL", "")
    assert load_tokenizer().name_or_path == "smollm2-135m"


def test_preparing_the_model_prepares_the_small_vocabulary_too_if_it_can(monkeypatch):
    prepared = []

    def prepare(asset):
        prepared.append(asset)
        if asset is assets.GPT2_VOCABULARY:
            raise CourseError("not on this mirror")
        return "folder"

    monkeypatch.setattr(assets, "find", lambda asset: None)
    monkeypatch.setattr(assets, "prepare", prepare)
    assert models._smollm2_folder() == "folder"
    assert prepared == [assets.SMOLLM2, assets.GPT2_VOCABULARY]


def test_a_folder_called_like_a_tiny_model_does_not_stand_in_its_way(on_cpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-gpt2").mkdir()
    (tmp_path / "gpt2").mkdir()
    assert load("tiny-gpt2")[1]("Hello world").input_ids == [15496, 995]
    with pytest.raises(CourseError, match=r'"gpt2" holds no model'):
        load("gpt2")


@pytest.mark.parametrize("size", ["5GB", "4MB"])
def test_a_folder_loads_as_it_was_saved_whole_or_in_shards(size, on_cpu, tmp_path):
    model, tokenizer = load("tiny-llama")
    model.bfloat16().save_pretrained(tmp_path, max_shard_size=size)
    tokenizer.save_pretrained(tmp_path)
    again, again_tokenizer = load(tmp_path)
    assert again.dtype == torch.float32 and not again.training
    assert torch.equal(again.lm_head.weight, model.lm_head.weight.float())
    assert again_tokenizer("Hello world").input_ids == [15496, 995]


def test_an_encoder_decoder_folder_loads_as_one(on_cpu, tmp_path):
    config = T5Config(vocab_size=50257, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5(config).save_pretrained(tmp_path)
    load_tokenizer("gpt2").save_pretrained(tmp_path)
    assert isinstance(load(str(tmp_path))[0], T5)


def test_a_folder_without_a_model_is_a_sentence(on_cpu, tmp_path):
    with pytest.raises(CourseError, match=r"holds no model: there is no config\.json\. Give the folder"):
        load(tmp_path)
    with pytest.raises(CourseError, match=r'There is no folder ".*missing"\. Check the path'):
        load(tmp_path / "missing")


def test_pickled_weights_are_not_opened(on_cpu, tmp_path):
    model, tokenizer = load("tiny-gpt2")
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CourseError, match="no weights as safetensors, and pickled ones"):
        load(tmp_path)


def test_a_folder_without_a_tokenizer_is_a_sentence(on_cpu, tmp_path):
    load("tiny-gpt2")[0].save_pretrained(tmp_path)
    with pytest.raises(CourseError, match=r"holds no tokenizer\. Save one beside the model"):
        load(tmp_path)


def test_damaged_files_are_a_sentence(on_cpu, tmp_path):
    model, tokenizer = load("tiny-gpt2")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CourseError, match=r"could not be loaded: .* Check its files"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CourseError, match=r"could not be loaded: .* Check its files"):
        load(tmp_path)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:3", "mps", "gpu", "meta"])
def test_a_device_that_is_not_there_is_a_sentence(wanted, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setenv("COURSE_DEVICE", wanted)
    for ask in (pick_device, load):
        with pytest.raises(
            CourseError, match=rf'COURSE_DEVICE is "{wanted}", but .* offers only: cpu\. Name one'
        ):
            ask()
    monkeypatch.delenv("COURSE_DEVICE")
    with pytest.raises(CourseError, match=f'device is "{wanted}"'):
        load("tiny-gpt2", device=wanted)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")],
)
def test_the_best_device_present_is_picked(cuda, mps, best, monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert pick_device() == torch.device(best)


def test_a_model_is_put_on_the_picked_device_and_computes_the_same_there():
    model, tokenizer = load("tiny-llama")
    assert model.device.type == pick_device().type
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs.to(model.device)).logits.cpu()
        on_cpu = model.cpu()(**inputs.to("cpu")).logits
    torch.testing.assert_close(logits, on_cpu, atol=1e-4, rtol=1e-4)


def test_float32_stays_float32_on_a_gpu():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    moved = []
    try:
        for backend in backends:
            backend.allow_tf32 = True
        models._place(SimpleNamespace(to=moved.append), torch.device("cuda"))
        assert moved == [torch.device("cuda")]
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def test_torch_is_imported_only_when_it_is_needed():
    code = """
import sys
import course_utils, course_utils.models, course_utils.models.bundled.assets
import course_utils.doctor, course_utils.__main__
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
