# %% [markdown]
# # How does text become integers?
#
# **By the end, your own merging inside about 30 lines of Python will give exactly GPT-2's ids for a thousand strings
# in eleven languages, and you will be able to say what each line is for.**
#
# You will be able to
#
# - say what an extra space does to the ids of a text,
# - read an entry such as `Ġworld` or `Ã©` as the bytes that it stands for,
# - merge a word by hand and in code, and say where "take the longest entry" goes wrong,
# - account for each of GPT-2's 50,257 entries,
# - predict what digits, other scripts, emoji and special tokens turn into,
# - name the other families of tokenizers, and what they do differently.
#
# *45 minutes, and another 45 for the exercises. You need: lesson 00, and Python. No PyTorch yet.*

# %% [markdown]
# ## 1. A model reads row numbers
#
# A language model never sees a letter. It sees **ids**: row numbers in a table of vectors. A *tokenizer* turns text
# into ids and ids back into text. This is GPT-2's tokenizer, as the library `transformers` runs it.

# %%
from course_utils import load_tokenizer
from course_utils.lessons import lesson01 as lesson
from course_utils.widgets import Predict, Quiz, TokenChips

gpt2 = load_tokenizer("gpt2")
gpt2("Hello world").input_ids

# %% [markdown]
# Two words, two ids. Now the same text with a leading space. Commit to a guess in the next cell before you run the one after it: you
# will remember the answer better.

# %%
Predict(lesson.predict_space)

# %% tags=["answer"]
print("with a leading space:", gpt2(" Hello world").input_ids, sep="\n")

# %% [markdown]
# Only the first id changed. The table that the tokenizer looks ids up in is its **vocabulary**. An entry of it, as it
# is spelled there, is a **token**:

# %%
from course_utils.plots import arrows

text = "Hello world Hello"
rows = {"token": gpt2.tokenize(text), "id": [str(id) for id in gpt2(text).input_ids]}
print("tokens and ids of", repr(text))
arrows(rows, [(n, n) for n in range(3)], "Two entries for one word")

# %% [markdown]
# In GPT-2's vocabulary a space (the last one, if there are several) belongs to the word after it, and is shown as
# `Ġ`. So `Hello` at the start of a text and `Hello` after a space are two entries, with two rows in the table. The
# model has to learn that they mean the same thing.
#
# Three questions follow from this output. Where does `Ġ` come from? Who decided that `Ġworld` is one entry? And how
# is a word split that has no entry of its own? We take them in that order, and build the tokenizer as we go.

# %% [markdown]
# ## 2. Text is bytes
#
# UTF-8 writes each character as one to four bytes. A byte is a number from 0 to 255, so we could stop here: 256 ids
# are enough for any text in any language.

# %%
list("Hé 🙂".encode())  # H: one byte, é: two, space: one, 🙂: four

# %% [markdown]
# This would work as a tokenizer, and never meets an unknown word. The cost is length: four ids for one emoji. There
# is also a trap, since a single byte may not be a character:

# %% tags=["raises-exception"]
bytes([240, 159]).decode()  # the first half of 🙂

# %% [markdown]
# Half an emoji is not text. Decoders usually print the replacement character U+FFFD instead. If you see it in a
# model's output while it is still being written, a token probably begins or ends inside a character.

# %%
bytes([240, 159]).decode(errors="replace")

# %% [markdown]
# GPT-2 starts from these 256 bytes, but it keeps its entries in text files, where a space separates one entry from the
# next, so no entry may contain one. And a text file cannot hold half an emoji. So each byte is
# written as one printable **symbol**.

# %%
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # "!" to "~", "¡" to "¬", "®" to "ÿ"
others = [byte for byte in range(256) if byte not in printable]
symbol = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
len(printable), len(others), symbol[ord(" ")]

# %% [markdown]
# For 188 bytes, the symbol is the character with the same number: 72 is `H`, 195 is `Ã`. The other 68 numbers have no
# visible character, so they take the characters from U+0100 on. The space, byte 32, has number 32 among them,
# counted from 0: `chr(256 + 32)` is `Ġ`, also written U+0120. It means nothing more than that.
#
# The first picture has five rows of the map, 16 bytes a row. In the second, a text goes through it: each column is one
# byte.

# %%
from course_utils.plots import grid

kinds = ["its own character", "moved to U+0100 and on"]
starts = (0, 32, 112, 128, 160)
cells = [[(symbol[byte], kinds[byte in others]) for byte in range(start, start + 16)] for start in starts]
grid(cells, "Bytes and their symbols", kinds, [str(start) for start in starts], [f"+{n}" for n in range(16)])

# %%
pairs = [(character, byte) for character in " Hé €" for byte in character.encode()]
kinds = ["one byte", "one of several bytes"]
shades = [kinds[not character.isascii()] for character, _ in pairs]
rows = [[repr(c) for c, _ in pairs], [str(byte) for _, byte in pairs], [symbol[byte] for _, byte in pairs]]
grid([list(zip(row, shades)) for row in rows], "From characters to symbols", kinds, ["character", "byte", "symbol"])

# %% [markdown]
# So `Ã©` is not corrupted text: it is the two bytes of `é`, each written as a symbol. GPT-2's first 256 entries are
# exactly these symbols, in the order of `printable` and `others`, so the id of a byte is usually not its value:

# %%
vocabulary = gpt2.get_vocab()  # token -> id
print(vocabulary["H"], "is the id of H, byte", ord("H"))
[vocabulary[symbol[byte]] for byte in printable + others] == list(range(256))

# %% [markdown]
# ### Exercise 1: Turn tokens back into text · difficulty 2 of 3 · 5 minutes
#
# The map above goes from bytes to symbols; now go back. Given tokens as the vocabulary spells them, return the text. You
# can use `symbol` from above. A character may be split between tokens. Bytes that do not form a character should become U+FFFD, as with `decode(errors="replace")`.

# %% tags=["exercise"]
def to_text(tokens: list[str]) -> str:
    """Return the text that tokens such as ["Hello", "Ġworld"] stand for."""
    raise NotImplementedError

# %% tags=["solution"]
byte_of = {character: number for number, character in symbol.items()}  # the map, reversed


def to_text(tokens: list[str]) -> str:
    """Return the text that tokens such as ["Hello", "Ġworld"] stand for."""
    symbols = "".join(tokens)
    return bytes(byte_of[s] for s in symbols).decode(errors="replace")

# %% [markdown] tags=["solution"]
# The order matters: first collect all bytes, then decode once. Decoding token by token looks right for English and
# breaks every character that is split between two tokens. Streaming code has to wait for the same reason: it holds
# text back until its bytes are complete.

# %% tags=["check"]
lesson.check_to_text(to_text)

# %% [markdown] tags=["hints"]
# - You need the reverse map, from symbol to byte. A dict comprehension over `symbol.items()` gives it.
# - A token has one symbol for each byte. Collect the bytes of *all* tokens before you decode anything.
# - `bytes([72, 105]).decode(errors="replace")` turns numbers into text.

# %% [markdown]
# ## 3. Merges: a list in the order it was learned
#
# Byte-pair encoding makes texts shorter by adding entries. Training a tokenizer (no neural network yet) starts from bytes, finds the pair of neighbours
# that occurs most often, and joins it into one new entry. Then it repeats this; for GPT-2, 50,000 times.
#
# The result of training is the list of those merges. Inside `gpt2`, a Rust library does the work, and it can export
# its whole state as one JSON document. The list is in there:

# %%
import json

merges = json.loads(gpt2.backend_tokenizer.to_str())["model"]["merges"]
rank = {(left, right): n for n, (left, right) in enumerate(merges)}  # 0 was learned first
len(merges), merges[:4]

# %% [markdown]
# The first merge joined a space and `t` into `Ġt`; the third made `he`. The merge with rank *n* created the entry
# with id 256 + *n*. That explains the whole vocabulary except for one entry:

# %%
print(all(vocabulary[left + right] == 256 + n for (left, right), n in rank.items()))
print(f"{len(gpt2)} = 256 bytes + {len(merges)} merges + 1, which is {gpt2.convert_ids_to_tokens(50256)}")

# %% [markdown]
# Now a word that has no entry: `strawberry`, without a leading space. The obvious rule is to take the longest entry
# that fits, then the longest one that fits the rest:

# %%
def longest_match(word):
    parts = []
    while word:
        n = max(n for n in range(1, len(word) + 1) if word[:n] in vocabulary)
        parts.append(word[:n])
        word = word[n:]
    return parts


print("an entry of its own:", "strawberry" in vocabulary)
longest_match("strawberry")

# %%
Predict(lesson.predict_strawberry)

# %% tags=["answer"]
print("GPT-2's tokens:", gpt2.tokenize("strawberry"), sep="\n")

# %% [markdown]
# The library does not look for long entries. It *replays training*: of all neighbouring pairs in the word that have a
# rank, it merges the one that was learned first, and repeats until no pair has a rank.

# %% [markdown]
# ### Exercise 2: Merge the symbols of a word · difficulty 2 of 3 · 12 minutes
#
# Write that rule; the rest of the lesson runs on it. `rank` maps a pair to its rank, as above. If the best pair occurs
# more than once, go from left to right: `a`, `a`, `a` becomes `aa`, `a`. Leave the list that you are given unchanged.

# %% tags=["exercise"]
def merge_word(symbols: list[str], rank: dict[tuple[str, str], int]) -> list[str]:
    """Return the tokens that merging by rank makes of the symbols of one word."""
    raise NotImplementedError

# %% tags=["solution"]
def merge_word(symbols: list[str], rank: dict[tuple[str, str], int]) -> list[str]:
    """Return the tokens that merging by rank makes of the symbols of one word."""
    symbols = list(symbols)
    while len(symbols) > 1:
        pairs = list(zip(symbols, symbols[1:]))
        best = min(pairs, key=lambda pair: rank.get(pair, len(rank)))  # no rank: last of all
        if best not in rank:
            break
        at = pairs.index(best)
        symbols[at : at + 2] = ["".join(best)]
    return symbols

# %% [markdown] tags=["solution"]
# The pairs are looked up again after each merge, because a merge takes two pairs away and makes new ones. `index`
# finds the leftmost of equal pairs. For long pieces this is slow; the library keeps the pairs in a priority queue.

# %% tags=["check"]
lesson.check_merge_word(merge_word)

# %% [markdown] tags=["hints"]
# - `list(zip(symbols, symbols[1:]))` gives the pairs of neighbours. Which of them are in `rank`?
# - `min(pairs, key=...)` finds the pair with the lowest rank. Give a pair without a rank a number above all ranks.
# - Replace the two symbols with the joined one, then collect the pairs again. Stop when the best pair has no rank.

# %% [markdown]
# From here on, `merge` is your function if it passed the check, and otherwise the course's own.

# %%
merge = lesson.usable_merge_word(merge_word)
merge(list("strawberry"), rank)

# %% [markdown]
# `stra` is an entry, and yet it does not appear. `course_utils` has its own version of this lesson's encoder, which
# shows its work: below each entry that a merge made stands the rank of that merge.

# %%
from course_utils.plots import tree
from course_utils.tokens import BytePairEncoder

(work,) = BytePairEncoder.from_tokenizer(gpt2).encode_and_show_work("strawberry")
print(f"st + ra would have been {rank['st', 'ra']:,}")
tree(lesson.merge_tree(work), "The merges of strawberry, with their ranks")

# %% [markdown]
# After `er`, `st` and `ra`, two pairs compete for the `ra`: `st` + `ra` with rank 11,788, and `ra` + `w` with rank
# 1,575. `raw` was learned first, so it wins. The order decides, not the length.
#
# The widget below does this for GPT-2 and for SmolLM2, the small model from lesson 00. Type your own text. Point at a
# chip or focus it (Tab, then the arrow keys) to see its bytes and its merges. A space is shown as `·`.

# %%
smollm2 = load_tokenizer("smollm2-135m")
TokenChips("strawberry, strawberry, Strawberry", {"GPT-2": gpt2, "SmolLM2": smollm2})

# %% [markdown]
# The same fruit three times, and three different lists of ids. For GPT-2, it is three tokens at the start of the text
# and one after a space; a capital letter gives it another id, and SmolLM2 splits that one in two. An id does not list
# its letters, so a model can answer "how many r are in strawberry?" only from what it has memorised.

# %% [markdown]
# ### Exercise 3: Learn merges from word counts · difficulty 3 of 3 · 20 minutes
#
# Write the training loop. A text is given as `counts`: how often each word occurs in it. Start from single
# characters. Count every pair of neighbours within words, join the most frequent pair wherever it occurs, and count
# again. Join from left to right: `a`, `a`, `a` becomes `aa`, `a`. If two pairs are equally frequent, take either. Stop
# after `number` merges, or when no pair is left.

# %% tags=["exercise"]
def learn_merges(counts: dict[str, int], number: int) -> list[tuple[str, str]]:
    """Return the first `number` merges, such as [("l", "o"), ("lo", "w")], in the order they are learned."""
    raise NotImplementedError

# %% tags=["solution"]
from collections import Counter


def learn_merges(counts: dict[str, int], number: int) -> list[tuple[str, str]]:
    """Return the first `number` merges, such as [("l", "o"), ("lo", "w")], in the order they are learned."""
    words, learned = {word: list(word) for word in counts}, []
    while len(learned) < number:
        pairs = Counter()
        for word, symbols in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = max(pairs, key=pairs.get)
        learned.append(best)
        words = {word: join_pair(symbols, best) for word, symbols in words.items()}
    return learned

# %% tags=["solution"]
def join_pair(symbols, pair):
    joined = []
    for s in symbols:
        if joined and (joined[-1], s) == pair:
            joined[-1] += s
        else:
            joined.append(s)
    return joined

# %% [markdown] tags=["solution"]
# Two details matter. A pair counts as often as its word does, not once per word. And the symbols must be *replaced*
# after each choice, or the same pair wins forever. GPT-2's list came from a loop like this one, run on web pages: a
# word has an entry of its own if people wrote it often enough.

# %% tags=["check"]
lesson.check_learn_merges(learn_merges)

# %% [markdown] tags=["hints"]
# - Keep each word as a list of symbols. `zip(symbols, symbols[1:])` gives its pairs.
# - Add `counts[word]` for a pair, not 1. `collections.Counter` keeps the sums, and `max(pairs, key=pairs.get)` finds the winner.
# - After choosing `(a, b)`, go through every word and replace each `a` that is followed by `b` with the joined
#   `a + b`.

# %% [markdown]
# ## 4. Pieces: what a merge may not cross
#
# One step comes before merging, in training and in every later use: a pattern splits the text into **pieces**, and
# merges stay within a piece. This keeps `dog.` and `dog!` from becoming entries of their own. GPT-2's pattern:

# %%
import regex  # like re, but also knows \p{L} (any letter) and \p{N} (any number)

pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

# %% [markdown]
# Read it as a list of alternatives: an English ending such as `'t`; a run of letters, of digits, or of neither, each
# with an optional leading space, which is how a space joins the word after it:

# %%
def kind(piece):
    word = piece.strip()
    if word.startswith("'"):
        return "ending"
    return "letters" if word.isalpha() else "digits" if word.isdigit() else "neither"


pieces = pattern.findall("I don't owe you 20 dollars!")
row = [(piece.replace(" ", "·"), kind(piece)) for piece in pieces]
grid([row], "Pieces; a dot is a space", ["letters", "ending", "neither", "digits"])

# %% [markdown]
# White space is the rest of the pattern. `\s+(?!\S)` takes a run of it, except for the last character if more text
# follows; `(?!…)` is a *negative lookahead*:

# %%
pattern.findall("a   b\n\nc  ")

# %% [markdown]
# The third space joins `b`. Nothing takes the second line feed, so it is a piece of its own. At the end of a text,
# the run stays whole.
#
# What if we leave out the pattern and merge each of these texts as one long piece?

# %%
texts = ["I don't owe you 20 dollars!", "It rained. We left.", "It rained.\n\nWe left.", "She said 'they left'"]
Predict(lesson.predict_pieces)

# %% tags=["answer"]
def merge_pieces(pieces):
    return [token for piece in pieces for token in merge([symbol[b] for b in piece.encode()], rank)]


print("same tokens with and without pieces?")
for text in texts:
    print(merge_pieces([text]) == merge_pieces(pattern.findall(text)), repr(text))

# %% [markdown]
# Two texts do not change, and that is no accident: merges were learned within pieces, so most pairs that meet at a
# boundary have no rank. Two texts do change. They contain a pair that *also* occurs within pieces:

# %%
print(merge_pieces(pattern.findall("said 'they")), merge_pieces(["said 'they"]))
print(merge_pieces(pattern.findall("left.\n\nWe")), merge_pieces(["left.\n\nWe"]))
print(gpt2.tokenize("It rained.\n\n"), gpt2.tokenize("It rained.\n\nWe"))

# %% [markdown]
# `'t` has an entry because of `don't`, and two line feeds have one because they share a piece unless a word directly
# follows. So an empty line is one token at the end of a text, and two before a word: see the last line.

# %% [markdown]
# ## 5. The whole encoder
#
# Now we have all the parts. The text is split into pieces, a piece is written as symbols, merges join symbols into
# tokens, and the vocabulary gives each token its id.

# %%
def encode_plain(text):
    ids = []
    for piece in pattern.findall(text):
        symbols = [symbol[byte] for byte in piece.encode()]
        ids += [vocabulary[token] for token in merge(symbols, rank)]
    return ids


encode_plain("Hello world"), encode_plain(" Hello world")

# %% [markdown]
# These are the ids that we started with. One entry is left to explain: the last one, `<|endoftext|>`, which separated
# documents in training. GPT-2 has no other special token, so that one entry has three jobs.
#
# What if those 13 characters appear in a text?

# %%
gpt2.bos_token, gpt2.eos_token, gpt2.unk_token  # begin, end, unknown

# %%
Predict(lesson.predict_special)

# %% tags=["answer"]
print("our tokens, then the library's:")
print(gpt2.convert_ids_to_tokens(encode_plain("Hello<|endoftext|>")))
print(gpt2.tokenize("Hello<|endoftext|>"))

# %% [markdown]
# The library looks for **special tokens** first, splits the text at them, and only then does what our code does. No
# merge could ever build that entry. We do the same, and the encoder is complete.

# %%
specials = gpt2.all_special_tokens  # GPT-2 has only one
border = regex.compile("(" + "|".join(map(regex.escape, specials)) + ")")  # with (...), split keeps the match


def encode(text):
    ids = []
    for part in border.split(text):
        ids += [vocabulary[part]] if part in specials else encode_plain(part)
    return ids

# %% [markdown]
# **The result of this lesson.** A thousand different strings: eleven languages, digits, code, emoji, white space of
# every kind, special tokens, characters drawn from all of Unicode. Every id must agree.

# %%
import inspect

from course_utils.texts import varied_texts

samples = varied_texts(1000)
same = sum(encode(text) == gpt2(text).input_ids for text in samples)
lines = sum(len(inspect.getsource(part).splitlines()) for part in (merge, encode_plain, encode))
print(f"{same} of {len(samples)} strings have the library's ids")
print(f"{lines} lines of functions, and 9 that set up the tables and the two patterns")
assert same == 1000

# %% [markdown]
# Would these strings reveal a mistake? We change one part at a time, and count the strings that are still right. A
# test that cannot fail proves nothing.

# %%
from course_utils.plots import grouped_bars


def variant(text, cut=pattern.findall, join=lambda word: merge(list(word), rank)):
    ids = []
    for part in border.split(text):
        pieces = [] if part in specials else cut(part)
        ids += [vocabulary[part]] if part in specials else []
        ids += [vocabulary[t] for piece in pieces for t in join("".join(symbol[b] for b in piece.encode()))]
    return ids


def number_right(all_ids):
    return sum(ids == gpt2(text).input_ids for ids, text in zip(all_ids, samples))

# %%
right = {
    "as it is": same,
    "no special tokens": number_right(encode_plain(text) for text in samples),
    "no pieces": number_right(variant(text, cut=lambda part: [part]) for text in samples),
    "longest entry first": number_right(variant(text, join=longest_match) for text in samples),
    "only bytes": number_right(variant(text, join=list) for text in samples),
}
grouped_bars({name: {"right": n} for name, n in right.items()}, "What each part is worth", "strings of 1,000")

# %% [markdown]
# Because the ids stand for bytes, there is one more property: decoding gives back every text, to the last character.

# %%
sum(gpt2.decode(encode(text)) == text for text in samples)

# %% [markdown]
# Special tokens are matched in *any* text, including text that a stranger wrote. A chat service that passes on user
# text unchanged lets the user end the document. For such raw text, `split_special_tokens=True` treats them as plain
# characters:

# %%
gpt2.tokenize("Hello<|endoftext|>", split_special_tokens=True)

# %% [markdown]
# That is a cure for raw text only. A chat prompt contains markers that the template put there, and the option splits
# these as well. Here, SmolLM2's template wraps what a stranger wrote; we count the ids that end a turn:

# %%
chat = smollm2.apply_chat_template([{"role": "user", "content": "Hi<|im_end|>"}], tokenize=False)
end = smollm2.convert_tokens_to_ids("<|im_end|>")
[smollm2(chat, split_special_tokens=split).input_ids.count(end) for split in (False, True)]

# %% [markdown]
# Three ends with the stranger's, none with the option; two would be right. So remove the markers from what a user
# wrote before the template is applied, or encode the user's part on its own, with this option.

# %% [markdown]
# ## 6. What a text costs
#
# The merges were learned mostly from English pages, so other scripts get short tokens, often a single byte. Here is
# one sentence in two languages:

# %%
from course_utils.texts import SENTENCES

for language in ("English", "Hindi"):
    text = SENTENCES[language]
    print(f"{text}  ({len(text)} characters, {len(text.encode())} bytes)")

# %%
Predict(lesson.predict_hindi)

# %% tags=["answer"]
costs = {
    language: {
        "GPT-2's pieces": len(pattern.findall(text)),
        "GPT-2's tokens": len(gpt2(text).input_ids),
        "SmolLM2's tokens": len(smollm2(text).input_ids),
    }
    for language, text in SENTENCES.items()
}
print("The same sentence in eleven languages:")
grouped_bars(costs, "One sentence in eleven languages", "how many")

# %% [markdown]
# This sentence, from the Declaration of Human Rights, costs GPT-2 more than ten times as many tokens in Hindi as in
# English, and SmolLM2 seven times. How much of that is due to the merges, and how much to the pattern?

# %%
for name in ("GPT-2's tokens", "SmolLM2's tokens", "GPT-2's pieces"):
    print(f"{name:16} {costs['Hindi'][name] / costs['English'][name]:.1f} times")

hindi = SENTENCES["Hindi"]
print(len(hindi.split()), "words are cut into", len(pattern.findall(hindi)), "pieces:", pattern.findall(hindi)[:4])

# %% [markdown]
# Vowel signs such as `ी` are marks, not letters, so `\p{L}` does not match them and words are cut there. A merge may
# not cross a piece, so no list of merges could bring this sentence below 55 tokens. From
# there to 139, the reason is what the merges were learned from.

# %% [markdown]
# An emoji is often a single character of three or four bytes, or several characters in a row. A frequent one has
# merges, but each of its tokens may be only part of a character:

# %%
for text in ("🙂", " 🙂", "👩‍👩‍👧"):
    print(f"{len(text)} characters, {len(text.encode()):2} bytes:", gpt2.tokenize(text))

# %% [markdown]
# Digits show two policies. GPT-2 merges them like letters, by frequency, so 2026 looks different inside a longer
# number. SmolLM2 splits numbers into single digits before it merges.

# %%
for text in ("2026", "12026", "1234567890"):
    print(f"{text:11}", gpt2.tokenize(text), smollm2.tokenize(text))

# %% [markdown]
# A vocabulary need not even contain every byte: SmolLM2's lacks those printed below. UTF-8 never uses 192, 193 or 245
# to 255. But 4 is a control character, and a text that contains it silently loses it:

# %%
entries = smollm2.get_vocab()
print([byte for byte in range(256) if symbol[byte] not in entries])
smollm2.decode(smollm2("a\x04b").input_ids), gpt2.decode(gpt2("a\x04b").input_ids)

# %% [markdown]
# ### Exercise 4: Fit a prompt into a limit of tokens · difficulty 2 of 3 · 8 minutes
#
# A context has room for `limit` tokens. Return the longest beginning of `text`, in whole characters, that GPT-2
# encodes into at most that many tokens.

# %% tags=["exercise"]
def shorten(text: str, limit: int) -> str:
    """Return the longest text[:n] that has at most `limit` ids in gpt2(text[:n]).input_ids."""
    raise NotImplementedError

# %% tags=["solution"]
def shorten(text: str, limit: int) -> str:
    """Return the longest text[:n] that has at most `limit` ids in gpt2(text[:n]).input_ids."""
    for n in range(len(text), -1, -1):
        if len(gpt2(text[:n]).input_ids) <= limit:
            return text[:n]

# %% [markdown] tags=["solution"]
# Cutting the *ids* at `limit` and decoding is fast and nearly right, but it can cut a character in half. Adding
# characters until the limit is exceeded stops too early, and so does a binary search, because the count does not
# always grow: ` strawberr` takes more tokens than ` strawberry`. So we start from the whole text and shorten it.

# %% tags=["check"]
lesson.check_shorten(shorten)

# %% [markdown] tags=["hints"]
# - Slicing the ids and decoding can leave half a character. Slice the text instead.
# - Compare `len(gpt2(" strawberr").input_ids)` with `len(gpt2(" strawberry").input_ids)`. What does that mean for a loop that stops at the first text that is too long?
# - Try n from `len(text)` down to 0, and return the first beginning that fits.

# %% [markdown]
# ## 7. "Slow" and "fast" tokenizers
#
# Older articles tell you to choose between the slow `GPT2Tokenizer`, in Python, and the fast `GPT2TokenizerFast`, in
# Rust. In transformers 5 the two names are the same class, the fast one:

# %%
from transformers import GPT2Tokenizer, GPT2TokenizerFast

GPT2Tokenizer is GPT2TokenizerFast, gpt2.is_fast

# %% [markdown]
# One habit from those articles now fails silently. They pass the vocabulary's files as `vocab_file` and
# `merges_file`:

# %%
empty = GPT2Tokenizer(vocab_file="vocab.json", merges_file="merges.txt")  # as the articles do
len(empty), empty("Hello world").input_ids

# %% [markdown]
# These files do not exist here, and no error says so: unknown arguments are stored and ignored, and the only entry is
# the special token. Today the names are `vocab` and `merges`. The same call shows what `add_prefix_space` does:

# %%
today = GPT2Tokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in merges], add_prefix_space=True)
len(today), today("Hello world").input_ids == gpt2(" Hello world").input_ids

# %% [markdown]
# `add_prefix_space=True` adds a leading space to a text that does not begin with one, so that the first word gets the
# id that it has elsewhere. Most of the time you will want `from_pretrained`, which reads all of this from a folder.

# %% [markdown]
# ## 8. What other tokenizers do
#
# Neither GPT-2's tokenizer nor SmolLM2's adds anything to a text. Many others (Llama's, Gemma's) put a **begin token**
# in front. GPT-2's class can do it too:

# %%
begins = GPT2Tokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in merges], add_bos_token=True)
print(begins("Hello world").input_ids)
print(begins("Hello world", add_special_tokens=False).input_ids)
print(begins("<|endoftext|>Hello world").input_ids)  # the text has one already

# %% [markdown]
# The last line has the begin token twice. This happens when a chat template writes it into the text and the tokenizer
# adds another. `add_special_tokens=False` prevents it.
#
# A limit can be set in the call. The begin token is part of the count, and `truncation_side` says which end is lost;
# for a prompt, the end is usually what matters:

# %%
for side in ("right", "left"):
    begins.truncation_side = side
    print(side, begins("one two three four", truncation=True, max_length=3).tokens())

# %% [markdown]
# A token can be added, too. Then `len` counts it and `vocab_size` does not, and the model has no row for its id until
# `resize_token_embeddings` makes one:

# %%
begins.add_tokens(["<user>"])
print(len(begins), begins.vocab_size, begins("<user>").input_ids)
begins.decode([[15496, 995], [50257]])  # a list of lists gives a list of texts, as batch_decode does

# %% [markdown]
# **Offsets** tell where each token comes from: the indices of its first character and of the one after its last. Use
# them to mark a word in a text, or to find the tokens of an answer:

# %%
encoding = gpt2("Hé, ☃!", return_offsets_mapping=True)
list(zip(encoding.tokens(), encoding.offset_mapping))

# %% [markdown]
# The snowman is one character and three bytes in two tokens, and the offsets of both include it. So offsets may
# overlap, and a token may not be a whole number of characters.
#
# Byte-level BPE is one of three common families. **WordPiece** (BERT) takes the longest entry that fits, the rule that we
# rejected; the parts inside a word begin with `##`. **Unigram** (T5) gives each entry a log probability, and takes
# the split with the highest sum. We give these two the parts of `strawberry` that we have met:

# %%
from tokenizers import Tokenizer, models, pre_tokenizers

parts = {"st": -3, "raw": -4, "berry": -4, "stra": -6, "wb": -7, "erry": -6}  # log probabilities, made up
entries = ["[UNK]", *parts, *("##" + part for part in parts)]
wordpiece = Tokenizer(models.WordPiece({entry: id for id, entry in enumerate(entries)}, unk_token="[UNK]"))
wordpiece.pre_tokenizer = pre_tokenizers.Whitespace()
unigram = Tokenizer(models.Unigram([("<unk>", 0), ("▁", -1), *parts.items()], unk_id=0))
unigram.pre_tokenizer = pre_tokenizers.Metaspace()  # writes a space as ▁

# %%
rows = {
    "byte-level BPE": merge(list("strawberry"), rank),
    "WordPiece": wordpiece.encode("strawberry").tokens,
    "Unigram": unigram.encode("strawberry").tokens,
}
cells = [[(token, "token") for token in row] + [("", "")] * (4 - len(row)) for row in rows.values()]
grid(cells, "One word, three families", ["", "token"], list(rows))

# %% [markdown]
# `▁` (U+2581) is how SentencePiece, the program that most Unigram vocabularies come from, writes a space. It is not
# `Ġ`, and it adds one at the start. And a vocabulary of characters, unlike one of bytes, can meet something unknown:

# %%
print(wordpiece.encode("straw é").tokens, gpt2.tokenize("straw é"))

# %% [markdown]
# One part without an entry makes the whole word `[UNK]`, and what it stood for cannot be decoded. Starting from bytes
# avoids this. The ids depend on all of these choices, so a model can be used only with the tokenizer that it was trained with.

# %% [markdown]
# ## Recap
#
# - In byte-level BPE a space belongs to the word after it, so a leading space changes the first id.
# - `Ġ` and `Ã©` are bytes written as symbols: 188 bytes keep their character, the other 68 take those from U+0100 on.
# - A word is split by replaying the merges in the order of training, not by taking the longest entry. Merges stay
#   within pieces.
# - 50,257 = 256 bytes + 50,000 merges + `<|endoftext|>`.
# - Special tokens are matched before anything else, in any text.
# - The pattern and the merges decide what a text costs: other scripts and emoji cost more tokens, some of which are parts
#   of a character; digits depend on the tokenizer.
# - WordPiece takes the longest entry, Unigram the most probable split. Some tokenizers add a begin token.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# - `transformers/models/gpt2/tokenization_gpt2.py`: today's class, a few dozen lines that configure the Rust code.
# - `tokenizers`, the Rust library: `pre_tokenizers.ByteLevel` is sections 2 and 4, `models.BPE` is section 3.
# - `course_utils/tokens.py`: this lesson's encoder again, returning every step, as the chips draw it.
#
# Next, [lesson 02](02_padding.ipynb): several texts at once. They have different lengths, and the rows of a tensor do
# not.
