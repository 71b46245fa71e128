"""Links: logits [..., vocab] -> what takes a token's place, of the same shape and type.

What is drawn or rounded on the way is so in float32 or better: in bfloat16 whole groups of tokens tie.
"""

import torch
from torch.nn.functional import one_hot

from .errors import CourseError
from .inputs.numbers import at_least_float32


def soft(logits: torch.Tensor) -> torch.Tensor:
    """softmax: the next step reads the mean of all embeddings ("soft embeddings").

    Without noise, and the exact gradient of another function: the reward of a mixture, which no sequence ever
    is. Needs a reward that is defined between tokens, and differentiable.
    """
    return logits.softmax(-1)


def straight_through(
    logits: torch.Tensor, generator: torch.Generator | None = None, sample: bool = False
) -> torch.Tensor:
    """One-hot forwards, softmax backwards (Bengio, Léonard & Courville 2013, arXiv:1308.3432).

    sample: False takes the argmax, True draws with `generator`
    The value is that of a real token, the gradient that of the softmax, so it is biased; with argmax it may
    point anywhere. Needs a reward that is differentiable. Drawn in float32 or better, returned in the logits'
    type.
    """
    probs = at_least_float32(logits).softmax(-1)
    if sample:
        flat = probs.detach().reshape(-1, probs.shape[-1])
        chosen = torch.multinomial(flat, 1, generator=generator).view(probs.shape[:-1])
    else:
        chosen = logits.argmax(-1)
    return _straight(chosen, probs).to(logits.dtype)


def gumbel(
    logits: torch.Tensor,
    temperature: float = 1.0,
    hard: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """softmax((logits + Gumbel noise) / temperature) (Jang et al. 2016, arXiv:1611.01144; Maddison et al.
    2016, arXiv:1611.00712).

    hard: True gives one-hot forwards, which is an exact draw from softmax(logits), and this softmax backwards
    Biased towards the mixture that it is at this temperature; a lower one has less bias and more noise. Needs
    a reward that is differentiable. The noise comes from the `generator`; without one from the global random
    state, and is that of torch's `gumbel_softmax`. Computed in float32 or better, returned in the type of the
    logits.
    """
    if not temperature > 0:
        raise CourseError(f"The temperature is {temperature!r}. Give a number above 0, such as 1.0.")
    exact = at_least_float32(logits)
    perturbed = (exact + _gumbel_noise(exact, generator)) / temperature
    probs = perturbed.softmax(-1)
    return (_straight(perturbed.argmax(-1), probs) if hard else probs).to(logits.dtype)


def _gumbel_noise(logits, generator):
    """Standard Gumbel noise in the shape and type of `logits`, float32 or float64."""
    if generator is None:
        return -torch.empty_like(logits).exponential_().log()  # as torch's gumbel_softmax draws it
    # It is -log(-log u), and u next to 1 decides which token is on top. The largest u below 1 gives 5.5 in
    # bfloat16 and 16.6 in float32, where a large vocabulary would tie; in float64 it gives 36.7.
    dtype = logits.dtype if logits.device.type == "mps" else torch.float64  # which MPS does not have
    uniform = torch.rand(logits.shape, generator=generator, dtype=dtype, device=logits.device)
    return -(-uniform.clamp(min=1e-20).log()).log().to(logits.dtype)


def _straight(chosen, probs):
    """One-hot at `chosen`, with the gradient of `probs`."""
    hard = one_hot(chosen, probs.shape[-1]).to(probs.dtype)
    return hard + probs - probs.detach()
