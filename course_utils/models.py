"""load(): a model and its tokenizer by name, ready to be looked into."""

import contextlib
import os
from pathlib import Path

from . import assets
from .errors import CourseError

DEFAULT = "smollm2-135m"


def load(name=None, device=None):
    name = name or os.environ.get("COURSE_MODEL") or DEFAULT
    from transformers import LlamaForCausalLM

    folder = assets.find(assets.SMOLLM2) or assets.prepare(assets.SMOLLM2)
    with _quiet():
        model = LlamaForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), load_tokenizer(name)


def load_tokenizer(name=None):
    name = name or os.environ.get("COURSE_MODEL") or DEFAULT
    if name == DEFAULT:
        from transformers import PreTrainedTokenizerFast

        folder = assets.find(assets.SMOLLM2) or assets.prepare(assets.SMOLLM2)
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    from transformers import GPT2Tokenizer

    folder = assets.find(assets.GPT2_VOCABULARY) or assets.prepare(assets.GPT2_VOCABULARY)
    return GPT2Tokenizer.from_pretrained(folder, local_files_only=True)


@contextlib.contextmanager
def _quiet():
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
