"""load(): a model and its tokenizer by name, ready to be looked into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import CourseError
from .bundled import assets

if TYPE_CHECKING:
    import torch

DEFAULT = "smollm2-135m"
TINY = ("tiny-gpt2", "tiny-llama")
GPT2 = ("gpt2", "openai-community/gpt2")
_SEED = 0
_END_OF_TEXT = 50256  # GPT-2's only special token: it begins, ends and separates texts


def load(name: str | None = None, device: str | torch.device | None = None) -> tuple[Any, Any]:
    """Return `(model, tokenizer)`: the model in evaluation mode, float32, on `device`.

    name: None for COURSE_MODEL or, where that is not set, "smollm2-135m" (SmolLM2-135M-Instruct, prepared
        once, then used with no network and mapped from disk, so that kernels share its memory);
        "tiny-gpt2" or "tiny-llama" (random weights from a fixed seed, width 64, 4 layers, GPT-2's real
        vocabulary in both); else a name on the Hugging Face Hub or a folder, as from_pretrained takes it.
        Only safetensors are read: no pickle, no code from the Hub.
    device: a torch device or its name; None for `pick_device()`.

    The global random state and the number of threads stay as they are. Raises CourseError.
    """
    name = _name_or_default(name)
    device = pick_device() if device is None else _present_device(device, "device")
    if name == DEFAULT:
        model = _load_embedded()
    elif name in TINY:
        model = _build_tiny(name)
    else:
        from . import hub

        with without_loading_bars():
            model = hub.load_model(name)
    tokenizer = load_tokenizer(name)
    return _place(model, device).eval(), tokenizer


def load_tokenizer(name: str | None = None, **options) -> Any:
    """Return the tokenizer of the model that `load(name)` returns.

    GPT-2's ("gpt2", "tiny-gpt2", "tiny-llama") and SmolLM2's need no network once prepared. `options` go to
    from_pretrained, for instance `load_tokenizer("gpt2", add_prefix_space=True)`. Raises CourseError.
    """
    name = _name_or_default(name)
    if name == DEFAULT:
        from transformers import PreTrainedTokenizerFast as Tokenizer

        folder = _smollm2_folder()
    elif name in TINY or (name in GPT2 and not os.path.isdir(name)):
        from transformers import GPT2Tokenizer as Tokenizer

        folder = _gpt2_folder()
        name = "gpt2"
    else:
        from . import hub

        return hub.load_tokenizer(name, **options)
    tokenizer = Tokenizer.from_pretrained(folder, local_files_only=True, **options)
    tokenizer.name_or_path = name  # rather than this machine's cache folder, which printing it would show
    return tokenizer


def pick_device() -> torch.device:
    """The torch.device that load() puts models on: COURSE_DEVICE, else the best present (cuda, mps, cpu).

    Raises CourseError when COURSE_DEVICE names a device that this machine or this torch does not have.
    """
    import torch

    wanted = os.environ.get("COURSE_DEVICE")
    if wanted:
        return _present_device(wanted, "COURSE_DEVICE")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _name_or_default(name):
    return os.fspath(name or os.environ.get("COURSE_MODEL") or DEFAULT)


def _present_device(wanted, said_by):
    import torch

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    with contextlib.suppress(RuntimeError):  # torch's way to say that there is no such kind of device
        device = torch.device(wanted)
        if (device.index or 0) < counts.get(device.type, 0):
            return device
    present = ", ".join(kind for kind, count in counts.items() if count)
    raise CourseError(
        f'{said_by} is "{wanted}", but with this torch this machine offers only: {present}. Name one of '
        "these (in a notebook: %env COURSE_DEVICE=cpu in a cell above) and run this again."
    )


def _smollm2_folder():
    folder = assets.find(assets.SMOLLM2)
    if folder is None:
        folder = assets.prepare(assets.SMOLLM2)
        # The small vocabulary too, while the network is there: lesson 01 may be read on a train.
        with contextlib.suppress(CourseError):
            _gpt2_folder()
    return folder


def _gpt2_folder():
    return assets.find(assets.GPT2_VOCABULARY) or assets.prepare(assets.GPT2_VOCABULARY)


def _load_embedded():
    import torch
    from transformers import LlamaForCausalLM

    folder = _smollm2_folder()
    with without_loading_bars():
        # The class itself: the Auto classes import more. The file's dtype: it is then mapped, not copied.
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    model.name_or_path = model.config._name_or_path = DEFAULT
    return model


def _build_tiny(name):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    # Weights large enough for a token more or less to show in the logits, no dropout: the same in train mode.
    common = {
        "vocab_size": 50257,
        "initializer_range": 0.15,
        "bos_token_id": _END_OF_TEXT,
        "eos_token_id": _END_OF_TEXT,
        "tie_word_embeddings": True,
    }
    if name == "tiny-gpt2":
        kind: Any = GPT2LMHeadModel
        config = GPT2Config(
            n_positions=1024,
            n_embd=64,
            n_layer=4,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
    else:
        kind = LlamaForCausalLM
        config = LlamaConfig(
            max_position_embeddings=1024,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            **common,
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        model = kind(config)
    model.name_or_path = model.config._name_or_path = name
    return model


def _place(model, device):
    import torch

    if device.type == "cuda":
        # float32 as on a CPU: TF32 keeps 10 of the 23 bits, and a notebook's stored numbers would differ.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return model.to(device)


@contextlib.contextmanager
def without_loading_bars() -> Iterator[None]:
    """Hide transformers' "Loading weights" bar, which leaves a widget in the saved notebook; downloads from
    the Hub still show theirs. The user's settings are put back."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    loading, downloading = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    restore_downloading = enable_progress_bars if downloading else disable_progress_bars
    logging.disable_progress_bar()
    restore_downloading()
    try:
        yield
    finally:
        if loading:
            logging.enable_progress_bar()
        restore_downloading()
