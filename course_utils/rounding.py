"""Two ways to compute the same thing, how far they are apart, and bugs small enough to be taken for rounding.

Each way is a function (model, ids, last) that returns the logits at the last places of one text, float64
[last, vocab]. The model is of Llama's architecture and is left as it was.
"""

import contextlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from transformers import DynamicCache

from .errors import CourseError
from .masks import position_ids

Way = Callable[[Any, torch.Tensor, int], torch.Tensor]


def plain(model: Any, ids: torch.Tensor, last: int, **arguments: Any) -> torch.Tensor:
    """One forward pass over `ids`, LongTensor [1, length]; `arguments` go to it."""
    with torch.no_grad():
        return model(ids, **arguments).logits[0, -last:].double()


def with_a_cache(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """The beginning in one pass, the last places one by one."""
    cache, parts = DynamicCache(config=model.config), []
    first = ids.shape[1] - last + 1
    with torch.no_grad():
        for part in (ids[:, :first], *ids[:, first:].split(1, dim=1)):
            parts += [model(part, cache=cache).logits[0, -1:]]
    return torch.cat(parts).double()


def in_a_batch(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """The first row of a left-padded batch of four."""
    row = ids[0]
    rows = [row, row[:5], torch.cat([row, row[:7]]), row.flip(0)]
    length = max(map(len, rows))
    mask = torch.stack([torch.arange(length) >= length - len(one) for one in rows]).long()
    padded = torch.stack([torch.nn.functional.pad(one, (length - len(one), 0)) for one in rows])
    return plain(model, padded, last, attention_mask=mask, position_ids=position_ids(mask))


def eager(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """Attention written out in PyTorch's operations, in place of one kernel (SDPA)."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return plain(model, ids, last)
    finally:
        model.set_attn_implementation(before)


def shifted(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """All positions one further. Llama's rotations know differences of positions only."""
    return plain(model, ids, last, position_ids=torch.arange(ids.shape[1])[None] + 1)


def mask_forgotten(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """One filler on the left, and no attention mask."""
    return plain(model, torch.nn.functional.pad(ids, (1, 0)), last)


def position_twice(model: Any, ids: torch.Tensor, last: int) -> torch.Tensor:
    """In the middle of the text one position is given to two tokens."""
    positions = torch.arange(ids.shape[1])[None].clone()
    positions[:, ids.shape[1] // 2 :] -= 1
    return plain(model, ids, last, position_ids=positions)


SAME: Mapping[str, Way] = {
    "once more": plain,
    "with a cache": with_a_cache,
    "in a padded batch": in_a_batch,
    "eager attention": eager,
    "positions + 1": shifted,
}
BUGS: Mapping[str, Way] = {"mask forgotten": mask_forgotten, "one position twice": position_twice}


@contextlib.contextmanager
def changed(thing: Any, name: str, value: Any) -> Iterator[None]:
    """Within it, `thing` has another attribute `name`; then it is put back."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)


def small_bug(name: str) -> Way:
    """A way with one thing wrong in the model, a name of `SMALL_BUGS`. Raises CourseError for another."""
    if name not in SMALL_BUGS:
        raise CourseError(f"There is no bug {name!r}. Give one of {', '.join(map(repr, SMALL_BUGS))}.")

    def way(model, ids, last):
        with contextlib.ExitStack() as stack:
            for thing, attribute, value in SMALL_BUGS[name](model):
                stack.enter_context(changed(thing, attribute, value))
            return plain(model, ids, last)

    return way


def _epsilon(model):
    return [(one, "variance_epsilon", one.variance_epsilon / 10) for one in _norms(model)]


def _scale(model, factor, layers=slice(None)):
    attentions = [layer.self_attn for layer in model.model.layers[layers]]
    return [(one, "scaling", one.scaling * factor) for one in attentions]


def _one_weight(model):
    weight = model.model.layers[0].mlp.down_proj.weight
    other = weight.detach().clone()
    other[0, 0] = 0
    return [(weight, "data", other)]


def _theta(model):
    rotary = model.model.rotary_emb
    size = 2 * len(rotary.inv_freq)
    inverse = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    return [(rotary, "inv_freq", inverse.to(rotary.inv_freq))]


def _activation(model):
    return [(layer.mlp, "act_fn", torch.nn.GELU()) for layer in model.model.layers]


# From the name of a bug to a function of the model that lists what to change: (owner, attribute, value).
SMALL_BUGS: Mapping[str, Callable] = {
    "a tenth of the norm's epsilon": _epsilon,
    "attention scale × 1.001": lambda model: _scale(model, 1.001),
    "one layer's scale × 1.0001": lambda model: _scale(model, 1.0001, slice(1)),
    "one weight of 134 million is 0": _one_weight,
    "theta 10,000, not 100,000": _theta,
    "GELU, not SiLU": _activation,
}


def distance(model: Any, ids: torch.Tensor, way: Way, last: int = 12) -> tuple[float, int]:
    """How far a way is from `plain`: the median, over the places, of the largest difference of a logit there,
    and the number of places whose largest logit is another's.

    ids: LongTensor [1, length]; last: int, below the length
    """
    if not 0 < last < ids.shape[1]:
        raise CourseError(f"The text has {ids.shape[1]} tokens, so `last` is to be 1 to {ids.shape[1] - 1}.")
    wanted, found = plain(model, ids, last), way(model, ids, last)
    largest = (wanted - found).abs().amax(-1)
    return largest.median().item(), int((wanted.argmax(-1) != found.argmax(-1)).sum())


def _norms(model):
    return [module for module in model.modules() if hasattr(module, "variance_epsilon")]


@contextlib.contextmanager
def exact_norms(model: Any) -> Iterator[None]:
    """Within it the model's RMS norms compute in the type that they are given, not in float32."""

    def forward(self, h):
        return self.weight * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    with contextlib.ExitStack() as stack:
        for module in _norms(model):
            stack.enter_context(changed(module, "forward", types.MethodType(forward, module)))
        yield


@contextlib.contextmanager
def exact_softmax() -> Iterator[None]:
    """Within it torch.nn.functional.softmax stays in the type of its input, whatever type it is asked for."""
    softmax = torch.nn.functional.softmax
    with mock.patch.object(
        torch.nn.functional, "softmax", lambda input, dim=None, dtype=None: softmax(input, dim=dim)
    ):
        yield


def greedy_run(
    model: Any, ids: torch.Tensor, new_tokens: int, cache: bool = True, batch: bool = False
) -> tuple[list[int], list[float]]:
    """The new ids of greedy decoding, and at each step the gap of the two largest logits, in float64.

    ids:   LongTensor [1, length]; new_tokens: int, all of them are written
    cache: whether keys and values are kept; batch: whether the text is the padded row of a batch of two
    """
    mask, inputs = torch.ones_like(ids), ids
    if batch:
        inputs = torch.cat([torch.nn.functional.pad(ids, (ids.shape[1], 0)), ids.repeat(1, 2)])
        mask = torch.cat([torch.nn.functional.pad(mask, (ids.shape[1], 0)), mask.repeat(1, 2)])
    output = model.generate(
        inputs, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, use_cache=cache,
        pad_token_id=0, eos_token_id=None, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    best = torch.stack(output.logits)[:, 0].double().topk(2).values  # (step, 2)
    return output.sequences[0, inputs.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()
