"""Models from the Hugging Face Hub or a folder: safetensors only, never pickle, never code that comes along.

A name is first turned into a folder; everything else then happens on this machine. That keeps transformers
from asking a service to convert pickled weights, and gives each failure one place and one sentence.
"""

import contextlib
import json
from pathlib import Path

from ..errors import CourseError

_TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_MODEL_FILES = [*_TOKENIZER_FILES, "*.safetensors"]
# Copies for other programs: whatever is in subfolders, and the formats of Mistral's and Meta's own code.
_OTHER_FILES = ["*/*", "consolidated*", "params.json"]
_WITHOUT_NETWORK = 'load() without a name uses "smollm2-135m", which needs no network once prepared'


def load_model(name):
    """The causal or sequence-to-sequence model called `name`, float32, on the CPU.

    Raises CourseError: no such name or folder, no network, permission needed, no model in it, pickled weights
    only, own code needed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    folder = _folder_of(name, _MODEL_FILES, _has_weights)
    _check_model_files(name, folder)
    with _explained(name, folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    model.name_or_path = model.config._name_or_path = name
    return model


def load_tokenizer(name, **options):
    """The tokenizer of the model called `name`; `options` go to from_pretrained. Raises CourseError."""
    from transformers import AutoTokenizer

    folder = _folder_of(name, _TOKENIZER_FILES, _has_vocabulary)
    if not _has_vocabulary(folder):
        raise CourseError(
            f'"{name}" holds no tokenizer. Save one beside the model with tokenizer.save_pretrained, '
            'or use another: load_tokenizer("gpt2").'
        )
    with _explained(name, folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **options
        )
    tokenizer.name_or_path = name
    return tokenizer


def _has_weights(folder):
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _has_vocabulary(folder):
    return any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab*", "*.model"))


def _folder_of(name, patterns, is_enough):
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or "\\" in name or name.count("/") > 1:
        raise CourseError(f'There is no folder "{name}". Check the path; {_WITHOUT_NETWORK}.')
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # What was downloaded once is used as it is: no request, and the same model tomorrow.
    with contextlib.suppress(LocalEntryNotFoundError), _hub_explained(name):
        folder = Path(
            snapshot_download(
                name, allow_patterns=patterns, ignore_patterns=_OTHER_FILES, local_files_only=True
            )
        )
        if is_enough(folder):
            return folder
    with _hub_explained(name):
        try:
            return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=_OTHER_FILES))
        except LocalEntryNotFoundError as error:
            raise CourseError(
                f'"{name}" is not on this machine and the Hub cannot be reached. Connect to the network and '
                f"run this again; {_WITHOUT_NETWORK}."
            ) from error


@contextlib.contextmanager
def _hub_explained(name):
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except (CourseError, LocalEntryNotFoundError):
        raise
    except GatedRepoError as error:
        raise CourseError(
            f'"{name}" asks for permission first: accept its terms on its page on the Hub, type '
            "`hf auth login` in a terminal, and run this again."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CourseError(
            f'There is no model called "{name}" on the Hub, and no such folder here. Check the spelling; '
            'known without the Hub are "smollm2-135m", "tiny-gpt2" and "tiny-llama".'
        ) from error
    except Exception as error:
        raise CourseError(
            f'"{name}" could not be downloaded from the Hub ({_first_line(error)}). Run this again; '
            f"{_WITHOUT_NETWORK}."
        ) from error


def _check_model_files(name, folder):
    if not (folder / "config.json").is_file():
        raise CourseError(
            f'"{name}" holds no model: there is no config.json. Give the folder that save_pretrained wrote, '
            "or a model's name on the Hub."
        )
    if not any(folder.glob("*.safetensors")):
        raise CourseError(
            f'"{name}" has no weights as safetensors, and pickled ones (.bin, .pt) can run code when '
            "they are opened, so this course does not. Choose a model that is stored as safetensors."
        )


@contextlib.contextmanager
def _explained(name, folder):
    """One sentence for whatever transformers finds wrong with a folder."""
    try:
        yield
    except Exception as error:
        if _wants_own_code(folder):
            raise CourseError(
                f'"{name}" needs code of its own to run (trust_remote_code), which this course does not '
                "execute. Choose a model whose architecture is part of transformers."
            ) from error
        raise CourseError(
            f'"{name}" could not be loaded: {_first_line(error)} Check its files, or choose another model; '
            f"{_WITHOUT_NETWORK}."
        ) from error


def _wants_own_code(folder):
    for file in ("config.json", "tokenizer_config.json"):
        with contextlib.suppress(OSError, ValueError):
            if "auto_map" in json.loads((folder / file).read_text(encoding="utf-8")):
                return True
    return False


def _first_line(error):
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
