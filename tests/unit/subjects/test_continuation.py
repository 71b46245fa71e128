"""course_utils.continuation: what ids add to the text before them, whatever the tokenizer's decoder drops."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from course_utils import load_tokenizer
from course_utils.continuation import continuation
from course_utils.texts import varied_texts
from course_utils.training import sample
from course_utils.widgets import NextToken

PROMPT, WORDS = "The capital is", ["The", "capital", "is", "Paris", "."]


def metaspace(**options):
    vocabulary = {"<unk>": 0, "</s>": 1, **{f"▁{word}": 2 + at for at, word in enumerate(WORDS)}}
    backend = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", **options)


def unigram():
    pieces = [("<unk>", 0.0), *((f"▁{word}", -1.0) for word in WORDS), (".", -1.5), ("▁", -3.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def llama_2():
    """Its space is put in by the normalizer, and taken off again by Strip."""
    tokenizer = metaspace(bos_token="<unk>")
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing("<unk> $0", special_tokens=[("<unk>", 0)])
    return tokenizer


def wordpiece(**options):
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, **{word.lower(): 3 + at for at, word in enumerate(WORDS)}}
    backend = Tokenizer(models.WordPiece(words | {"##ian": 8}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $0 [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", **options)


TOKENIZERS = {
    "Metaspace": (metaspace, ["▁Paris", "▁."], " Paris ."),
    "Unigram": (unigram, ["▁Paris", "."], " Paris."),
    "Llama 2": (llama_2, ["▁Paris", "▁."], " Paris ."),
    "WordPiece": (wordpiece, ["paris", "##ian", "."], " parisian ."),
    "WordPiece, cleaned": (lambda: wordpiece(clean_up_tokenization_spaces=True), ["paris", "."], " paris."),
}


def model(vocabulary):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **small)).eval()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_next_tokens_text_has_the_space_before_what_was_chosen(name):
    make, tokens, expected = TOKENIZERS[name]
    tokenizer = make()
    widget = NextToken(model(len(tokenizer)), tokenizer, PROMPT)
    chosen = tokenizer.convert_tokens_to_ids(tokens)
    assert widget.text == PROMPT
    widget.answer({"prompt": PROMPT, "chosen": chosen})
    assert widget.text == PROMPT + expected
    assert repr(PROMPT + expected) in widget.summary()
    widget.answer({"prompt": PROMPT, "chosen": chosen[:1]})
    assert widget.text == PROMPT + " " + tokens[0].strip("▁")


def test_the_texts_that_are_rewarded_have_it_too():
    tokenizer = metaspace()
    drawn = sample(model(len(tokenizer)), tokenizer, PROMPT, 40, new_tokens=2, temperature=1.0, seed=0)
    words = {f" {word}" for word in WORDS}
    assert len(words & set(drawn.texts)) > 1  # one word, then the end
    for text in drawn.texts:
        assert text == "" or text[0] in " <", text


def test_byte_level_tokens_add_what_they_are_alone():
    for name in ("gpt2", None):
        tokenizer = load_tokenizer(name) if name else load_tokenizer()
        prompt = tokenizer(PROMPT).input_ids
        for text in varied_texts(60):
            ids = tokenizer(text).input_ids
            for given in (ids, tuple(ids), torch.tensor(ids, dtype=torch.long)):
                assert continuation(tokenizer, prompt, given) == tokenizer.decode(ids)


def test_a_decoder_that_changes_the_text_before_it_is_asked_for_the_rest_alone():
    class Cleaning:
        def decode(self, ids):
            return " ".join(["it", "'", "s"][: len(ids)]).replace("it ' s", "it's") if len(ids) > 1 else "s"

    assert continuation(Cleaning(), [0, 1], [2]) == "s"
