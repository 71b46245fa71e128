"""course_utils.tokens: every step of byte-level BPE, held to the library on many strings."""

from itertools import pairwise

import pytest

from course_utils import CourseError, load_tokenizer
from course_utils.texts import SENTENCES, varied_texts
from course_utils.tokens import BytePairEncoder, byte_symbols, symbols_to_bytes


@pytest.fixture(scope="module", params=["gpt2", "smollm2-135m"])
def tokenizer(request):
    return load_tokenizer(request.param)


@pytest.fixture(scope="module")
def gpt2():
    return BytePairEncoder.from_tokenizer(load_tokenizer("gpt2"))


def test_encoder_equals_the_library_on_1200_varied_strings(tokenizer):
    encoder = BytePairEncoder.from_tokenizer(tokenizer)
    for text in varied_texts(1200):
        assert encoder.encode(text) == tokenizer(text, add_special_tokens=False).input_ids, ascii(text)


def test_varied_texts_are_different_repeatable_and_broad():
    texts = varied_texts(1200)
    assert len(set(texts)) == 1200
    assert texts == varied_texts(1200)
    assert texts != varied_texts(1200, seed=1)
    everything = "".join(texts)
    for sample in ["<|endoftext|>", "🙂", "\t", "\u200b", *SENTENCES.values()]:
        assert sample in everything


def test_byte_symbols_are_256_printable_characters():
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256))
    assert len(set(symbols.values())) == 256
    assert (symbols[ord(" ")], symbols[ord("\n")], symbols[ord("A")]) == ("Ġ", "Ċ", "A")
    assert not any(symbol.isspace() for symbol in symbols.values())


def test_work_of_one_word_shows_merges_in_the_order_they_are_made(gpt2):
    (piece,) = gpt2.encode_and_show_work("strawberry")
    assert piece.symbols == tuple("strawberry")
    assert [token.symbol for token in piece.tokens] == ["st", "raw", "berry"]
    replayed = list(piece.symbols)
    for merge in piece.merges:
        at = list(pairwise(replayed)).index((merge.left, merge.right))
        replayed[at : at + 2] = [merge.result]
        assert merge.result == merge.left + merge.right
        assert gpt2.ranks[merge.left, merge.right] == merge.rank
    assert replayed == [token.symbol for token in piece.tokens]


def test_pieces_and_tokens_put_together_give_the_text_back(gpt2):
    for text in varied_texts(300, seed=3):
        pieces = gpt2.encode_and_show_work(text)
        assert "".join(piece.text for piece in pieces) == text
        assert b"".join(token.bytes for piece in pieces for token in piece.tokens) == text.encode()


def test_a_token_may_be_a_part_of_a_character(gpt2):
    tokens = [token for piece in gpt2.encode_and_show_work("👍🏽") for token in piece.tokens]
    assert len(tokens) > 2
    assert "\ufffd" in tokens[0].text
    assert b"".join(token.bytes for token in tokens).decode() == "👍🏽"


def test_special_tokens_are_matched_before_bpe(gpt2):
    pieces = gpt2.encode_and_show_work("a<|endoftext|>b")
    special = pieces[1].tokens[0]
    assert (special.id, special.special, special.bytes) == (50256, True, b"<|endoftext|>")
    assert pieces[1].merges == ()
    assert not gpt2.encode_and_show_work("<|endoftext")[0].tokens[0].special


def test_longest_special_token_wins():
    encoder = BytePairEncoder({}, [], {"<a>": 0, "<a><b>": 1}, pre_tokenize=lambda text: [])
    assert encoder.encode("<a><b><a>") == [1, 0]


def test_piece_in_the_vocabulary_is_taken_whole_when_merges_are_ignored():
    def whole(text):
        return [(text, (0, len(text)))]

    vocabulary = {"a": 0, "b": 1, "ab": 2}
    assert BytePairEncoder(vocabulary, [], {}, whole).encode("ab") == [0, 1]
    assert BytePairEncoder(vocabulary, [], {}, whole, ignore_merges=True).encode("ab") == [2]


def test_byte_without_an_entry_is_left_out_before_merging():
    def whole(text):
        return [(text, (0, len(text)))]

    encoder = BytePairEncoder({"a": 0, "b": 1, "ab": 2}, [("a", "b")], {}, whole)
    (piece,) = encoder.encode_and_show_work("a!b")
    assert piece.symbols == ("a", "!", "b")
    assert [token.id for token in piece.tokens] == [2]


def test_half_a_surrogate_pair_gets_a_sentence(gpt2):
    with pytest.raises(CourseError, match=r"Character 3 of the text is U\+D83D"):
        gpt2.encode("hi\ud83d")


def test_empty_text_has_no_pieces(gpt2):
    assert gpt2.encode_and_show_work("") == []


def test_other_kinds_of_tokenizer_get_a_sentence():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(CourseError, match="not a byte-level BPE"):
        BytePairEncoder.from_tokenizer(words)
    with pytest.raises(CourseError, match="no Rust tokenizer"):
        BytePairEncoder.from_tokenizer(object())


def test_symbols_that_stand_for_no_byte_are_refused():
    with pytest.raises(KeyError):
        symbols_to_bytes("€")
