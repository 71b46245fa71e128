"""Lesson 01: each check is proven against right and wrong answers, each question against its proof."""

import re
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest

from course_utils import load_tokenizer
from course_utils.lessons import lesson01
from course_utils.tokens import BytePairEncoder, byte_symbols
from prove import private_progress, prove_exercise, prove_questions, stub

BYTE = {symbol: byte for byte, symbol in byte_symbols().items()}


def test_questions():
    prove_questions(lesson01)


# ---- exercise 1 --------------------------------------------------------------------------------------


def one_decode(tokens):
    return bytes(BYTE[symbol] for token in tokens for symbol in token).decode(errors="replace")


def by_bytearray(tokens):
    collected = bytearray()
    for symbol in "".join(tokens):
        collected.append(BYTE[symbol])
    return collected.decode("utf-8", "replace")


def decode_each(tokens):
    return "".join(bytes(BYTE[s] for s in token).decode(errors="replace") for token in tokens)


def only_joined(tokens):
    return "".join(tokens)


def only_the_space(tokens):
    return "".join(tokens).replace("Ġ", " ")


def joined_with_spaces(tokens):
    return " ".join(tokens)


def no_decode(tokens):
    return bytes(BYTE[symbol] for token in tokens for symbol in token)


def stripped(tokens):
    return one_decode(tokens).strip()


def ignoring(tokens):
    return no_decode(tokens).decode(errors="ignore")


def strict_decode(tokens):
    return no_decode(tokens).decode()


def one_mark_for_all(tokens):
    return re.sub("\ufffd+", "\ufffd", one_decode(tokens))


def one_line_feed(tokens):
    return one_decode(tokens).replace("\r\n", "\n")


def printable_only(tokens):
    return "".join(c for c in one_decode(tokens) if c.isprintable() or c in "\r\n")


@pytest.mark.parametrize("tidied", [one_mark_for_all, one_line_feed, printable_only])
def test_to_text_notices_what_was_tidied_away(tidied):
    with private_progress():
        assert lesson01.check_to_text(tidied).outcome == "wrong"


def backwards(tokens):
    return one_decode(tokens[::-1])


def test_to_text():
    prove_exercise(
        lesson01.check_to_text,
        right=[one_decode, by_bytearray],
        wrong=[
            (decode_each, "decoded alone"),
            (only_joined, "these are still symbols"),
            (only_the_space, "only the space was converted"),
            (joined_with_spaces, "joined with spaces"),
            (no_decode, "these are the bytes"),
            (stripped, "do not strip it"),
            (ignoring, "not 'ignore'"),
            (strict_decode, "UnicodeDecodeError"),
            (backwards, "turn each symbol into its byte"),
        ],
    )


# ---- exercise 2 --------------------------------------------------------------------------------------


def merge_one_at_a_time(symbols, rank):
    symbols = list(symbols)
    while found := [(rank[p], i) for i, p in enumerate(pairwise(symbols)) if p in rank]:
        _, at = min(found)
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    return symbols


def merge_a_pair_everywhere(symbols, rank):
    word = tuple(symbols)
    while len(word) > 1:
        best = min(pairwise(word), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            break
        word = tuple(join_pair(list(word), *best))
    return word


def merge_lazily(symbols, rank):
    yield from merge_one_at_a_time(symbols, rank)


def merge_recursively(symbols, rank):
    ranked = [pair for pair in pairwise(symbols) if pair in rank]
    return (
        merge_recursively(join_pair(symbols, *min(ranked, key=rank.get)), rank) if ranked else list(symbols)
    )


def as_one_string(symbols, rank):
    return " ".join(merge_one_at_a_time(symbols, rank))


def merge_nothing(symbols, rank):
    return list(symbols)


def ordered(symbols, rank, choose):
    symbols = list(symbols)
    while found := [(rank[p], i) for i, p in enumerate(pairwise(symbols)) if p in rank]:
        at = choose(found)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols


def highest_rank(symbols, rank):
    return ordered(symbols, rank, lambda found: max(found, key=lambda one: (one[0], -one[1])))


def leftmost(symbols, rank):
    return ordered(symbols, rank, lambda found: found[0])


def last_of_equals(symbols, rank):
    return ordered(symbols, rank, lambda found: min(found, key=lambda one: (one[0], -one[1])))


def one_merge(symbols, rank):
    ranked = [pair for pair in pairwise(symbols) if pair in rank]
    if not ranked:
        return symbols
    at = list(pairwise(symbols)).index(min(ranked, key=rank.get))
    return [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


def longest_entries(symbols, rank):
    entries, word, parts = {"".join(pair) for pair in rank}, "".join(symbols), []
    while word:
        n = max((n for n in range(1, len(word) + 1) if word[:n] in entries), default=1)
        parts.append(word[:n])
        word = word[n:]
    return parts


def pairs_of_the_beginning(symbols, rank):
    for pair in sorted(set(pairwise(symbols)) & set(rank), key=rank.get):
        symbols = join_pair(symbols, *pair)
    return symbols


def merge_in_text(symbols, rank):
    text = " ".join(symbols)
    while ranked := [pair for pair in pairwise(text.split()) if pair in rank]:
        best = min(ranked, key=rank.get)
        text = text.replace(" ".join(best), "".join(best))
    return text.split()


def join_all(symbols, rank):
    return ["".join(symbols)] if symbols else []


def ranks_from_outside(symbols, rank):
    return merge_one_at_a_time(symbols, BytePairEncoder.from_tokenizer(gpt2()).ranks)


def merge_in_place(symbols, rank):
    symbols[:] = merge_one_at_a_time(symbols, rank)
    return symbols


def merge_without_an_end(symbols, rank):
    symbols = list(symbols)
    while True:
        best = min(pairwise(symbols), key=lambda pair: rank.get(pair, float("inf")))
        if best not in rank:
            return symbols
        symbols = join_pair(symbols, *best)


def test_merge_word():
    prove_exercise(
        lesson01.check_merge_word,
        right=[merge_one_at_a_time, merge_a_pair_everywhere, merge_lazily, merge_recursively],
        wrong=[
            (as_one_string, "this is one string"),
            (merge_nothing, "nothing was merged"),
            (highest_rank, "the highest rank was merged first"),
            (leftmost, "the leftmost pair was merged first"),
            (last_of_equals, "the last was merged first"),
            (one_merge, "only one merge was made"),
            (longest_entries, "the longest entry that fits"),
            (pairs_of_the_beginning, "only the pairs of the beginning"),
            (merge_in_text, "part of a longer symbol"),
            (join_all, "merged into one"),
            (ranks_from_outside, "GPT-2's own ranks"),
            (merge_in_place, "changes its input"),
            (merge_without_an_end, "ValueError"),
        ],
    )


def test_the_lesson_runs_on_the_learners_function_if_it_passes(monkeypatch):
    words = ["strawberry", "lowest", "aaaa"]
    ranks = BytePairEncoder.from_tokenizer(gpt2()).ranks
    with private_progress():
        assert lesson01.usable_merge_word(merge_a_pair_everywhere) is merge_a_pair_everywhere
        monkeypatch.setenv("COURSE_STRICT", "1")
        for answer in (leftmost, stub):
            ours = lesson01.usable_merge_word(answer)
            assert [ours(list(w), ranks) for w in words] == [merge_one_at_a_time(w, ranks) for w in words]


def test_merge_tree_has_the_merges_as_nodes():
    (piece,) = BytePairEncoder.from_tokenizer(gpt2()).encode_and_show_work("berry")
    word, _, nodes = lesson01.merge_tree(piece)

    def ranks(node):
        text, note, children = node
        assert text == ("".join(child[0] for child in children) or text)
        return [note] * bool(note) + [rank for child in children for rank in ranks(child)]

    assert word == "berry"
    assert [text for text, _, _ in nodes] == [token.symbol for token in piece.tokens]
    made = sorted(f"{merge.rank:,}" for merge in piece.merges)
    assert sorted(rank for node in nodes for rank in ranks(node)) == made


# ---- exercise 3 --------------------------------------------------------------------------------------


def learn(counts, number, weight=True, replace=True, join=None, least=1, unique=False):
    words, learned = {word: list(word) for word in counts}, []
    for _ in range(number):
        pairs = Counter()
        for word, symbols in words.items():
            for pair in dict.fromkeys(pairwise(symbols)) if unique else pairwise(symbols):
                pairs[pair] += counts[word] if weight else 1
        if not pairs or max(pairs.values()) < least:
            break
        learned.append(max(pairs, key=pairs.get))
        if replace:
            words = {word: (join or join_pair)(symbols, *learned[-1]) for word, symbols in words.items()}
    return learned


def join_pair(symbols, left, right):
    joined, i = [], 0
    while i < len(symbols):
        fits = symbols[i : i + 2] == [left, right]
        joined.append(left + right if fits else symbols[i])
        i += 2 if fits else 1
    return joined


def learn_as_lists(counts, number):
    return [list(pair) for pair in learn(counts, number)]


def learn_with_tuples(counts, number):
    words, learned = [(tuple(word), count) for word, count in counts.items()], []
    while len(learned) < number and any(len(symbols) > 1 for symbols, _ in words):
        pairs = {}
        for symbols, count in words:
            for pair in pairwise(symbols):
                pairs[pair] = pairs.get(pair, 0) + count
        best = min(pairs, key=lambda pair: -pairs[pair])
        learned.append(best)
        words = [(tuple(join_pair(list(symbols), *best)), count) for symbols, count in words]
    return learned


def learn_lazily(counts, number):
    yield from learn(counts, number)


def learn_as_tuple(counts, number):
    return tuple(learn(counts, number))


def once_a_word(counts, number):
    return learn(counts, number, unique=True)


def small_letters(counts, number):
    lowered = Counter()
    for word, count in counts.items():
        lowered[word.lower()] += count
    return learn(lowered, number)


def never_a_pair_that_meets_once(counts, number):
    return learn(counts, number, least=2)


def unweighted(counts, number):
    return learn(counts, number, weight=False)


def never_replaced(counts, number):
    return learn(counts, number, replace=False)


def counted_once(counts, number):
    pairs = Counter()
    for word, count in counts.items():
        for pair in pairwise(word):
            pairs[pair] += count
    return [pair for pair, _ in pairs.most_common(number)]


def joined_symbols(counts, number):
    return ["".join(pair) for pair in learn(counts, number)]


def replaced_in_text(counts, number):
    return learn(
        counts, number, join=lambda symbols, a, b: " ".join(symbols).replace(f"{a} {b}", a + b).split()
    )


def overlapping(counts, number):
    def join(symbols, a, b):
        merged = [a + b for pair in pairwise(symbols) if pair == (a, b)]
        return merged if len(merged) > 1 else join_pair(symbols, a, b)

    return learn(counts, number, join=join)


def across_words(counts, number):
    return learn({"".join(word * count for word, count in counts.items()): 1}, number)


def one_too_many(counts, number):
    return learn(counts, number + 1)


def one_too_few(counts, number):
    return learn(counts, max(1, number - 1))


def fails_without_pairs(counts, number):
    learned = learn(counts, number)
    return learned if len(learned) == number else max([])


def test_learn_merges():
    prove_exercise(
        lesson01.check_learn_merges,
        right=[learn, learn_as_lists, learn_with_tuples, learn_as_tuple, learn_lazily],
        wrong=[
            (unweighted, "each word was counted once"),
            (never_replaced, "the same pair wins every time"),
            (counted_once, "counted only once"),
            (joined_symbols, "not the joined symbols"),
            (replaced_in_text, "part of a longer symbol"),
            (overlapping, "fits twice, not three times"),
            (once_a_word, "counts twice"),
            (small_letters, "to lower case"),
            (never_a_pair_that_meets_once, "even if it occurs only once"),
            (across_words, "counted across words"),
            (one_too_many, "one merge too many"),
            (one_too_few, "stops too early"),
            (fails_without_pairs, "ValueError"),
        ],
    )


@pytest.mark.parametrize(
    ("counts", "number"),
    [({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 4), ({"xa": 20, "ab": 15, "xab": 9}, 3)],
)
def test_learn_merges_is_checked_on_counts_without_ties(counts, number):
    reversed_order = dict(reversed(counts.items()))
    assert learn(counts, number) == learn(reversed_order, number)


# ---- exercise 4 --------------------------------------------------------------------------------------


@cache
def gpt2():
    return load_tokenizer("gpt2")


def tokens(text):
    return len(gpt2()(text).input_ids)


def from_the_long_end(text, limit):
    return next(text[:n] for n in range(len(text), -1, -1) if tokens(text[:n]) <= limit)


def longest_of_all(text, limit):
    return max((text[:n] for n in range(len(text) + 1) if tokens(text[:n]) <= limit), key=len)


def slice_the_ids(text, limit):
    return gpt2().decode(gpt2()(text).input_ids[:limit])


def add_until_too_long(text, limit):
    for n in range(len(text) + 1):
        if tokens(text[:n]) > limit:
            return text[: n - 1]
    return text


def binary_search(text, limit):
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if tokens(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def decode_the_first_ids(text, limit):
    """Never half a character, and yet wrong: a beginning may have other ids than the whole text."""
    return slice_the_ids(text, limit).rstrip("\ufffd")


def up_to_a_space(text, limit):
    fits = [text[:n] for n in range(len(text) + 1) if n in (0, len(text)) or text[n] == " "]
    return max((beginning for beginning in fits if tokens(beginning) <= limit), key=len)


def smollm2_tokens(text, limit):
    smollm2 = load_tokenizer("smollm2-135m")
    return next(text[:n] for n in range(len(text), -1, -1) if len(smollm2(text[:n]).input_ids) <= limit)


def no_special_tokens(text, limit):
    def plain(text):
        return len(gpt2()(text, split_special_tokens=True).input_ids)

    return next(text[:n] for n in range(len(text), -1, -1) if plain(text[:n]) <= limit)


def characters(text, limit):
    return text[:limit]


def ids(text, limit):
    return gpt2()(text).input_ids[:limit]


def in_a_list(text, limit):
    return [from_the_long_end(text, limit)]


def one_more(text, limit):
    return from_the_long_end(text, limit + 1)


def from_the_end_of_the_text(text, limit):
    return text[-1:]


def test_shorten_notices_another_tokenizer():
    with private_progress():
        assert lesson01.check_shorten(smollm2_tokens).outcome == "wrong"


def test_shorten():
    prove_exercise(
        lesson01.check_shorten,
        right=[from_the_long_end, longest_of_all],
        wrong=[
            (slice_the_ids, "in the middle of a character"),
            (add_until_too_long, "stops at the first beginning"),
            (binary_search, "binary search needs"),
            (characters, "counts tokens, not characters"),
            (ids, "not ids"),
            (in_a_list, "not a list"),
            (decode_the_first_ids, "text of the first `limit` ids"),
            (up_to_a_space, "end inside a word"),
            (no_special_tokens, "counted as plain characters"),
            (one_more, "it is too long"),
            (from_the_end_of_the_text, "not the beginning of the text"),
        ],
    )
