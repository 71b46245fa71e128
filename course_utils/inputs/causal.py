"""Whether a model reads a text from left to right: asked of the model itself, not of its configuration.

The configuration does not tell. `is_decoder` is False in GPT-NeoX's, which is causal, and in BERT's, which is
not; XLM's flag is `causal`, Gemma's is `use_bidirectional_attention`, and XLNet has none.
"""

import threading
import weakref
from typing import Any

import torch

from ..errors import CourseError

_PROBE = 3  # tokens; the first must not depend on the two after it
_known = weakref.WeakSet()  # models that were asked and are causal


def check_causal(model: Any, purpose: str) -> None:
    """Refuse a model that is not a decoder: one in which a token also reads the tokens after it.

    purpose: str, who asks and what the model is to do, "NextToken continues a prompt"
    Raises CourseError for an encoder-decoder, and for a model whose logits after the first token of a text
    depend on the later ones, such as BERT, which AutoModelForCausalLM loads as well. The first time it takes
    one forward and one backward pass of three tokens; the model and its gradients stay as they are.
    """
    example = "Give it a decoder-only model, for example the one that load() returns."
    if model.config.is_encoder_decoder:
        raise CourseError(f"{type(model).__name__} is an encoder-decoder model, and {purpose}. {example}")
    if model in _known:
        return
    if _reads_ahead(model):
        raise CourseError(
            f"In this {type(model).__name__} a token also reads the tokens after it, and {purpose}, which "
            f"needs a model that reads from left to right. {example}"
        )
    _known.add(model)


def _reads_ahead(model):
    """Whether the logits after a text's first token depend on a later token: bool.

    A gradient shows it without any tolerance. Behind a causal mask the weight of a later token is exactly 0,
    and so is what comes back to it, whatever the number type and the dropout are. Of weights that no gradient
    can pass (some quantized ones, and those loaded in inference mode) nothing is known, and they are taken.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        return False
    embeddings, thread = model.get_input_embeddings(), threading.get_ident()
    vectors = []

    def watch(module, args, output):
        if threading.get_ident() != thread:  # a running cell may use the model at the same time
            return output
        vectors.append(output.detach().requires_grad_())
        return vectors[-1] * 1  # a model may change what it gets in place, and a leaf may not be changed

    hook = embeddings.register_forward_hook(watch)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # Any ids will do, and the first ones often stand for padding.
            ids = torch.arange(3, 3 + _PROBE, device=model.device)[None] % embeddings.num_embeddings
            # The first output: logits, or hidden states where the model has no head.
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
            if not logits.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(logits[0, 0].float().logsumexp(-1), vectors[0])
    finally:
        hook.remove()
    later = gradient.flatten(0, -2)[1:]  # one row, whether the batch comes first or second, as in XLNet
    return bool(((later > 0) | (later < 0)).any())  # NaN, from a broken model, is neither
