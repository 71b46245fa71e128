"""The course's words: what each means here, what it means elsewhere, and the lesson that introduces it."""

import html
from dataclasses import dataclass

from ..lookup import with_code


@dataclass(frozen=True)
class Term:
    """word: str; here: str, its meaning in this course; elsewhere: str, what readers may know it as, "" if
    nothing else; lesson: str, the notebook whose text uses it so"""

    word: str
    here: str
    elsewhere: str
    lesson: str


TERMS = (
    Term("advantage", "the weight of a text's log probability: its reward minus a baseline", "in general reinforcement learning, Q − V: of an action in a state, not of a whole text", "09_training"),
    Term("attention mask", "1 for a token, 0 for padding: (batch, length)", "also what is added to attention scores: 0 and a large negative number", "02_padding"),
    Term("attention score", "query · key / √size, before the softmax", "sometimes the weight after it", "03_masks"),
    Term("baseline", "what is subtracted from a reward, and does not depend on that text's choice", "a simple method to compare with", "09_training"),
    Term("beam", "one of the texts that beam search keeps at a step", "the search as a whole", "06_decoding"),
    Term("begin token", "a token that some tokenizers put before every text: BOS, `<s>`", "the marker that opens a turn, which is another token in many models", "01_text_to_integers"),
    Term("bias", "the mean of an estimate minus the exact value", "a parameter added in a layer; prejudice in data", "09_training"),
    Term("cache", "the keys and values of the tokens read so far; `past_key_values` before 5.24", "the folder of downloaded models", "04_forward_pass"),
    Term("causal mask", "lets a token see itself and what stands before it", "nothing to do with causes", "03_masks"),
    Term("chat template", "the rule that writes a list of messages as one text", "a prompt with blanks to fill in", "11_chat"),
    Term("clip", "PPO's rule that drops a text's gradient once its ratio has moved far enough the right way", "cutting a gradient to a length (gradient clipping); OpenAI's image model CLIP", "10_ppo_grpo"),
    Term("cross entropy", "the mean of −log p of the right tokens: the loss of language models", "in theory, of two distributions: −Σ p log q", "04_forward_pass"),
    Term("decode", "one pass a new token, after prefill", "turning ids into text: `tokenizer.decode`", "05_generate"),
    Term("end-of-text", "the token that ends a text, GPT-2's 50256", "EOS; in chats also the end of a turn, which may be another token", "02_padding"),
    Term("entropy", "how uncertain a distribution is: −Σ p log p, in bits or nats", "disorder, in physics", "06_decoding"),
    Term("exposure bias", "in training a model sees only right texts, in use its own mistakes", "biased data", "09_training"),
    Term("forward pass", "one call of the model: ids in, logits out", "", "04_forward_pass"),
    Term("gap", "the largest logit minus the second: how much rounding may move before greedy decoding turns", "", "12_rounding"),
    Term("generation config", "the defaults of `generate()` that come with a model", "the model's own configuration, of its sizes", "02_padding"),
    Term("generation prompt", "the header of the assistant's turn, at the end of a rendered chat", "the whole text that is continued", "11_chat"),
    Term("graph", "in an ONNX file, the operations and their weights", "PyTorch's record of what a gradient goes back through", "13_without_pytorch"),
    Term("greedy", "always the likeliest token", "an algorithm that takes the best next step, in general", "00_start_here"),
    Term("group", "the texts drawn for one prompt", "rows of a batch; groups of beams", "10_ppo_grpo"),
    Term("Gumbel", "noise −log(−log u): the argmax of logits plus it is a draw from their softmax", "Gumbel-softmax, a soft version that carries a gradient", "06_decoding"),
    Term("head", "in attention, one of several sets of queries, keys and values", "the last layer, hidden states to logits: `lm_head`", "03_masks"),
    Term("hidden state", "a token's vector between the layers", "what a recurrent network carries along", "04_forward_pass"),
    Term("id", "a token's row number in the vocabulary", "a name of an object", "01_text_to_integers"),
    Term("index", "a place in a row, padding included", "often the same as a position", "02_padding"),
    Term("KL", "a mean log ratio of two distributions: how far the policy has moved", "it is not symmetric: which of the two is averaged over must be said", "10_ppo_grpo"),
    Term("labels", "the ids to be predicted, −100 where nothing is", "in the library unshifted: the model shifts them", "02_padding"),
    Term("log probability", "the natural logarithm of a probability: 0 or less, added up along a text", "with base 2, in bits, as minus the surprise", "07_scores"),
    Term("logits", "the model's numbers before the softmax, one a token of the vocabulary", "in statistics, the log odds of one probability", "04_forward_pass"),
    Term("logits processor", "changes the row of logits before the choice; older: warper", "a processor of images or sound, in the library", "05_generate"),
    Term("perplexity", "exp of the mean surprise in nats", "of another tokenizer's tokens it cannot be compared", "07_scores"),
    Term("policy", "the model that writes, seen as a distribution over texts", "a company's rules", "09_training"),
    Term("position ids", "which position each token is taken to have: counted without padding", "the index in the row", "02_padding"),
    Term("prefill", "the first pass, over the whole prompt", "a begun reply that the model is to continue", "05_generate"),
    Term("prompt", "the ids that `generate()` is given", "what a user types, without the template around it", "02_padding"),
    Term("ratio", "new probability of a text or token over the old one", "", "10_ppo_grpo"),
    Term("REINFORCE", "the mean of reward times ∇ log p over drawn texts", "reinforcement learning as a whole", "09_training"),
    Term("reward hacking", "a high reward earned against the intention", "breaking into a computer", "09_training"),
    Term("sampling", "drawing a token from the distribution", "choosing a part of a data set", "06_decoding"),
    Term("scores", "`output.scores`: the logits after all processors", "attention scores; the sum of a beam; a grade of an evaluation", "07_scores"),
    Term("sequence score", "a beam's sum of log probabilities over a power of its length", "", "07_scores"),
    Term("special token", "matched in the text before anything is merged: end-of-text, markers of turns", "any rare token", "01_text_to_integers"),
    Term("straight-through", "forwards the hard choice, backwards the gradient of the soft one", "the quantiser's rule in other networks", "08_argmax"),
    Term("surprise", "−log p of a token, in bits or nats", "information content; negative log likelihood", "07_scores"),
    Term("teacher forcing", "the known answer is read in one pass, and each of its tokens is scored", "a schedule in training recurrent networks", "08_argmax"),
    Term("temperature", "divides the logits: below 1 sharper, above 1 flatter", "often described as \"creativity\"", "00_start_here"),
    Term("token", "a piece of text with a number: the unit that a model reads", "a password for a web service", "01_text_to_integers"),
    Term("top-k", "only the k likeliest tokens may be drawn", "the k best results of a search", "06_decoding"),
    Term("top-p", "the fewest likely tokens whose probabilities reach p; nucleus", "", "06_decoding"),
    Term("turn", "one message of a chat, from its marker to its end", "a question and its answer together", "11_chat"),
    Term("vocabulary", "all tokens of a tokenizer with their ids", "the words that somebody knows", "01_text_to_integers"),
)  # fmt: skip


@dataclass(frozen=True)
class Glossary:
    """The terms as a notebook shows them."""

    terms: tuple[Term, ...] = TERMS

    def __len__(self):
        return len(self.terms)

    def __repr__(self):
        return f"{len(self)} terms, from {self.terms[0].word!r} to {self.terms[-1].word!r}"

    def _repr_html_(self):
        rows = "".join(
            f"<tr><th scope=row>{html.escape(t.word)}<td>{with_code(t.here)}<td>{with_code(t.elsewhere)}"
            f"<td>{t.lesson.partition('_')[0]}"
            for t in self.terms
        )
        heads = "".join(f"<th scope=col>{head}" for head in ("Word", "Here", "Elsewhere", "Lesson"))
        return f'<table style="text-align:left"><thead><tr>{heads}</thead><tbody>{rows}</tbody></table>'


def glossary() -> Glossary:
    """The course's words with their meanings here and elsewhere: a Glossary, a table in a notebook."""
    return Glossary()
