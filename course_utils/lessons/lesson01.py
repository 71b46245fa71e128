"""Lesson 01: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, pairwise

from ..checks.exercise import Mistake, exercise, expect_equal
from ..checks.quiz import NumberPrediction, Option, Prediction, Question
from ..models import load_tokenizer
from ..texts import SENTENCES, varied_texts
from ..tokens import BytePairEncoder, byte_symbols, symbols_to_bytes
from .fixtures import usable

# ---- predictions -------------------------------------------------------------------------------------


def _gpt2():
    return load_tokenizer("gpt2")


predict_space = Prediction(
    "01/predict-space",
    "`Hello world` is `[15496, 995]`. What are the ids with a leading space: ` Hello world`?",
    options=(
        Option(
            "The same two ids",
            "Some tokenizers drop leading white space. GPT-2's keeps every byte: its ids give back the exact text.",
            value=[15496, 995],
        ),
        Option(
            "Three ids: one for the space, then the same two",
            "A space on its own has the id 220. Here the space and the word share one entry.",
            value=[220, 15496, 995],
        ),
        Option(
            "Two ids, the first one different",
            "The space joins the word after it, and `Hello` after a space is an entry of its own.",
            right=True,
            value=[18435, 995],
        ),
        Option(
            "Two ids, both different",
            "The second word follows a space in both texts, so nothing changes for it.",
        ),
    ),
    proof=lambda: _gpt2()(" Hello world").input_ids,
)

predict_strawberry = Prediction(
    "01/predict-strawberry",
    "`longest_match` gives `stra`, `wb`, `erry`. What does GPT-2's own tokenizer give for `strawberry`?",
    options=(
        Option(
            "`stra` `wb` `erry`",
            "The vocabulary has these entries, but the tokenizer does not look for long ones.",
            value=["stra", "wb", "erry"],
        ),
        Option(
            "`st` `raw` `berry`",
            "This follows from the order in which the merges were learned, as the next cells show.",
            right=True,
            value=["st", "raw", "berry"],
        ),
        Option(
            "`str` `aw` `berry`",
            "These are entries too. Which of the many possible splits you get depends on the order of the merges.",
            value=["str", "aw", "berry"],
        ),
        Option(
            "One token for each letter, since the word has no entry",
            "That is where merging starts. It continues as long as a neighbouring pair has a rank.",
            value=list("strawberry"),
        ),
    ),
    proof=lambda: _gpt2().tokenize("strawberry"),
)

predict_pieces = Prediction(
    "01/predict-pieces",
    "Which of the four texts get different tokens when each is merged as one long piece?",
    options=(
        Option(
            "None: the pattern only saves time",
            "Most boundaries would hold without it, but not all: look at the empty line and at the quotation mark.",
            value=[],
        ),
        Option(
            "The first and the last, for their apostrophes",
            "The `'t` of `don't` stays separate either way, since no merge joins it to `don`.",
            value=[0, 3],
        ),
        Option(
            "The last two, for the line feeds and the quotation mark",
            "Most pairs that meet at a boundary have no rank. These two pairs also occur within pieces, so they have one.",
            right=True,
            value=[2, 3],
        ),
        Option(
            "All of them: merges now run across words",
            "They could only do so if such merges had been learned, and training saw only pieces.",
            value=[0, 1, 2, 3],
        ),
    ),
    proof=lambda: _changed_without_pieces(
        [
            "I don't owe you 20 dollars!",
            "It rained. We left.",
            "It rained.\n\nWe left.",
            "She said 'they left'",
        ]
    ),
)

predict_special = Prediction(
    "01/predict-special",
    "What does the library turn the 13 characters `<|endoftext|>` in a text into?",
    options=(
        Option(
            "Seven plain tokens: `<`, `|`, `end`, ...",
            "That is what a careful service wants. The library does this only when told to.",
            value=[27, 91, 437, 1659, 5239, 91, 29],
        ),
        Option(
            "The one id 50256",
            "The library looks for special tokens first, in every text, whoever wrote it.",
            right=True,
            value=[50256],
        ),
        Option(
            "An error: special tokens may not be typed",
            "Nothing stops you, or anyone who types into your service.",
        ),
        Option(
            "Nothing: it is removed", "That is `skip_special_tokens=True`, an option of `decode`.", value=[]
        ),
    ),
    proof=lambda: _gpt2()("<|endoftext|>").input_ids,
)

predict_hindi = NumberPrediction(
    "01/predict-hindi",
    "GPT-2 needs 13 tokens for the English sentence. How many does it need for the Hindi one? A guess within 25 counts as right.",
    key=139,
    tolerance=25,
    unit="tokens",
    why="More tokens than characters: each character is three bytes, the pattern cuts words at vowel signs, and few pairs of bytes were merged.",
    wrong=(
        (
            (1, 30),
            "That would take merges for whole Hindi words, but the training text contained little Hindi.",
        ),
        (
            (31, 113),
            "The unit is not the character. Each of these takes three bytes, and merging starts from bytes.",
        ),
        (
            (165, 400),
            "Without any merges it would be 233, one for each byte. Some pairs were frequent enough to be merged.",
        ),
    ),
    otherwise="Between 1 and 233: there cannot be more tokens than bytes.",
    proof=lambda: len(_gpt2()(SENTENCES["Hindi"]).input_ids),
)


def _changed_without_pieces(texts):
    """The indices of the texts whose ids change when each is merged as one piece: list of int."""
    encoder = BytePairEncoder.from_tokenizer(_gpt2())
    whole = BytePairEncoder(
        encoder.vocabulary,
        list(encoder.ranks),
        encoder.special_ids,
        lambda text: [("".join(byte_symbols()[byte] for byte in text.encode()), (0, len(text)))],
    )
    return [place for place, text in enumerate(texts) if whole.encode(text) != encoder.encode(text)]


# ---- exercises ---------------------------------------------------------------------------------------


@exercise("01/to-text", title="Turn tokens back into text", minutes=5, difficulty=2)
def check_to_text(answer):
    """Printable symbols to bytes, all bytes together, then one decode."""
    for tokens in [
        ["Hello", "Ġworld"],
        ["Ġcaf", "Ã©", "Ċ"],
        ["ðŁ", "ĻĤ"],
        ["ðŁ"],
        ["Ã", "Ã", "a"],
        ["a", "č", "Ċ", "Ā"],
        [],
    ]:
        joined = "".join(tokens)
        want = symbols_to_bytes(joined).decode(errors="replace")
        alone = "".join(symbols_to_bytes(token).decode(errors="replace") for token in tokens)
        expect_equal(
            answer(tokens),
            want,
            (tokens,),
            "Turn each symbol into its byte, then decode all bytes at once.",
            mistakes=[
                (
                    alone,
                    "Each token was decoded alone. A character may be split between two tokens: collect all bytes first.",
                ),
                (
                    joined,
                    "These are still symbols, not text: look each of them up in the reversed map.",
                ),
                (
                    joined.replace("Ġ", " "),
                    "Only the space was converted; every other symbol stands for a byte too.",
                ),
                (
                    " ".join(tokens),
                    "The tokens were joined with spaces. Spaces are in the tokens already, as `Ġ`.",
                ),
                (want.encode(), "These are the bytes. The last step is `decode(errors='replace')`."),
                (
                    want.strip() if want.strip() != want else None,
                    "White space at the ends belongs to the text: do not strip it.",
                ),
                (
                    lambda got: (
                        isinstance(got, str) and got == symbols_to_bytes(joined).decode(errors="ignore")
                    ),
                    "Bytes that do not form a character should become U+FFFD: `errors='replace'`, not 'ignore'.",
                ),
            ],
        )
    return "Symbols became bytes, and bytes became text, including emoji and half an emoji."


@exercise("01/merge-word", title="Merge the symbols of a word", minutes=12, difficulty=2)
def check_merge_word(answer):
    """Byte-pair encoding of one word: the pair of lowest rank first, until no pair has a rank."""
    chain = {("b", "c"): 0, ("a", "b"): 1, ("bc", "d"): 2, ("ab", "c"): 3}
    for symbols, rank in [
        (list("strawberry"), _ranks_within("strawberry")),
        (list("abcd"), chain),
        (list("lowest"), {("e", "s"): 0, ("es", "t"): 1, ("l", "o"): 2, ("lo", "w"): 3}),
        (list("abxab"), {("a", "b"): 0}),
        (list("aaa"), {("a", "a"): 0}),
        (["xa", "b", "a", "b"], {("a", "b"): 0}),
        (list("the"), {("t", "x"): 0}),
        (["a"], {("a", "b"): 0}),
        ([], {("a", "b"): 0}),
    ]:
        want = _merge_word(symbols, rank)
        got = answer(symbols, rank)
        expect_equal(
            list(got) if isinstance(got, tuple | Iterator) else got,
            want,
            (symbols, rank),
            "Merge the pair with the lowest rank, and repeat until no pair has a rank.",
            mistakes=[
                ("".join(symbols), "This is one string. Return a list of tokens."),
                (" ".join(want), "This is one string. Return a list of tokens."),
                (symbols if symbols != want else None, "Nothing was merged. Look up each pair of neighbours, as a tuple, in `rank`."),
                (_merge_word(symbols, rank, choose=lambda ranked: max(ranked, key=lambda one: (one[0], -one[1]))), "The highest rank was merged first. Rank 0 was learned first: take the lowest."),
                (_merge_word(symbols, rank, times=1), "Only one merge was made. Repeat until no pair has a rank."),
                (_merge_word(symbols, rank, choose=lambda ranked: min(ranked, key=lambda one: one[1])), "The leftmost pair was merged first. Of all pairs in the word, take the one with the lowest rank."),
                (_longest_entries(symbols, rank), "This takes the longest entry that fits. Merge pairs, in the order of their ranks."),
                (_one_pass(symbols, rank), "Only the pairs of the beginning were looked at. A merge makes new pairs: collect them again after each."),
                (_merge_word(symbols, rank, choose=lambda ranked: min(ranked, key=lambda one: (one[0], -one[1]))), "Of equal pairs, the last was merged first. Go from left to right."),
                (_merged_in_text(symbols, rank), "A merge used part of a longer symbol: `a` + `b` must leave `xa` + `b` alone. Compare whole symbols."),
                (["".join(symbols)] if len(symbols) > 1 else None, "Everything was merged into one. Stop when no pair has a rank."),
                (_merge_word(symbols, _gpt2_ranks()), "These are the merges of GPT-2's own ranks. Use the `rank` that your function is given."),
            ],
        )  # fmt: skip
    return "Your function merges in the order in which the merges were learned. The encoder below runs on it."


def usable_merge_word(yours):
    """The learner's `merge_word` if it passes its check, else the course's own. Prints which; never raises."""
    return usable(check_merge_word, yours, _merge_word, "merge_word")


@exercise("01/learn-merges", title="Learn merges from word counts", minutes=20, difficulty=3)
def check_learn_merges(answer):
    """Byte-pair encoding's training, on counts without ties."""
    for counts, number in [
        ({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 1),
        ({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 4),
        ({"ab": 1, "abc": 1, "abd": 1, "cd": 9}, 2),
        ({"aaaa": 3}, 3),
        ({"anan": 3, "xy": 5}, 2),
        ({"ab": 1}, 1),
        ({"AB": 4, "ab": 3, "abc": 2}, 2),
        ({"xa": 20, "ab": 15, "xab": 9}, 3),
        ({"go": 2}, 5),
    ]:
        want = _learned(counts, number)
        expect_equal(
            _as_pairs(answer(counts, number)),
            want,
            (counts, number),
            "Count pairs, merge the most frequent one everywhere, count again.",
            mistakes=[
                (_learned(dict.fromkeys(counts, 1), number), "Each word was counted once. A pair counts as often as its word does."),
                ([want[0]] * number, "The same pair wins every time: replace it in the words before you count again."),
                (_learned(counts, number, join=_replace_in_text), "A merge used part of a longer symbol: `a` + `b` must leave `xa` + `b` alone. Compare whole symbols."),
                (_first_count(counts, number), "The pairs were counted only once. After a merge, new pairs exist: count again."),
                (_learned(counts, number, once=True), "A pair that occurs twice in a word counts twice: do not collect a word's pairs in a set."),
                (_learned(_lowered(counts), number), "The letters were converted to lower case. `A` and `a` are two characters, with different bytes."),
                (["".join(pair) for pair in want], "Return the pairs, as tuples of two strings, not the joined symbols."),
                (_learned(counts, number, join=_overlapping), "In `aaaa` the pair `a` + `a` fits twice, not three times: after a merge, continue with the symbol that follows it."),
                (_across_words(counts, number), "Pairs were counted across words. The last character of one word is not a neighbour of the next word's first."),
                (_learned(counts, number + 1) if len(_learned(counts, number + 1)) > number else None, "There is one merge too many: return `number` of them."),
                ([], "No merge was returned. A pair may be merged even if it occurs only once."),
                (lambda got: isinstance(got, list) and len(got) < len(want) and got == want[: len(got)], "The first merges are right, but it stops too early."),
            ],
        )  # fmt: skip
    return "Your training learns the same merges in the same order: it uses the counts, and handles repeats and word boundaries."


@exercise("01/shorten", title="Fit a prompt into a limit of tokens", minutes=8, difficulty=2)
def check_shorten(answer):
    """The longest beginning that fits, where the number of tokens does not grow steadily."""
    gpt2 = _gpt2()

    def tokens(text):
        return len(gpt2(text).input_ids)

    for text, limit in [
        ("Hello world, how are you?", 3),
        ("🙂🙂🙂", 3),
        ("It rained.\n\nWe left.", 5),
        ("Hello world", 20),
        ("2026", 2),
        (" raspberry strawberry", 3),
        (" strawberry", 1),
        ("Hello<|endoftext|> world", 2),
        ("Hello", 0),
    ]:
        fits = [text[:n] for n in range(len(text) + 1) if tokens(text[:n]) <= limit]
        first_too_long = next((n for n in range(len(text) + 1) if tokens(text[:n]) > limit), len(text) + 1)
        ids = gpt2(text).input_ids
        got = answer(text, limit)
        if isinstance(got, str) and not text.startswith(got) and "\ufffd" not in got:
            raise Mistake(
                f"For input {text!r}, {limit} your result {got!r} is not the beginning of the text."
            )
        expect_equal(
            got,
            fits[-1],
            (text, limit),
            "Try each beginning of the text, and keep the longest that fits.",
            mistakes=[
                (lambda got: isinstance(got, str) and "\ufffd" in got, "The ids were cut in the middle of a character. Cut the text, then count its ids."),
                (_plain(text, limit, gpt2) if "<|" in text else None, "The special token was counted as plain characters. Count `gpt2(...).input_ids`, as a model would get them."),
                (text[: first_too_long - 1], "It stops at the first beginning that is too long, but a longer one fits again. Start from the whole text and shorten it."),
                (_binary_search(text, limit, tokens), "A binary search needs a count that always grows, and this one does not. Start from the whole text and shorten it."),
                (gpt2.decode(ids[:limit]).rstrip("\ufffd"), "This is the text of the first `limit` ids. But the ids of a beginning may differ from the first ids of the whole text: count the ids of what you return."),
                (text[:limit], "`limit` counts tokens, not characters."),
                ([fits[-1]], "Return text, not a list."),
                (ids[:limit], "Return text, not ids."),
                (lambda got: isinstance(got, str) and tokens(got) < limit, "A longer beginning fits too: it may have exactly `limit` tokens, and may end inside a word."),
                (lambda got: isinstance(got, str) and tokens(got) > limit, "It is too long: count `gpt2(...).input_ids` of what you return."),
            ],
        )  # fmt: skip
    return "This is the longest beginning that fits, in whole characters, even where a longer text takes fewer tokens."


def _merge_word(symbols, rank, choose=min, times=None):
    """The tokens of one word: list of str. The last two arguments are mistakes: another choice among the
    (rank, index) of the pairs that have a rank, and a limit to the number of merges."""
    symbols, made = list(symbols), 0
    while made != times:
        ranked = [(rank[pair], at) for at, pair in enumerate(pairwise(symbols)) if pair in rank]
        if not ranked:
            break
        _, at = choose(ranked)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        made += 1
    return symbols


def _longest_entries(symbols, rank):
    entries = {*symbols, *("".join(pair) for pair in rank)}
    word, parts = "".join(symbols), []
    while word:
        parts.append(next(word[:n] for n in range(len(word), 0, -1) if word[:n] in entries or n == 1))
        word = word[len(parts[-1]) :]
    return parts


def _one_pass(symbols, rank):
    """The mistake of ordering the pairs once, before the first merge."""
    symbols = list(symbols)
    for pair in sorted({pair for pair in pairwise(symbols) if pair in rank}, key=rank.get):
        symbols = _join(symbols, pair)
    return symbols


def _merged_in_text(symbols, rank):
    symbols = list(symbols)
    while ranked := [pair for pair in pairwise(symbols) if pair in rank]:
        symbols = _replace_in_text(symbols, min(ranked, key=rank.get))
    return symbols


@cache
def _gpt2_ranks():
    return BytePairEncoder.from_tokenizer(_gpt2()).ranks


def _ranks_within(word):
    """GPT-2's pairs that can occur in `word`, in GPT-2's order: dict from pair to rank, from 0 without gaps."""
    pairs = (pair for pair in _gpt2_ranks() if "".join(pair) in word)
    return {pair: rank for rank, pair in enumerate(pairs)}


def merge_tree(piece):
    """The merges of a `tokens.Piece` as `plots.tree` takes them: the word on top, then its tokens."""
    nodes = [(symbol, "", []) for symbol in piece.symbols]
    for merge in piece.merges:
        starts = list(accumulate((len(text) for text, _, _ in nodes), initial=0))
        at = starts.index(merge.start)
        nodes[at : at + 2] = [(merge.result, f"{merge.rank:,}", nodes[at : at + 2])]
    return ("".join(piece.symbols), f"{len(nodes)} tokens", nodes)


def _as_pairs(merges):
    """`merges` as a list of tuples, whatever kinds of sequence the learner chose for them."""
    if not isinstance(merges, list | tuple | Iterator):
        return merges
    return [tuple(pair) if isinstance(pair, list) else pair for pair in merges]


def _lowered(counts):
    lowered = Counter()
    for word, count in counts.items():
        lowered[word.lower()] += count
    return lowered


def _learned(counts, number, join=None, once=False):
    """Byte-pair encoding's training: the first `number` merges, in order. The last two arguments are mistakes:
    another way to join, and counting a pair once a word."""
    words, learned = {word: list(word) for word in counts}, []
    while len(learned) < number:
        pairs = _count(words, counts, once)
        if not pairs:
            break
        learned.append(max(pairs, key=pairs.__getitem__))
        words = {word: (join or _join)(symbols, learned[-1]) for word, symbols in words.items()}
    return learned


def _count(words, counts, once=False):
    pairs = Counter()
    for word, symbols in words.items():
        for pair in dict.fromkeys(pairwise(symbols)) if once else pairwise(symbols):
            pairs[pair] += counts[word]
    return pairs


def _join(symbols, pair):
    joined = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def _replace_in_text(symbols, pair):
    """The famous mistake: replacing in the joined text also finds the end of a longer symbol."""
    return " ".join(symbols).replace(" ".join(pair), "".join(pair)).split()


def _overlapping(symbols, pair):
    """The mistake of using a symbol in two merges at once."""
    merged = ["".join(pair) for both in pairwise(symbols) if both == pair]
    return merged if len(merged) > 1 else _join(symbols, pair)


def _across_words(counts, number):
    """The mistake of counting pairs in one long row of all words."""
    text = "".join(word * count for word, count in counts.items())
    return _learned({text: 1}, number)


def _first_count(counts, number):
    pairs = _count({word: list(word) for word in counts}, counts)
    return sorted(pairs, key=pairs.__getitem__, reverse=True)[:number]


def _plain(text, limit, gpt2):
    """The mistake of counting with an encoder that knows no special tokens."""

    def tokens(text):
        return len(gpt2(text, split_special_tokens=True).input_ids)

    return next(text[:n] for n in range(len(text), -1, -1) if tokens(text[:n]) <= limit)


def _binary_search(text, limit, tokens):
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens(text[:middle]) <= limit else (low, middle - 1)
    return text[:low]


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "01/quiz-symbol",
        "The tokens of a text are `Ġcaf` and `Ã©`. What is the text?",
        options=(
            Option("`café`, with a leading space", "`Ġ` is the space and `Ã©` the two bytes of é.", right=True, value=" café"),
            Option("`café`, without a space", "Close, but `Ġ` is a byte too: the space.", value="café"),
            Option("`GcafA©`", "The symbols only stand for bytes; the letters that they resemble mean nothing."),
            Option("Nothing readable: the text was damaged", "Both entries are valid. They are bytes written as symbols."),
        ),
        proof=lambda: _gpt2().convert_tokens_to_string(["Ġcaf", "Ã©"]),
    ),
    Question(
        "01/quiz-order",
        "Four merges, in the order learned: `b`+`c`, `a`+`b`, `bc`+`d`, `ab`+`c`. How is `abcd` split?",
        options=(
            Option("`a` `bcd`", "`b`+`c` comes first, which leaves no `b` for the `a`; then comes `bc`+`d`.", right=True, value=["a", "bcd"]),
            Option("`abc` `d`", "That is the longest entry from the left. But `b`+`c` was learned before `a`+`b`.", value=["abc", "d"]),
            Option("`ab` `c` `d`", "`a`+`b` would come first only if no merge that was learned earlier applied. And `ab`+`c` has a rank too.", value=["ab", "c", "d"]),
            Option("`a` `bc` `d`", "One merge too few: `bc`+`d` has a rank as well.", value=["a", "bc", "d"]),
        ),
        proof=lambda: _merged("abcd", [("b", "c"), ("a", "b"), ("bc", "d"), ("ab", "c")]),
    ),
    Question(
        "01/quiz-whole",
        "Which of these is true of GPT-2's ids?",
        options=(
            Option("Encoding a text and decoding its ids gives the text back", "Every byte is an entry, so nothing is unknown and nothing is lost.", right=True),
            Option("Decoding each id alone and joining the strings gives the text back", "Not where a character is split between several tokens, as an emoji may be."),
            Option("Two different lists of ids decode to different texts", "The text `Hello` is one id, or five: one for each letter. The encoder picks one of many spellings."),
            Option("A longer text always has at least as many ids", "` strawberr` has more ids than ` strawberry`."),
        ),
        proof=lambda: _what_holds_of_ids(),
    ),
    Question(
        "01/quiz-user-text",
        "Your service encodes what strangers type. How do you keep `<|endoftext|>` from ending the document?",
        options=(
            Option("Call the tokenizer with `split_special_tokens=True`", "Then those characters are encoded like any others. This holds for raw text: in a chat prompt it would split the template's markers too.", right=True),
            Option("Nothing to do: only the model can produce special tokens", "The tokenizer looks for them in every text."),
            Option("Call the tokenizer with `add_special_tokens=False`", "That stops the tokenizer from adding its own at the ends. It still finds those in the text."),
            Option("Decode with `skip_special_tokens=True`", "That only hides them in the output. The model has still read them."),
        ),
        proof=lambda: _who_splits_special_tokens(),
    ),
)  # fmt: skip


def _merged(word, merges):
    """The tokens of one piece under a list of merges: list of str."""
    symbols = [*word, *("".join(pair) for pair in merges)]
    vocabulary = {symbol: id for id, symbol in enumerate(symbols)}
    encoder = BytePairEncoder(vocabulary, merges, {}, lambda text: [(text, (0, len(text)))])
    return [token.symbol for piece in encoder.encode_and_show_work(word) for token in piece.tokens]


def _what_holds_of_ids():
    """The text of the one option of "01/quiz-whole" that no example here contradicts."""
    gpt2 = _gpt2()
    holds = {
        "Encoding a text and decoding its ids gives the text back": all(
            gpt2.decode(gpt2(text).input_ids) == text for text in varied_texts(200)
        ),
        "Decoding each id alone and joining the strings gives the text back": all(
            "".join(gpt2.decode(id) for id in gpt2(text).input_ids) == text for text in ["Hello", "🙂"]
        ),
        "Two different lists of ids decode to different texts": gpt2.decode([39, 68, 75, 75, 78])
        != gpt2.decode(gpt2("Hello").input_ids),
        "A longer text always has at least as many ids": len(gpt2(" strawberr").input_ids)
        <= len(gpt2(" strawberry").input_ids),
    }
    (answer,) = (text for text, true in holds.items() if true)
    return answer


def _who_splits_special_tokens():
    """The text of the one option of "01/quiz-user-text" that keeps id 50256 out."""
    gpt2, text = _gpt2(), "Bye<|endoftext|>"
    works = {
        "Call the tokenizer with split_special_tokens=True": gpt2(text, split_special_tokens=True).input_ids,
        "Nothing to do: only the model can produce special tokens": gpt2(text).input_ids,
        "Call the tokenizer with add_special_tokens=False": gpt2(text, add_special_tokens=False).input_ids,
    }
    (answer,) = (call for call, ids in works.items() if 50256 not in ids)
    return answer
