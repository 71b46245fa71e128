"""The text of ids that continue other ids."""

from collections.abc import Iterable
from typing import Any


def continuation(tokenizer: Any, before: Iterable[int], after: Iterable[int], **options) -> str:
    """The text that the ids `after` add to the text of the ids `before`: str, with the space it begins with.

    options: what tokenizer.decode takes, such as skip_special_tokens=True
    Decoded alone, ids lose what a decoder drops or adds at the beginning of a text: SentencePiece's (T5,
    Llama 2, Mistral) and WordPiece's (BERT) drop the space before the first word. Byte-level BPE does not.
    """
    before, after = ([int(one) for one in ids] for ids in (before, after))
    start, whole = (tokenizer.decode(ids, **options) for ids in (before, before + after))
    # A decoder that also cleans up spaces may change the end of what was there.
    return whole.removeprefix(start) if whole.startswith(start) else tokenizer.decode(after, **options)
