"""What to read, by lesson, and what to read it for."""

import html
from dataclasses import dataclass

from ..lookup import with_code


@dataclass(frozen=True)
class Source:
    """lessons: str, "01" or "09, 10"; title, by, year: str, of a paper or a page; where: str, arXiv's number, or
    where else it appeared; why: str, what to read it for"""

    lessons: str
    title: str
    by: str
    year: int
    where: str
    why: str


READING = (
    Source("01", "Neural Machine Translation of Rare Words with Subword Units", "Sennrich, Haddow, Birch", 2016, "arXiv:1508.07909", "byte-pair encoding, as an algorithm of ten lines"),
    Source("01, 04", "Language Models are Unsupervised Multitask Learners", "Radford et al.", 2019, "OpenAI", "GPT-2: bytes as symbols in section 2.2, and what the model changed in section 2.3"),
    Source("01", "SentencePiece", "Kudo, Richardson", 2018, "arXiv:1808.06226", "tokenizers that treat a space as a symbol"),
    Source("03, 04", "Attention Is All You Need", "Vaswani et al.", 2017, "arXiv:1706.03762", "section 3.2: the formula, why it divides by √size, and the mask"),
    Source("02, 03", "RoFormer", "Su et al.", 2021, "arXiv:2104.09864", "rotary positions, and why only distances count"),
    Source("03", "FlashAttention", "Dao et al.", 2022, "arXiv:2205.14135", "why the default attention never holds the weights"),
    Source("04", "GQA", "Ainslie et al.", 2023, "arXiv:2305.13245", "fewer heads of keys and values, and a smaller cache"),
    Source("04, 11", "SmolLM2", "Ben Allal et al.", 2025, "arXiv:2502.02737", "how the course's model was trained"),
    Source("05, 06", "Fast Inference from Transformers via Speculative Decoding", "Leviathan, Kalman, Matias", 2022, "arXiv:2211.17192", "the proof that an assistant changes no distribution"),
    Source("06", "The Curious Case of Neural Text Degeneration", "Holtzman et al.", 2019, "arXiv:1904.09751", "top-p, and why the likeliest text is not the best"),
    Source("06", "Hierarchical Neural Story Generation", "Fan, Lewis, Dauphin", 2018, "arXiv:1805.04833", "where top-k sampling was first used so"),
    Source("06", "Locally Typical Sampling", "Meister et al.", 2022, "arXiv:2202.00666", "why too little surprise is as odd as too much"),
    Source("06", "CTRL", "Keskar et al.", 2019, "arXiv:1909.05858", "section 4.1: the repetition penalty"),
    Source("06", "If Beam Search is the Answer, What was the Question?", "Meister, Vieira, Cotterell", 2020, "arXiv:2010.02650", "why a better search finds worse texts"),
    Source("06, 07", "Google's Neural Machine Translation System", "Wu et al.", 2016, "arXiv:1609.08144", "section 7: the length penalty"),
    Source("08", "Estimating or Propagating Gradients Through Stochastic Neurons", "Bengio, Léonard, Courville", 2013, "arXiv:1308.3432", "the straight-through estimator"),
    Source("08, 09", "Categorical Reparameterization with Gumbel-Softmax", "Jang, Gu, Poole", 2016, "arXiv:1611.01144", "a soft draw with a gradient"),
    Source("08, 09", "The Concrete Distribution", "Maddison, Mnih, Teh", 2016, "arXiv:1611.00712", "the same idea, found at the same time, with its density"),
    Source("09", "Simple Statistical Gradient-Following Algorithms", "Williams", 1992, "Machine Learning 8", "REINFORCE, with its baseline"),
    Source("09", "Sequence Level Training with Recurrent Neural Networks", "Ranzato et al.", 2015, "arXiv:1511.06732", "exposure bias, named and attacked"),
    Source("09", "Buy 4 REINFORCE Samples, Get a Baseline for Free!", "Kool, van Hoof, Welling", 2019, "ICLR workshop", "leave one out, on four pages"),
    Source("09, 10", "Back to Basics", "Ahmadian et al.", 2024, "arXiv:2402.14740", "why REINFORCE is enough for language models"),
    Source("10", "Proximal Policy Optimization Algorithms", "Schulman et al.", 2017, "arXiv:1707.06347", "section 3: ratio and clip"),
    Source("10", "DeepSeekMath", "Shao et al.", 2024, "arXiv:2402.03300", "section 4: GRPO"),
    Source("10", "Understanding R1-Zero-Like Training", "Liu et al.", 2025, "arXiv:2503.20783", "what dividing by length and standard deviation does"),
    Source("10", "DAPO", "Yu et al.", 2025, "arXiv:2503.14476", "groups that teach nothing, and a clip with two bounds"),
    Source("10", "Group Sequence Policy Optimization", "Zheng et al.", 2025, "arXiv:2507.18071", "the ratio of a whole text"),
    Source("10", "Approximating KL Divergence", "Schulman", 2020, "joschu.net", "k1, k2 and k3 as estimates; lesson 10 adds what they are as losses"),
    Source("10", "Scaling Laws for Reward Model Overoptimization", "Gao, Schulman, Hilton", 2022, "arXiv:2210.10760", "how a reward is hacked, measured"),
    Source("11", "Training language models to follow instructions with human feedback", "Ouyang et al.", 2022, "arXiv:2203.02155", "where instruct models come from"),
    Source("13", "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", "Dettmers et al.", 2022, "arXiv:2208.07339", "the few large activations that eight bits cannot hold"),
    Source("03, 04, 12", "What Every Computer Scientist Should Know About Floating-Point Arithmetic", "Goldberg", 1991, "ACM Computing Surveys 23", "why sums depend on their order"),
)  # fmt: skip


@dataclass(frozen=True)
class ReadingList:
    """The sources as a notebook shows them, in the order of the lessons."""

    sources: tuple[Source, ...] = tuple(sorted(READING, key=lambda source: source.lessons[:2]))

    def __len__(self):
        return len(self.sources)

    def __repr__(self):
        return f"{len(self)} sources, from {self.sources[0].title!r} to {self.sources[-1].title!r}"

    def _repr_html_(self):
        rows = "".join(
            f"<tr><td>{s.lessons}<td><em>{html.escape(s.title)}</em>, {html.escape(s.by)} {s.year}. "
            f"{html.escape(s.where)}<td>{with_code(s.why)}"
            for s in self.sources
        )
        heads = "".join(f"<th scope=col>{head}" for head in ("Lesson", "Source", "Read it for"))
        return f'<table style="text-align:left"><thead><tr>{heads}</thead><tbody>{rows}</tbody></table>'


def reading_list() -> ReadingList:
    """Papers and pages by lesson, each with what to read it for: a ReadingList, a table in a notebook."""
    return ReadingList()
