"""One attention head of a padded batch: scores, mask, softmax, weights, in three types of number."""

import html
import inspect
import math
import threading
from pathlib import Path
from typing import Any

import torch
import traitlets
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ...errors import CourseError
from ...inputs.causal import check_causal
from ...inputs.limits import check_no_learned_prompt, unwrapped
from ...masks import additive_mask, joined_mask, position_ids
from ..core.batch import Choice, padded, tokens_of
from ..core.labels import isolated, quoted, rjust
from ..core.text import html_table
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_MOST_TOKENS = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MASKS = ("both", "causal", "padding")


class MaskView(CourseWidget):
    """One head's scores of a left-padded batch on their way to weights: mask added, softmax.

    model:       a transformers model of GPT-2's or Llama's architecture
    tokenizer:   its tokenizer, with a pad token
    sentences:   list of 1 to 6 str, each at most 16 tokens; padded on the left
    layer, head: int, from 0; both can be assigned, as `sentences` can

    `masks` ("both", "causal", "padding"), `fill` ("finfo.min", "-inf", "-1e4"), `dtype` ("float32",
    "bfloat16", "float16"), `row` (which sentence), `query` and `key` (the cell looked at) are the switches:
    the page writes them back, setting them from Python moves them. `weights` holds what is shown.

    The model runs in the kernel, once for each batch; the page does the arithmetic of the three types.

    Raises CourseError for other sentences (see `batch.padded`), for a tokenizer without a pad token, for
    another architecture, and for a layer, a head or a switch outside of what there is.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    masks = Choice(MASKS).tag(sync=True)
    fill = Choice(("finfo.min", "-inf", "-1e4")).tag(sync=True)
    dtype = Choice(DTYPES).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    key = traitlets.Int(0).tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sentences: Any,
        layer: int = 0,
        head: int = 0,
        masks: str = "both",
        fill: str = "finfo.min",
        dtype: str = "float32",
    ) -> None:
        model = unwrapped(model)
        check_no_learned_prompt(model, "MaskView")
        check_causal(model, "MaskView shows a decoder's batch")
        _attention_layers(model)
        self._model, self._tokenizer = model, tokenizer
        super().__init__(masks=masks, fill=fill, dtype=str(dtype).removeprefix("torch."))
        self._show(sentences, layer, head)

    @property
    def sentences(self) -> list[str]:
        """The sentences of the batch."""
        return self.shown["sentences"]

    @sentences.setter
    def sentences(self, sentences: Any) -> None:
        self._show(sentences, self.layer, self.head)

    @property
    def layer(self) -> int:
        """The layer that is shown, from 0."""
        return self.shown["layer"]

    @layer.setter
    def layer(self, layer: int) -> None:
        self._show(self.sentences, layer, self.head)

    @property
    def head(self) -> int:
        """The head that is shown, from 0."""
        return self.shown["head"]

    @head.setter
    def head(self, head: int) -> None:
        self._show(self.sentences, self.layer, head)

    @property
    def weights(self) -> torch.Tensor:
        """The weights that are shown: tensor [query, key] of the chosen type, NaN where softmax gives it."""
        scores = self._scores()
        return (scores + additive_mask(self._allowed(), scores.dtype, self.fill)).softmax(-1)

    @traitlets.validate("row", "query", "key")
    def _inside(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        batch, length = self._mask.shape if self.shown else (1, 1)
        count = batch if name == "row" else length
        if not 0 <= value < count:
            raise CourseError(f"{name} is {value}, and there are {count}. Give 0 to {count - 1}.")
        return value

    def answer(self, request: dict) -> dict | None:
        """Show {"sentences": list of str, "layer": int, "head": int}."""
        self._show(request["sentences"], request["layer"], request["head"])

    def _show(self, sentences, layer, head):
        layers = len(_attention_layers(self._model))
        heads = self._model.config.get_text_config(decoder=True).num_attention_heads
        for name, value, count in (("layer", layer, layers), ("head", head, heads)):
            if not isinstance(value, int) or not 0 <= value < count:
                raise CourseError(
                    f"There is no {name} {value}: this model has {count} {name}s. Give 0 to {count - 1}."
                )
        batch = padded(self._model, self._tokenizer, sentences, "left", _MOST_TOKENS)
        scores = attention_scores(self._model, batch, layer)[:, head]
        if not scores.isfinite().all():
            raise CourseError(
                "The model's scores hold NaN or infinity before any mask. "
                "Load the model again with dtype=torch.float32."
            )
        others = list(sentences) != self.shown.get("sentences")
        self._mask = batch["attention_mask"]
        self.set_trait(
            "shown",
            {
                "sentences": list(sentences),
                "layer": layer,
                "head": head,
                "layers": layers,
                "heads": heads,
                "tokens": [[label for _, label in row] for row in tokens_of(self._tokenizer, batch)],
                "scores": scores.numpy().astype("<f4").tobytes(),
            },
        )
        if others:  # begin at a query that may look nowhere: the first padding token of the first padded row
            padded_rows = (self._mask == 0).any(1).int()
            self.row, self.query, self.key = int(padded_rows.argmax()), 0, 0

    def _scores(self):
        """The scores of the shown row in the chosen type: tensor [query, key]."""
        scores = torch.frombuffer(bytearray(self.shown["scores"]), dtype=torch.float32)
        length = self._mask.shape[1]
        return scores.reshape(-1, length, length)[self.row].to(DTYPES[self.dtype])

    def _allowed(self):
        """Which key each query of the shown row may look at: BoolTensor [query, key]."""
        mask = self._mask[self.row : self.row + 1]
        mask = torch.ones_like(mask) if self.masks == "causal" else mask
        return joined_mask(mask, causal=self.masks != "padding")[0, 0]

    def _title(self):
        masks = {"both": "causal and padding mask", "causal": "causal mask", "padding": "padding mask"}
        return (
            f"Layer {self.layer}, head {self.head}, {quoted(self.sentences[self.row])}, {masks[self.masks]}, "
            f"{self.fill} in {self.dtype}: weights, a line a query, a column a key"
        )

    def _table(self):
        """The weights as text with the row's tokens around them: list of lines, each a list of str."""
        tokens = self.shown["tokens"][self.row]
        tokens = ["pad"] * (self._mask.shape[1] - len(tokens)) + tokens
        weights = [["NaN" if math.isnan(x) else f"{x:.2f}" for x in row] for row in self.weights.tolist()]
        return [["", *tokens], *([token, *row] for token, row in zip(tokens, weights, strict=True))]

    def _masked_everywhere(self):
        """What became of the queries that may look nowhere: str, a sentence."""
        allowed, scores, weights = self._allowed(), self._scores(), self.weights
        found = [
            f"{query} ({outcome(scores[query], weights[query])})"
            for query in range(len(allowed))
            if not allowed[query].any()
        ]
        return f"Masked everywhere: {', '.join(found) or 'no query'}."

    def summary(self) -> str:
        table = self._table()
        width = 1 + max(len(cell) for line in table for cell in line)
        lines = ["".join(rjust(isolated(cell), width) for cell in line) for line in table]
        return "\n".join([self._title(), *lines, self._masked_everywhere()])

    def still(self) -> str:
        header, *rows = (map(isolated, line) for line in self._table())
        title, masked = html.escape(self._title()), html.escape(self._masked_everywhere())
        return f"<p>{title}</p>{html_table(header, rows)}<p>{masked}</p>"


def outcome(scores: torch.Tensor, weights: torch.Tensor) -> str:
    """What softmax made of a query that may look nowhere: "NaN", "as if unmasked", "uniform" or "rounding".

    scores, weights: tensors [key] of the same type, before the mask and after the softmax
    """
    if weights.isnan().any():
        return "NaN"
    if (weights.float() - scores.softmax(-1).float()).abs().max() < 0.005:
        return "as if unmasked"
    return "uniform" if (weights == weights[0]).all() else "rounding"


def attention_scores(model: Any, batch: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """The scores of all heads of one layer, scaled, before any mask: float32 [batch, head, query, key], CPU.

    model: of GPT-2's or Llama's architecture; its layer's own projections and rotary embedding are used
    batch: {"input_ids", "attention_mask"}, both LongTensor [batch, length]; positions count tokens only
    Raises CourseError for another architecture.
    """
    attention = _attention_layers(model)[layer]
    names = list(inspect.signature(attention.forward).parameters)
    found, thread = [], threading.get_ident()

    def watch(module, args, given):
        if threading.get_ident() == thread:  # a running cell may use the model at the same time
            found.extend(_projection(module)(module, dict(zip(names, args, strict=False)) | given))

    inputs = {**batch, "position_ids": position_ids(batch["attention_mask"])}
    hook = attention.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with torch.no_grad():
            model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}, use_cache=False)
            query, key = found
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # grouped queries share a key
            return (query @ key.transpose(-1, -2) * attention.scaling).float().cpu()
    finally:
        hook.remove()


def _attention_layers(model):
    """The attention of each layer: dict by its number. Raises CourseError for another architecture."""
    found = {module.layer_idx: module for module in model.modules() if _projection(module)}
    if not found:
        raise CourseError(
            f"MaskView reads the attention of GPT-2's and Llama's architecture, and {type(model).__name__} "
            'has neither. Give it load(), load("tiny-gpt2") or load("tiny-llama").'
        )
    return found


def _gpt2_projection(attention, inputs):
    query, key, _ = attention.c_attn(inputs["hidden_states"]).chunk(3, dim=-1)
    return [part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in (query, key)]


def _llama_projection(attention, inputs):
    hidden = inputs["hidden_states"]
    query, key = (
        projection(hidden).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj)
    )
    return apply_rotary_pos_emb(query, key, *inputs["position_embeddings"])


def _projection(module) -> Any:
    """The function that gives a module's queries and keys, each [batch, head, length, size], or None."""
    return {"GPT2Attention": _gpt2_projection, "LlamaAttention": _llama_projection}.get(type(module).__name__)
