"""Going back in a decoding loop: random states, shorter caches, and what processors and criteria remember.

Steps can be undone in two ways. An ordinary cache keeps every key, so leaving out the last ones is exact
(`can_crop`, `crop`). Anything else is put back to where it began (`keep`, `restore`), and the steps that
remain are run again.
"""

import copy
import random
from collections import deque
from collections.abc import Callable

import numpy
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

_OWN = ("transformers.generation.logits_process", "transformers.generation.stopping_criteria")
_REMEMBERS = ("UnbatchedClassifierFreeGuidanceLogitsProcessor", "SynthIDTextWatermarkLogitsProcessor")
_GENERATORS = torch.Generator | numpy.random.Generator | random.Random
_CHANGES = torch.Tensor | list | dict | set | deque | Cache | _GENERATORS


def random_state(device):
    """The state of every generator that a model on `device` may draw from, for `set_random_state`."""
    states: list[tuple[Callable, torch.Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda":
        on_device = torch.cuda.get_rng_state(device)
        states.append((lambda state: torch.cuda.set_rng_state(state, device), on_device))
    elif device.type == "mps":
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return tuple(states)


def set_random_state(states):
    """Put back what `random_state` returned."""
    for put_back, state in states:
        put_back(state)


def is_stateless(thing):
    """Whether a logits processor or stopping criterion is one of transformers' own that remembers nothing."""
    kind = type(thing)
    return kind.__module__ in _OWN and kind.__name__ not in _REMEMBERS


def caches_in(model_kwargs):
    """The KV caches among a model's keyword arguments, a list."""
    return [value for value in model_kwargs.values() if isinstance(value, Cache)]


def can_crop(cache):
    """Whether a shorter cache is the cache of a shorter text: each layer keeps every key, in order."""
    return (
        type(cache) is DynamicCache
        and not cache.offloading
        and all(type(layer) is DynamicLayer for layer in cache.layers)
    )


def crop(cache, length):
    """Shorten a cache that `can_crop` accepts to its first `length` positions.

    `Cache.crop` counts from each layer's end; this also fixes a cache whose layers differ in length because a
    forward pass was interrupted.
    """
    for layer in cache.layers:
        if length == 0:
            layer.reset()
        elif layer.is_initialized:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]


def keep(things, model):
    """The present state of caches, processors and criteria: what `restore` puts back into the same objects.

    things: objects; of a plain function there is nothing to keep
    model:  not copied where a thing holds on to it, as guidance does
    """
    return [(thing, model, _copied(vars(thing), model)) for thing in things if hasattr(thing, "__dict__")]


def restore(kept):
    """Put back what `keep` returned. It can be put back more than once."""
    for thing, model, state in kept:
        vars(thing).clear()
        vars(thing).update(_copied(state, model))


def _copied(state, model):
    """A copy of an object's attributes, deep for those that can change in place."""
    memo = {id(model): model}
    # deepcopy refuses what was computed with gradients, such as a cache that was filled with them.
    memo |= {id(tensor): tensor.detach().clone() for tensor in _computed(state)}
    return {
        name: copy.deepcopy(value, memo) if isinstance(value, _CHANGES) else value
        for name, value in state.items()
    }


def _computed(value):
    """The tensors that carry the history of their gradients in a dict of attributes: an iterator."""
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, Cache | CacheLayerMixin):
        yield from _computed(vars(value))
    elif isinstance(value, dict):
        yield from _computed(list(value.values()))
    elif isinstance(value, list | tuple | set | deque):
        for item in value:
            yield from _computed(item)
