"""What a model that somebody gives is made of, which ids it knows, and how long a text it takes.

`position_limit` is the course's one answer to "does this text fit?". `unwrapped` finds the model inside what
torch.compile, PEFT or DataParallel put around it: whoever asks for a model's class, or for the parameters of
its forward pass, asks the model inside.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import CourseError

_WRAPPERS = ("_orig_mod", "module")  # torch.compile's; DataParallel's, FSDP's and DeepSpeed's
_TABLE = re.compile(r"(^|_)(pos|positions?|wpe)(_|$)")
_RELATIVE = re.compile(r"(^|_)(rel|relative|bias)(_|$)")
_SPEECH = "Speech2TextSinusoidalPositionalEmbedding"  # grows in the first pass only, not while it decodes
_ASK_WITH_A_MASK = ("xlm", "flaubert")  # generate() ends each pass with a mask token, which takes a position
_TRAINED = ("max_position_embeddings", "max_seq_len", "max_target_positions")


def unwrapped(model: Any) -> Any:
    """The transformers model inside of wrappers, or `model` itself if it has none.

    A wrapper passes attributes on, but it is of another class, and its forward has other parameters. What
    generate() runs is the model inside, with adapters such as LoRA in its layers. A learned prompt is
    not part of it: a PEFT model that has one stays as it is.

    Models are `Any` to a type checker, here and all over the course: they come in any class and any wrapper,
    attributes of a torch.nn.Module are `Tensor | Module` to it, and it cannot bind transformers' generate(),
    whose `self` is declared to be of a class that no model has.
    """
    while not isinstance(model, PreTrainedModel):
        inside = _inside(model)
        if inside is None:
            return model
        model = inside
    return model


def _inside(model):
    modules = vars(model).get("_modules", {})  # not getattr: wrappers answer for what is inside of them
    for name in _WRAPPERS:
        if name in modules:
            return modules[name]
    is_pefts = callable(getattr(model, "get_base_model", None))
    return model.get_base_model() if is_pefts and not has_learned_prompt(model) else None


def has_learned_prompt(model: Any) -> bool:
    """Whether a PEFT model puts vectors of its own before the prompt (prompt tuning, prefix tuning): bool."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def check_no_learned_prompt(model: Any, who: str) -> None:
    """Raise CourseError for a PEFT model with a learned prompt. who: str, what cannot take it.

    Its vectors stand before the text: they take positions, and for some of them extra logits come back.
    """
    if has_learned_prompt(model):
        raise CourseError(
            f"This {type(model).__name__} puts a learned prompt before every text, and {who} takes the text "
            "for all that the model reads. Give it a model without an adapter, or one whose adapter is part "
            "of the layers, such as LoRA."
        )


def position_limit(model: Any, generating: bool = False) -> int | None:
    """How many tokens a text may have because the model looks their positions up in a table: int, or None.

    model:      a transformers model, wrapped or not; of an encoder-decoder the decoder counts
    generating: True for a text that generate() continues, which gives decoders position ids that count from
                0. False for a forward pass with the model's own: RoBERTa's begin after its padding token's.

    Past its table a model has no vector for a position, and its forward pass ends in an IndexError. None is
    for models that compute their positions (rotary and relative ones, and sinusoids that grow): past the
    length that they were trained on, see `trained_positions`, they serve worse, but they do not end.
    """
    model = unwrapped(model)
    if model.config.model_type == "mpt":  # a table of biases, one for each distance
        return model.config.max_seq_len
    from_zero = generating and not model.config.is_encoder_decoder
    limit = min((_tokens(*table, from_zero) for table in _tables(model.get_decoder())), default=None)
    asks_with_a_mask = generating and model.config.model_type in _ASK_WITH_A_MASK
    return limit - 1 if asks_with_a_mask and limit is not None else limit


def encoder_limit(model: Any) -> int | None:
    """How many tokens an encoder-decoder's prompt may have: int, or None as `position_limit` gives it."""
    model = unwrapped(model)
    if not model.config.is_encoder_decoder or model.main_input_name != "input_ids":
        return None
    tables = _tables(model.get_encoder())
    # ProphetNet's encoder gives all positions past the end the last vector.
    limits = [_tokens(*table, False) for table in tables if not _is_prophetnets(table[0])]
    return min(limits, default=None)


def trained_positions(model: Any) -> int | None:
    """How many positions the configuration says that the model was trained on: int, or None."""
    config = unwrapped(model).config.get_text_config(decoder=True)
    values = [getattr(config, name, None) for name in _TRAINED]
    return next((value for value in values if value and value > 0), None)  # XLNet's -1 is none


def check_known_ids(model: Any, ids: torch.Tensor, name: str = "input_ids") -> None:
    """Raise CourseError for ids (an integer tensor, called `name`) that the model has no embedding for."""
    vocabulary = model.get_input_embeddings().num_embeddings
    unknown = ids[(ids < 0) | (ids >= vocabulary)]
    if unknown.numel():
        raise CourseError(
            f"{name} holds {unknown[0].item()}, and this model's ids go from 0 to {vocabulary - 1}. "
            "Use the tokenizer that load() returned with the model."
        )


def _tables(part: Any) -> Iterator[tuple[Any, int]]:
    """The tables of positions in a model or a part of it: an iterator of (module that holds it, int rows)."""
    for name, buffer in part.named_buffers(recurse=False):
        if buffer.ndim == 2 and name in ("embed_positions", "pos_encoding"):  # GPT-J and CodeGen; CTRL
            yield part, len(buffer)
    for name, child in part.named_children():
        if isinstance(child, PreTrainedModel) and child.main_input_name != "input_ids":
            continue  # an image's or a sound's positions
        is_table = _TABLE.search(name) and not _RELATIVE.search(name)
        if is_table and type(child).__name__ == _SPEECH:
            table: Any = child
            yield table, len(table.weights)
        elif is_table and isinstance(child, torch.nn.Embedding):
            if not hasattr(child, "make_weight"):  # FSMT's grows with the text
                yield child, child.num_embeddings
        else:
            yield from _tables(child)


def _tokens(table: Any, rows: int, from_zero: bool) -> int:
    """How many tokens a table of positions serves: int."""
    if _is_prophetnets(table):
        return rows - table.padding_idx - 2  # begins after the padding token, looks one further
    if type(table).__name__ != _SPEECH:
        rows -= getattr(table, "offset", 0)  # OPT, BART, BioGPT
        if from_zero or getattr(table, "padding_idx", None) is None:
            return rows
    return rows - table.padding_idx - 1


def _is_prophetnets(table):
    return type(table).__name__ == "ProphetNetPositionalEmbeddings"
