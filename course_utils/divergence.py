"""How a model scores the texts that it has drawn, and how far training has moved it: `Scored`."""

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch.func import functional_call

from .inputs.numbers import at_least_float32

_SAME = 1e-4  # of logits; one computed in another order is off by a tenth of it


class Scored:
    """One pass of a model over drawn texts, with gradient.

    model: in evaluation mode; parts: list of two modules, the last block and the final norm, all that is
    trained; drawn: `sampling.Samples`; temperature: float, of the draw
    log_probs: [samples, new, vocab], of all tokens where each drawn one stands, in float32 or better: what it
               was drawn from. Numbers after a row's end mean nothing.
    """

    def __init__(self, model: Any, parts: list[torch.nn.Module], drawn: Any, temperature: float) -> None:
        self._model, self._parts, self._drawn, self._temperature = model, parts, drawn, temperature
        self._new = drawn.drawn.shape[1]
        caught = {}
        hook = parts[0].register_forward_pre_hook(
            lambda block, args, kwargs: caught.update(args=args, kwargs=kwargs), with_kwargs=True
        )
        try:
            logits = self._whole()
        finally:
            hook.remove()
        self._args, self._kwargs = caught["args"], caught["kwargs"]
        self.log_probs = self._log_probs(logits)
        self._run = self._short if self._is_short(logits) else self._whole

    def again(self) -> torch.Tensor:
        """As `log_probs`, of the model as it is now, with gradient. Where block, norm and head in a row give
        what the model gave, only these three run."""
        return self._log_probs(self._run())

    @torch.no_grad()
    def of(self, weights: list[torch.Tensor]) -> torch.Tensor:
        """As `log_probs`, with `weights` in the parts, one for each parameter, and without gradient."""
        return self._log_probs(self._run(weights))

    @torch.no_grad()
    def kl(self, before: list[torch.Tensor]) -> float:
        """KL divergence of the model, as it is now, from the one whose parts have the weights `before`.

        before: list of tensors, one for each parameter of the parts
        Returns a float, in nats a token: the mean over the drawn tokens. The frozen blocks compute the same
        for both. Where block, norm and head in a row give the logits that the model gave, only these run
        again. A model that does more (it scales its logits, caps them, has several streams, or runs its
        blocks several times) runs as a whole.
        """
        now, start = self.again(), self.of(before)
        # A token that a model forbids has -inf in both, which is no distance.
        apart = torch.where(now.isneginf(), 0.0, now.exp() * (now - start)).sum(-1)  # (samples, new)
        return apart[self._drawn.drawn].mean().item()

    @torch.no_grad()
    def _is_short(self, logits):
        """Whether `_short` stands for the model, which gave `logits`: bool."""
        given = (*self._args, *self._kwargs.values())
        if any(isinstance(one, torch.Tensor) and one.requires_grad for one in given):
            return False  # trained weights act before the last block, too, as where blocks run several times
        short = self._short()
        if short is None or short.shape != logits.shape:
            return False
        return torch.allclose(at_least_float32(short), at_least_float32(logits), rtol=_SAME, atol=_SAME)

    def _log_probs(self, logits):
        return (at_least_float32(logits) / self._temperature).log_softmax(-1)

    def _whole(self, weights=None) -> torch.Tensor:
        """The logits before each drawn token, with `weights` in the parts: [samples, new, vocab]."""
        kwargs: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(self._model.forward).parameters:
            kwargs["logits_to_keep"] = self._new + 1
        # One prompt, so no row is padded on the left, and a row's padding follows its end.
        with self._with(weights):
            return self._model(self._drawn.sequences, **kwargs).logits[:, -self._new - 1 : -1]

    @contextlib.contextmanager
    def _with(self, weights):
        """The model with `weights` in its parts, in place: a part may be shared, which functional_call with
        the whole model does not undo."""
        if weights is None:
            yield
            return
        own = [parameter.detach().clone() for parameter in self._trained()]
        try:
            copy_into(self._trained(), weights)
            yield
        finally:
            copy_into(self._trained(), own)

    def _short(self, weights=None):
        """What block, norm and head make of the frozen blocks' work: as `_whole`, or None where these three
        do not fit together."""
        weights = iter(self._trained() if weights is None else weights)
        block, norm = ({name: next(weights) for name, _ in part.named_parameters()} for part in self._parts)
        hidden = functional_call(self._parts[0], block, self._args, self._kwargs)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        head = self._model.get_output_embeddings()
        if head is None or hidden.ndim != 3 or hidden.shape[:2] != self._drawn.sequences.shape:
            return None
        return head(functional_call(self._parts[1], norm, (hidden[:, -self._new - 1 : -1],)))

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for part in self._parts for parameter in part.parameters()]


@torch.no_grad()
def copy_into(parameters: Iterable[torch.Tensor], values: Iterable[torch.Tensor]) -> None:
    """Give each parameter the numbers of the tensor at its place in `values`."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
