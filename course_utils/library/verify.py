"""Prove an entry of the version map by running its lines on a small GPT-2."""

import contextlib
import copy
import functools
import inspect
import io
import logging
import re
import tempfile
import warnings

from ..errors import CourseError
from ..releases import cache_of
from .introspect import homes_of, source


def problem(entry):
    """What is wrong with an entry for the installed transformers: str, "" if nothing.

    Runs the entry's lines on a model of its own, on the CPU. The global random state, the warnings and the
    log stay as they are.
    """
    try:
        with _quiet():
            return _source_problem(entry) if entry.source else _code_problem(entry)
    except CourseError:
        raise
    except Exception as error:  # whatever another version does, the map says so and goes on
        return f"checking it raised {type(error).__name__}"


def _source_problem(entry):
    code = source(entry.source)
    if entry.now and entry.old in code:
        return "the old piece of code is there"
    if (entry.now or entry.old) not in code:
        return "the code to look for is not there"
    return _claim_problem(entry)


def _code_problem(entry):
    raised, warned = _outcome(entry.old)
    if raised != entry.fails:
        return f"the old line {f'raises {raised}' if raised else 'runs'}"
    if entry.now and not entry.hub:
        raised, warned = _outcome(entry.now)
        if raised:
            return f"the new line raises {raised}"
    if warned and (entry.now or entry.kind == "same"):
        return f"the line to write is deprecated: {warned}"
    return _claim_problem(entry)


def _claim_problem(entry):
    for name in entry.also.split():
        if homes_of(name):
            return f"{name} is there"
    if entry.holds and not eval(entry.holds, _bench()):
        return "what the note says is not so"
    return ""


def _outcome(line):
    """What a line does: (the type of the error that it raises, str; the first message that something in it is
    deprecated, str). "" for none."""
    names = {} if line.startswith("from ") else _bench()
    error = ""
    with deprecations() as messages:
        try:
            exec(line, names)
        except Exception as raised:
            error = type(raised).__name__
    # What the library says of its own calls does not name anything that the line has.
    words = set(re.findall(r"\w+", line))
    named = [text for text in messages if words & set(re.findall(r"`(\w+)`", text))]
    return error, named[0] if named else ""


@contextlib.contextmanager
def deprecations():
    """Collect what a block is told of deprecated names, as warnings and in transformers' log: list of str.

    The list is filled when the block ends. Nothing of it is shown.
    """
    from transformers.utils import logging as library_log

    logger, messages, logged = library_log.get_logger("transformers"), [], []
    handler = _Collector(logged)
    before, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
    library_log.warning_once.cache_clear()  # or what was said before is not said again
    try:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield messages
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(before)
    kinds = FutureWarning, DeprecationWarning, PendingDeprecationWarning
    messages += [str(warning.message) for warning in warned if issubclass(warning.category, kinds)]
    messages += [text for text in logged if "deprecated" in text]


class _Collector(logging.Handler):
    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def emit(self, record):
        self.texts.append(record.getMessage())


def _bench():
    """The names that an entry's lines may use, made anew: dict."""
    import numpy as np
    import torch
    import transformers

    shared, copied = _parts()
    names = copy.deepcopy(copied)
    model, inputs, cache = names["model"], names["inputs"], names["cache"]

    class Streamer(transformers.generation.streamers.BaseStreamer):
        shapes = ()

        def put(self, value):
            self.shapes += (tuple(value.shape),)

        def end(self):
            pass

    def kept(**settings):
        """How many tokens sampling may still choose from at the first step."""
        if "generation_config" in settings:
            settings["generation_config"].max_new_tokens = 1
        else:
            settings["max_new_tokens"] = 1
        made = model.generate(**inputs, **settings, output_scores=True, return_dict_in_generate=True)
        return made.scores[0].isfinite().sum().item()

    def loaded(**options):
        """The type of the stored model's weights, loaded with these options."""
        return transformers.AutoModelForCausalLM.from_pretrained(shared["name"], **options).dtype

    def with_gradients(generate):
        """Whether the logits of a first step carry a gradient."""
        made = generate(model, **inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        return made.logits[0].requires_grad

    return {
        **shared,
        **names,
        "with_gradients": with_gradients,
        "transformers": transformers,
        "torch": torch,
        "np": np,
        "inspect": inspect,
        "re": re,
        "source": source,
        "kept": kept,
        "loaded": loaded,
        "input_ids": inputs["input_ids"],
        "input_length": inputs["input_ids"].shape[1],
        "two_rows": {key: value.repeat(2, 1) for key, value in inputs.items()},
        "negative": inputs["input_ids"][:, :1],
        "past": tuple((layer.keys, layer.values) for layer in cache.layers),
        "beam_idx": torch.tensor([0]),
        "keep": torch.ones(model.config.n_embd),
        "streamer": Streamer(),
        "processors": transformers.LogitsProcessorList(),
        "own": transformers.RepetitionPenaltyLogitsProcessor(2.0),
        "config": transformers.GenerationConfig(do_sample=False),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }


@functools.cache
def _parts():
    """What is costly to make: (dict of what no line changes, dict of what is copied for each line)."""
    import torch

    from ..models import load

    model, tokenizer = load("tiny-gpt2", device="cpu")
    tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    inputs = dict(tokenizer("Today is the day", return_tensors="pt"))
    folder = tempfile.TemporaryDirectory()
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder.name)
    tokenizer.save_pretrained(folder.name)
    beams = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 5}
    outputs = model.generate(**inputs, **beams, output_scores=True, return_dict_in_generate=True)
    chosen = model.compute_transition_scores(outputs.sequences, outputs.scores, outputs.beam_indices)
    with torch.no_grad():
        forward = model(**inputs)
    shared = {
        "name": folder.name,
        "folder": folder,  # removed from the disk once nothing refers to it
        "stored_dtype": torch.bfloat16,
        "tokenizer": tokenizer,
        "outputs": outputs,
        "transition_scores": chosen,
        "logits": forward.logits[:, -1],
    }
    return shared, {"model": model, "inputs": inputs, "cache": cache_of(forward)}


@contextlib.contextmanager
def _quiet():
    """No warning, no log, no bar; gradients on; the global random state as it was."""
    import torch
    from transformers.utils import logging as library_log

    from ..models import without_loading_bars

    verbosity = library_log.get_verbosity()
    library_log.set_verbosity(logging.CRITICAL + 1)
    try:
        with (
            warnings.catch_warnings(),
            without_loading_bars(),
            contextlib.redirect_stderr(io.StringIO()),
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        library_log.set_verbosity(verbosity)
        library_log.warning_once.cache_clear()  # what was kept quiet here has not been said yet
