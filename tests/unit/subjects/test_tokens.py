"""course_utils.tokens: every step of byte-level BPE, held to the library on many strings."""

import json
import random
from itertools import pairwise, product

import pytest
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from course_utils import CourseError, load_tokenizer
from course_utils.texts import SENTENCES, varied_texts
from course_utils.tokens import BytePairEncoder, byte_symbols, merges_of_tokens, symbols_to_bytes


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


NORMALIZERS = {
    "none": None,
    "empty": normalizers.Sequence([]),  # DeepSeek
    "NFC": normalizers.NFC(),  # Qwen, GPT-NeoX, OLMo, ModernBERT, Cohere
    "NFD": normalizers.NFD(),
    "NFKC, then small letters": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "strip": normalizers.Strip(),
    "space in front": normalizers.Prepend(" "),
    "bytes": normalizers.ByteLevel(),
}
ADDED = [
    AddedToken("<mask>", lstrip=True, normalized=False),  # RoBERTa, BART, Blenderbot, ModernBERT
    AddedToken("<sep>", rstrip=True, normalized=False),
    AddedToken("whole", single_word=True, normalized=True),
    AddedToken("LOUD", normalized=True),
    AddedToken("é", normalized=False),  # GPT-2 has an entry that is spelled so, for byte E9
]
NEAR_ADDED = [
    *(token.content for token in ADDED),
    "loud",
    "e\u0301",
    "\u0301",
    " ",
    " \u3000",
    "\n",
    "a",
    "_",
]


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_and_added_tokens_of_every_kind_are_the_librarys(name):
    tokenizer = load_tokenizer("gpt2")
    backend = tokenizer.backend_tokenizer
    if NORMALIZERS[name]:
        backend.normalizer = NORMALIZERS[name]
    if name == "bytes":
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("Ġ?[^Ġ]+"), "isolated")
    backend.add_tokens(ADDED)
    encoder, draw = BytePairEncoder.from_tokenizer(tokenizer), random.Random(0)
    near = ["".join(draw.choices(NEAR_ADDED, k=draw.randint(1, 6))) for _ in range(300)]
    for text in [*varied_texts(150, seed=2), *near]:
        pieces = encoder.encode_and_show_work(text)
        ids = [token.id for piece in pieces for token in piece.tokens]
        assert ids == tokenizer(text, add_special_tokens=False).input_ids, ascii(text)
        if name != "strip":
            assert "".join(piece.text for piece in pieces) == text, ascii(text)


def test_tokenizers_of_other_models_have_the_librarys_ids(gpt2):
    merges = list(gpt2.ranks)[:1000]  # fewer are built faster
    entries = [*byte_symbols().values(), *map("".join, merges)]
    arguments = {"vocab": {entry: number for number, entry in enumerate(entries)}, "merges": merges}
    around = ["a <mask> b", "<mask>", " \t<mask>\n", "e\u0301", "Hello<s>world", "<|im_end|>"]
    for name in ("Qwen2", "GPTNeoX", "Cohere", "Blenderbot", "Roberta", "Bart", "Deberta", "Whisper"):
        tokenizer = getattr(transformers, f"{name}Tokenizer")(**arguments)
        encoder = BytePairEncoder.from_tokenizer(tokenizer)
        for text in [*varied_texts(100, seed=4), *around]:
            assert encoder.encode(text) == tokenizer(text, add_special_tokens=False).input_ids, (name, text)


def test_white_space_that_goes_with_a_special_token_is_in_its_piece():
    tokenizer = load_tokenizer("gpt2")
    tokenizer.backend_tokenizer.add_tokens(ADDED)
    pieces = BytePairEncoder.from_tokenizer(tokenizer).encode_and_show_work("a  <mask> b")
    assert [piece.text for piece in pieces] == ["a", "  <mask>", " b"]
    (token,) = pieces[1].tokens
    assert (token.symbol, token.bytes, token.special) == ("<mask>", b"<mask>", True)


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
        assert merge.start == len("".join(replayed[:at]))
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


def whole(text):
    return [(text, (0, len(text)))]


def test_longest_special_token_wins():
    encoder = BytePairEncoder({}, [], {"<a>": 0, "<a><b>": 1}, pre_tokenize=lambda text: [])
    assert encoder.encode("<a><b><a>") == [1, 0]


def test_piece_in_the_vocabulary_is_taken_whole_when_merges_are_ignored():
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    assert BytePairEncoder(vocabulary, [], {}, whole).encode("ab") == [0, 1]
    assert BytePairEncoder(vocabulary, [], {}, whole, ignore_merges=True).encode("ab") == [2]


def test_byte_without_an_entry_is_left_out_before_merging():
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    encoder = BytePairEncoder(vocabulary, [("a", "b")], {}, whole)
    (piece,) = encoder.encode_and_show_work("a!b")
    assert piece.symbols == ("a", "!", "b")
    assert [token.id for token in piece.tokens] == [2]
    (piece,) = encoder.encode_and_show_work("!a!b!b!!ab")
    assert [token.symbol for token in piece.tokens] == ["ab", "b", "ab"]
    assert [[merge.result for merge in made] for made in merges_of_tokens(piece)] == [["ab"], [], ["ab"]]
    (piece,) = encoder.encode_and_show_work("!!")
    assert (piece.tokens, merges_of_tokens(piece)) == ((), [])


def test_merges_of_tokens_where_the_vocabulary_lacks_bytes():
    # The low halves of – — ” in text cut out of PDFs, every other control, and planes without an entry.
    tokenizer = load_tokenizer("smollm2-135m")
    encoder = BytePairEncoder.from_tokenizer(tokenizer)
    odd = [*map(chr, range(32)), "\x7f", *(chr(plane << 16 | 0x4142) for plane in range(1, 17))]
    lacking = 0
    for character, around in product(odd, [("well ", "-- yes"), ("", "word"), ("don", "'t"), ("", "")]):
        text = character.join(around)
        pieces = encoder.encode_and_show_work(text)
        tokens = [token for piece in pieces for token in piece.tokens]
        assert [token.id for token in tokens] == tokenizer(text).input_ids, ascii(text)
        lacking += b"".join(token.bytes for token in tokens) != text.encode()
        for piece in pieces:
            for token, made in zip(piece.tokens, merges_of_tokens(piece), strict=True):
                assert len(made) == len(token.symbol) - 1, ascii(text)
                assert not made or made[-1].result == token.symbol, ascii(text)
    assert lacking > 40


def test_merging_is_the_plain_loop_for_any_ranks():
    # Learned merges come after their parts; a queue has to do without that.
    draw = random.Random(0)
    for _ in range(300):
        entries, merges = ["a", "b", "c"], []
        for _ in range(draw.randint(1, 8)):
            pair = (draw.choice(entries), draw.choice(entries))
            if pair not in merges:
                merges.append(pair)
                entries.append("".join(pair))
        draw.shuffle(merges)
        vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        (piece,) = BytePairEncoder(vocabulary, merges, {}, whole).encode_and_show_work(
            "".join(draw.choices("abc", k=30))
        )
        symbols, made = list(piece.symbols), []
        while ranked := [pair for pair in pairwise(symbols) if pair in merges]:
            best = min(ranked, key=merges.index)
            at = list(pairwise(symbols)).index(best)
            symbols[at : at + 2] = ["".join(best)]
            made.append(best)
        assert [token.symbol for token in piece.tokens] == symbols
        assert [(merge.left, merge.right) for merge in piece.merges] == made


@pytest.mark.parametrize("character", ["🙂", "字", "a"])
def test_the_work_for_a_long_piece_grows_with_its_length(character):
    class Counting(dict):
        asked = 0

        def get(self, *pair):
            self.asked += 1
            return super().get(*pair)

        def __contains__(self, pair):
            self.asked += 1
            return super().__contains__(pair)

    encoder = BytePairEncoder.from_tokenizer(load_tokenizer("gpt2"))
    encoder.ranks = Counting(encoder.ranks)
    encoder.encode(character * 2000)
    assert 1000 < encoder.ranks.asked < 10 * len(character.encode()) * 2000


def test_half_a_surrogate_pair_gets_a_sentence(gpt2):
    with pytest.raises(CourseError, match=r"Character 3 of the text is U\+D83D"):
        gpt2.encode("hi\ud83d")


def test_empty_text_has_no_pieces(gpt2):
    assert gpt2.encode_and_show_work("") == []


def fast(model, pre_tokenizer=None):
    backend = Tokenizer(model)
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_other_kinds_of_tokenizer_get_a_sentence():
    for tokenizer in (
        fast(models.WordLevel({"a": 0}, unk_token="a")),
        fast(models.BPE({"a": 0}, [])),
        fast(models.BPE({"a": 0}, []), pre_tokenizers.Metaspace()),
        fast(models.Unigram([("a", -1.0)]), pre_tokenizers.ByteLevel()),
    ):
        with pytest.raises(CourseError, match="not a byte-level BPE"):
            BytePairEncoder.from_tokenizer(tokenizer)
    with pytest.raises(CourseError, match="no Rust tokenizer"):
        BytePairEncoder.from_tokenizer(object())


def test_a_byte_level_bpe_that_cannot_be_followed_is_not_called_another_kind():
    few, all_bytes = {"a": 0, "<unk>": 1}, {symbol: byte for byte, symbol in byte_symbols().items()}
    for model, part in (
        (models.BPE(few, [], unk_token="<unk>"), "no entry (unk_token)"),
        (models.BPE(few, [], byte_fallback=True), "no entry (byte_fallback)"),
        (models.BPE(all_bytes, [], dropout=0.1), "at random (dropout)"),
        (models.BPE(all_bytes, [], end_of_word_suffix="</w>"), "adds '</w>' to the parts of a word"),
        (models.BPE(all_bytes, [], continuing_subword_prefix="##"), "adds '##' to the parts of a word"),
    ):
        with pytest.raises(CourseError) as refused:
            BytePairEncoder.from_tokenizer(fast(model, pre_tokenizers.ByteLevel()))
        assert part in str(refused.value)
        assert "and BytePairEncoder does not." in str(refused.value)
        assert "not a byte-level" not in str(refused.value)


def test_an_unknown_token_is_no_hindrance_where_every_byte_has_an_entry():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()  # with a space before the text, as Blenderbot's
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES.values(), trainer)
    assert json.loads(backend.to_str())["model"]["unk_token"] == "<unk>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    encoder = BytePairEncoder.from_tokenizer(tokenizer)
    for text in varied_texts(300, seed=5):
        assert encoder.encode(text) == tokenizer(text).input_ids, ascii(text)


def test_symbols_that_stand_for_no_byte_are_refused():
    with pytest.raises(KeyError):
        symbols_to_bytes("€")
