"""Real text in many scripts, and varied strings to try a tokenizer on."""

import random

# Article 1 of the Universal Declaration of Human Rights, first sentence.
SENTENCES = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。",
    "Japanese": "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}

_FRAGMENTS = [
    *SENTENCES.values(),
    "Hello world", "It's we're I'll they'd DON'T", "naïve café", "e\u0301", "ﬁ", "½ ²", "№ 5", "Ǆ",
    "3.14159", "1,000,000", "2026-11-21", "٣٤٥", "x = [i**2 for i in range(10)]", "def f(x):\n\treturn x",
    "It rained.\n\nWe left.", "{'s': 1}", "said 'they left'", "it''s", "don't 'twas",
    "https://example.org/?q=1&r=2", "<b>bold</b>", "</script>", "$\\frac{1}{2}$", "don’t “quote”", "a—b…",
    "🙂", "👩‍👩‍👧", "🏳️‍🌈", "🇫🇷", "👍🏽", "♥️", " ", "   ", "\t", "\n", "\r\n", "\n\n  ", "\u00a0", "\u200b",
    "\u202e", "\u3000", "<|endoftext|>", "<|endoftext", "aaaaaaaa", "ĠĠ", "\x00", "\x7f", "\ufeff", "\uffff",
]  # fmt: skip


def varied_texts(count: int, seed: int = 0) -> list[str]:
    """`count` different strings that between them hold many scripts, digits, emoji, white space of every
    kind, code, special tokens, slices that begin and end anywhere, and characters drawn from all of Unicode.

    Returns a list of str, the same for the same seed. None holds half a surrogate pair.
    """
    draw = random.Random(seed)
    texts = dict.fromkeys(["", *_FRAGMENTS])  # a dict keeps the order and drops doubles
    while len(texts) < count:
        parts = draw.choices(_FRAGMENTS, k=draw.randint(1, 4))
        if draw.random() < 0.5:
            part = parts[0]
            start = draw.randrange(len(part))
            parts[0] = part[start : start + draw.randint(1, 12)]
        if draw.random() < 0.2:
            parts.append("".join(_any_character(draw) for _ in range(draw.randint(1, 6))))
        texts[draw.choice(["", " ", "  "]).join(parts)] = None
    return list(texts)[:count]


def _any_character(draw):
    code = draw.randrange(0x110000)
    return chr(code) if not 0xD800 <= code <= 0xDFFF else " "
