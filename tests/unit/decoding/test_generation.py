"""course_utils.decoding.steps: what a Step holds, going back and choosing, refusals, what stays untouched."""

import contextlib
import copy
import random
from collections import deque

import numpy
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StaticCache,
    StoppingCriteriaList,
    T5Config,
    T5EncoderModel,
    TextStreamer,
)
from transformers.generation import LogitsProcessor, StoppingCriteria

from architectures import ENCODER_DECODERS, END, PAD, POSITIONS, VOCABULARY, WIDTH, tiny
from course_utils import CourseError, Step, decode_steps, load_tokenizer, pick_device
from course_utils.releases import as_argument

DEVICE = pick_device()
ENDS = list(range(1, 20))  # so many ends that rows end early, at different steps
SAMPLED = {"do_sample": True, "top_k": 0, "temperature": 1.5}
CACHES = {
    "dynamic": ("GPT2", {}),
    "none": ("Llama", {"use_cache": False}),
    "static": ("Llama", {"cache_implementation": "static", "disable_compile": True}),
    "sliding": ("Mistral", {}),
    "encoder-decoder": ("T5", {}),
    "guidance": ("GPT2", {"guidance_scale": 1.5}),
}


def model_of(name, dtype=torch.float32):
    return tiny(name, dtype, DEVICE)


def prompts():
    """Three prompts of different length, padded on the left."""
    input_ids = torch.tensor([[5, 6, 7, 8], [PAD, PAD, 40, 41], [PAD, 30, 31, 32]], device=DEVICE)
    return {"input_ids": input_ids, "attention_mask": (input_ids != PAD).long()}


def prompt():
    return {"input_ids": torch.tensor([[5, 6, 7, 8]], device=DEVICE)}


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


class Calls:
    """Counts the forward passes of a model, and keeps what each was given."""

    def __init__(self, model):
        self.given = []
        self.hook = model.register_forward_pre_hook(self.record, with_kwargs=True)

    def record(self, model, args, kwargs):
        self.given.append(kwargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.remove()


class Halving(LogitsProcessor):
    """A processor that works in place."""

    def __call__(self, input_ids, scores):
        return scores.div_(2)


class EveryThird(LogitsProcessor):
    """A processor that remembers: each third call it forbids the token that would be chosen."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids.shape[1])
        if len(self.seen) % 3:
            return scores
        return scores.scatter(1, scores.argmax(dim=1, keepdim=True), -torch.inf)


class AfterSomeCalls(StoppingCriteria):
    """A criterion that remembers: it ends every row at its sixth call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, input_ids, scores, **kwargs):
        self.calls += 1
        return torch.full((len(input_ids),), self.calls >= 6, device=input_ids.device)


# ---- what a step holds -------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", CACHES)
def test_a_step_holds_what_the_model_was_given(cache):
    name, kwargs = CACHES[cache]
    model, key = model_of(name), "decoder_" if name in ENCODER_DECODERS else ""
    decoding = decode_steps(model, prompts(), max_new_tokens=5, eos_token_id=None, **kwargs)
    length = decoding.sequences.shape[1]
    for index in range(5):
        before = decoding.sequences
        with Calls(model) as calls:
            step = next(decoding)
        given = calls.given[0]
        assert isinstance(step, Step) and step.index == index
        same(step.input_ids, before)
        same(decoding.sequences, torch.cat([before, step.next_tokens[:, None]], dim=1))
        fed = given[f"{key}input_ids"].shape[1]
        assert step.cache_length == (length + index - fed)
        assert step.attention_mask.shape == (3, length + index)
        mask = given.get(f"{key}attention_mask")
        if mask is not None and mask.ndim == 2:  # a static cache's is made four-dimensional
            same(step.attention_mask, mask)
        if key:
            assert step.position_ids is None and f"{key}position_ids" not in given
        else:
            same(step.attention_mask[:, :4], prompts()["attention_mask"])
            same(step.position_ids, given["position_ids"])
            assert step.position_ids.dtype == torch.long


@pytest.mark.parametrize("sampling", [{}, SAMPLED])
def test_shapes_and_types(sampling):
    model, dtype = model_of("Llama", torch.bfloat16), torch.float32
    for step in decode_steps(model, prompts(), max_new_tokens=3, repetition_penalty=1.1, **sampling):
        names = ["RepetitionPenaltyLogitsProcessor"] + ["TemperatureLogitsWarper"] * bool(sampling)
        assert [name for name, _ in step.stages] == names
        for scores in (step.logits, step.probs, *(scores for _, scores in step.stages)):
            assert scores.shape == (3, VOCABULARY) and scores.dtype == dtype
        torch.testing.assert_close(step.probs.sum(dim=1), torch.ones(3, device=DEVICE))
        assert step.next_tokens.shape == (3,) and step.next_tokens.dtype == torch.long
        assert step.finished.shape == (3,) and step.finished.dtype == torch.bool
        assert step.input_ids.dtype == step.attention_mask.dtype == torch.long
        assert len(step.reasons) == 3


def test_the_mask_that_generate_drops_is_kept():
    step = next(decode_steps(model_of("GPT2"), prompt(), max_new_tokens=1))
    same(step.attention_mask, torch.ones(1, 4, dtype=torch.long, device=DEVICE))


def test_a_processor_that_works_in_place_changes_neither_logits_nor_earlier_stages():
    model = model_of("GPT2")
    plain = next(decode_steps(model, prompt(), max_new_tokens=1))
    processors = LogitsProcessorList([Halving(), Halving()])
    step = next(decode_steps(model, prompt(), max_new_tokens=1, logits_processor=processors))
    same(step.logits, plain.logits)
    assert [name for name, _ in step.stages] == ["Halving", "Halving"]
    same(step.stages[0][1], plain.logits / 2)
    same(step.stages[1][1], plain.logits / 4)


def test_finished_rows_are_filled_up_and_say_why():
    kwargs = {"max_new_tokens": 8, "eos_token_id": ENDS, **SAMPLED}
    for seed in range(2, 22):  # CUDA draws other numbers
        torch.manual_seed(seed)
        expected = model_of("Llama").generate(**prompts(), **kwargs)
        torch.manual_seed(seed)
        steps = list(decoding := decode_steps(model_of("Llama"), prompts(), **kwargs))
        same(decoding.sequences, expected)
        if len({step.finished.tolist().count(True) for step in steps}) > 2:
            break
    else:
        raise AssertionError("with every seed the rows ended together")
    already = [False] * 3
    for step in steps:
        for row, token in enumerate(step.next_tokens.tolist()):
            assert not already[row] or token == PAD
            assert step.finished[row] == (already[row] or token in ENDS or step.index == 7)
            ended = already[row] or token in ENDS
            assert step.reasons[row] == ("end of text" if ended else "length" if step.index == 7 else None)
            already[row] = ended
    assert decoding.done and decoding.reasons == steps[-1].reasons


def test_an_end_of_text_at_the_last_length_is_an_end_of_text():
    (step,) = decode_steps(model_of("GPT2"), prompt(), max_new_tokens=1, eos_token_id=list(range(VOCABULARY)))
    assert step.reasons == ("end of text",)


def test_the_reason_of_a_criterion_is_its_name():
    criteria = StoppingCriteriaList([AfterSomeCalls()])
    *_, last = decode_steps(
        model_of("GPT2"), prompt(), max_new_tokens=9, eos_token_id=None, stopping_criteria=criteria
    )
    assert last.index == 5 and last.reasons == ("AfterSomeCalls",)


def test_a_model_without_end_of_text_ends_by_its_length():
    model = copy.deepcopy(model_of("GPT2"))
    model.generation_config = GenerationConfig()
    *_, last = (decoding := decode_steps(model, prompts(), max_new_tokens=4))
    same(decoding.sequences, model.generate(**prompts(), max_new_tokens=4))
    assert last.reasons == ("length",) * 3


# ---- lazy, without a trace ---------------------------------------------------------------------------


def test_the_nth_pass_is_made_by_the_nth_next():
    model = model_of("GPT2")
    with Calls(model) as calls:
        decoding = decode_steps(model, prompt(), max_new_tokens=4, eos_token_id=None)
        assert len(calls.given) == 0
        for number in range(1, 5):
            next(decoding)
            assert len(calls.given) == number
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(decoding)
        assert len(calls.given) == 4


def test_gradients_stay_as_the_caller_has_them():
    model = model_of("GPT2")
    decoding = decode_steps(model, prompt(), max_new_tokens=3)
    for step in decoding:
        assert torch.is_grad_enabled() and not step.logits.requires_grad
    with torch.no_grad():
        list(decode_steps(model, prompt(), max_new_tokens=3))
        assert not torch.is_grad_enabled()
    with pytest.raises(CourseError):
        decode_steps(model, prompt(), max_new_tokens=2, num_beams=2)
    assert torch.is_grad_enabled()


def fingerprint(model):
    """All of a model that decoding could change."""
    return (
        {name: str(value) for name, value in vars(model).items() if not name.startswith("_modules")},
        model.generation_config.to_dict(),
        sorted(vars(model.generation_config)),
        model.config.to_dict(),
        sum(parameter.double().sum().item() for parameter in model.parameters()),
    )


@pytest.mark.parametrize("cache", CACHES)
def test_stopping_early_leaves_the_model_as_it_was(cache):
    name, kwargs = CACHES[cache]
    model = tiny.__wrapped__(name, device=DEVICE)  # new: generate() notes the longest static cache on a model
    before = fingerprint(model)
    decoding = decode_steps(model, prompts(), max_new_tokens=6, **kwargs)
    next(decoding), next(decoding)
    del decoding
    assert fingerprint(model) == before


def test_what_is_done_to_inputs_and_steps_later_does_not_matter():
    model, inputs = model_of("Llama"), prompts()
    expected = model.generate(**inputs, max_new_tokens=5)
    decoding = decode_steps(model, inputs, max_new_tokens=5)
    inputs["input_ids"].fill_(50)
    inputs["attention_mask"].fill_(1)
    for _ in range(2):
        for step in decoding:
            step.finished.fill_(True)
            for tensor in (step.input_ids, step.attention_mask, step.position_ids, step.next_tokens):
                tensor.fill_(9)
        decoding.sequences.fill_(9)
        same(decoding.sequences, expected)
        decoding.back(decoding.steps_taken)


@pytest.mark.parametrize("penalty", [None, 1.3])
def test_criteria_are_given_the_scores_whatever_is_done_to_the_steps(penalty):
    def of_zeros(input_ids, scores, **kwargs):
        return scores[0].eq(0).all(dim=-1)

    kwargs = {"max_new_tokens": 4, "output_scores": True, "return_dict_in_generate": True}
    kwargs |= {"eos_token_id": None, "repetition_penalty": penalty}
    decoding = decode_steps(model_of("GPT2"), prompts(), **kwargs, stopping_criteria=[of_zeros])
    for step in decoding:
        for scores in (step.logits, *(stage for _, stage in step.stages)):
            scores.zero_()
    assert decoding.reasons == ("length",) * 3


# ---- the arguments of generate() ---------------------------------------------------------------------


def test_a_generation_config_and_the_models_own_count():
    model = copy.deepcopy(model_of("Llama"))
    model.generation_config.update(do_sample=True, top_k=7)
    config = GenerationConfig(max_new_tokens=6, temperature=0.7, eos_token_id=ENDS, pad_token_id=PAD)
    torch.manual_seed(3)
    expected = model.generate(**prompts(), generation_config=config)
    torch.manual_seed(3)
    steps = list(decoding := decode_steps(model, prompts(), generation_config=config))
    same(decoding.sequences, expected)
    assert [name for name, _ in steps[0].stages] == ["TemperatureLogitsWarper", "TopKLogitsWarper"]


def test_processors_and_criteria_of_your_own():
    def arguments():
        return {
            "max_new_tokens": 9,
            "eos_token_id": None,
            "logits_processor": LogitsProcessorList([EveryThird(), lambda ids, scores: scores.roll(1, 1)]),
            "stopping_criteria": StoppingCriteriaList([AfterSomeCalls()]),
        }

    expected = model_of("GPT2").generate(**prompts(), **arguments())
    decoding = decode_steps(model_of("GPT2"), prompts(), **arguments())
    assert expected.shape[1] == 4 + 6
    assert [name for name, _ in next(decoding).stages] == ["EveryThird", "<lambda>"]
    list(decoding)
    same(decoding.sequences, expected)
    for back in range(1, 7):
        decoding.back(back)
        list(decoding)
        same(decoding.sequences, expected)


class Remembering(LogitsProcessor):
    """Favours one token after another, by what it keeps in an attribute."""

    def __init__(self, memory):
        self.memory = memory

    def __call__(self, input_ids, scores):
        if isinstance(self.memory, deque):
            self.memory.append(input_ids.shape[1])
            token = sum(self.memory) % VOCABULARY
        elif isinstance(self.memory, torch.Generator):
            token = torch.randint(VOCABULARY, (), generator=self.memory).item()
        elif isinstance(self.memory, random.Random):
            token = self.memory.randrange(VOCABULARY)
        else:
            token = int(self.memory.integers(VOCABULARY))
        return scores.index_fill(1, torch.tensor([token], device=scores.device), 100.0)


@pytest.mark.parametrize(
    "memory",
    [
        lambda: deque(maxlen=3),
        lambda: torch.Generator().manual_seed(5),
        lambda: random.Random(5),
        lambda: numpy.random.default_rng(5),
    ],
)
def test_going_back_takes_back_what_a_processor_remembers(memory):
    def arguments():
        return {"max_new_tokens": 6, "eos_token_id": None, "logits_processor": [Remembering(memory())]}

    expected = model_of("GPT2").generate(**prompts(), **arguments())
    list(decoding := decode_steps(model_of("GPT2"), prompts(), **arguments()))
    for steps in (6, 2, 6):
        decoding.back(steps)
        list(decoding)
        same(decoding.sequences, expected)


def test_criteria_may_answer_with_numbers():
    def ended(input_ids, scores, **kwargs):
        return (input_ids[:, -1] > 20).int()

    model, kwargs = model_of("GPT2"), {"max_new_tokens": 6, "eos_token_id": [59], "pad_token_id": PAD}
    expected = model.generate(**prompts(), **kwargs, stopping_criteria=StoppingCriteriaList([ended]))
    decoding = decode_steps(model, prompts(), **kwargs, stopping_criteria=[ended])
    steps = list(decoding)
    same(decoding.sequences, expected)
    assert steps[0].finished.dtype == torch.bool and "ended" in decoding.reasons


def test_criteria_are_given_the_scores_that_generate_would_give():
    class Sure(StoppingCriteria):
        """Ends a row where the last choice was nearly certain, and remembers how many scores it was given."""

        def __init__(self):
            self.given = []

        def __call__(self, input_ids, scores, **kwargs):
            self.given.append(len(scores))
            return scores[-1].softmax(dim=-1).amax(dim=-1) > 0.5

    arguments = {"max_new_tokens": 9, "output_scores": True, "return_dict_in_generate": True}
    model, criterion = model_of("GPT2"), Sure()
    expected = model.generate(**prompts(), **arguments, stopping_criteria=StoppingCriteriaList([Sure()]))
    decoding = decode_steps(
        model, prompts(), **arguments, stopping_criteria=StoppingCriteriaList([criterion])
    )
    list(decoding)
    same(decoding.sequences, expected.sequences)
    assert criterion.given == list(range(1, len(expected.scores) + 1))


# The model's own have to be taken back by an argument, and beside a configuration that is called deprecated.
NOT_THE_MODELS = pytest.param(
    "config, not the model's", marks=pytest.mark.filterwarnings("ignore:Passing .generation_config. together")
)


@pytest.mark.parametrize("where", ["argument", "model", "config", NOT_THE_MODELS])
def test_stop_strings(where):
    # Transformers writes "abcdef" before each token to see how the token begins in a text.
    words = {"abcdef": 0} | {f"{number:02}": number for number in range(1, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="abcdef")))
    model = copy.deepcopy(model_of("GPT2"))
    strings = {"stop_strings": ["5", "31"]}
    given = {"max_new_tokens": 12, "do_sample": True, "eos_token_id": None, "pad_token_id": PAD}
    if where == "model":
        model.generation_config.update(**strings)
    elif where.startswith("config"):
        given = {"generation_config": GenerationConfig(**given, **strings)}
        if where != "config":
            model.generation_config.update(stop_strings=["7"])
    else:
        given |= strings
    torch.manual_seed(1)
    expected = model.generate(**prompt(), **given, tokenizer=tokenizer)
    torch.manual_seed(1)
    list(decoding := decode_steps(model, prompt(), **given, tokenizer=tokenizer))
    same(decoding.sequences, expected)
    assert decoding.steps_taken < 12 and decoding.reasons == ("StopStringCriteria",)


class Streamed:
    """A streamer that keeps its calls."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        self.calls.append(value.tolist())

    def end(self):
        self.calls.append("end")


def test_a_streamer_gets_the_calls_of_generate():
    theirs, ours = Streamed(), Streamed()
    model, kwargs = model_of("GPT2"), {"max_new_tokens": 4, "min_new_tokens": 2, "eos_token_id": ENDS}
    model.generate(**prompts(), **kwargs, streamer=theirs)
    decoding = decode_steps(model, prompts(), **kwargs, streamer=ours)
    assert ours.calls == [prompts()["input_ids"].tolist()]
    next(decoding)
    assert len(ours.calls) == 2
    for move in (decoding.back, lambda: decoding.choose(3)):
        with pytest.raises(CourseError, match="streamer has shown"):
            move()
    list(decoding)
    assert ours.calls == theirs.calls
    with pytest.raises(CourseError, match="batch size 1"):
        decode_steps(model, prompts(), **kwargs, streamer=TextStreamer(load_tokenizer("gpt2")))


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_a_cache_of_your_own_is_continued(kind):
    model = model_of("Llama")

    def filled():
        sized = {"max_cache_len": 24} if kind is StaticCache else {}
        cache = kind(config=model.config, **sized)
        with torch.no_grad():
            model(prompt()["input_ids"], **as_argument(cache))
        return cache

    longer = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]], device=DEVICE)}
    kwargs = {"max_new_tokens": 5, "eos_token_id": None, "disable_compile": True}
    expected = model.generate(**longer, **kwargs, **as_argument(filled()))
    decoding = decode_steps(model, longer, **kwargs, **as_argument(filled()))
    first = next(decoding)
    assert first.cache_length == 4 and first.position_ids.tolist() == [[4, 5]]
    assert first.attention_mask.shape == (1, 6)
    list(decoding)
    same(decoding.sequences, expected)
    decoding.back(5)
    list(decoding)
    same(decoding.sequences, expected)


@pytest.mark.parametrize("name", ["GPT2", "Mistral"])
def test_a_cache_that_was_filled_with_gradients_is_continued(name):
    model = model_of(name)

    def filled():
        cache = DynamicCache(config=model.config)
        model(prompt()["input_ids"], **as_argument(cache))
        return cache

    longer = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]], device=DEVICE)}
    kwargs = {"max_new_tokens": 5, "eos_token_id": None}
    expected = model.generate(**longer, **kwargs, **as_argument(filled()), logits_processor=[Halving()])
    decoding = decode_steps(
        model, longer, **kwargs, **as_argument(filled()), logits_processor=[Halving()]
    )  # a processor of one's own: the cache is kept, not shortened
    for _ in range(2):
        list(decoding)
        same(decoding.sequences, expected)
        decoding.back(5)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_model_in_training_mode_drops_out_as_in_generate(cache):
    model = copy.deepcopy(model_of("GPT2")).train()
    kwargs = {"max_new_tokens": 6, "eos_token_id": None, **CACHES[cache][1]}
    torch.manual_seed(4)
    expected = model.generate(**prompts(), **kwargs)
    torch.manual_seed(4)
    steps = list(decoding := decode_steps(model, prompts(), **kwargs))
    same(decoding.sequences, expected)
    decoding.back(2)
    for again, step in zip(decoding, steps[-2:], strict=True):
        same(again.logits, step.logits)
    model.eval()
    assert not torch.equal(expected, model.generate(**prompts(), **kwargs))


# ---- going back and choosing -------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cache", CACHES)
def test_going_back_any_number_of_steps_repeats_them(cache, sampling):
    name, kwargs = CACHES[cache]
    torch.manual_seed(5)
    decoding = decode_steps(model_of(name), prompts(), max_new_tokens=6, **kwargs, **sampling)
    steps = list(decoding)
    whole, drawn = decoding.sequences, torch.rand(1)
    for back in range(1, len(steps) + 1):
        decoding.back(back)
        assert decoding.steps_taken == len(steps) - back and not decoding.done
        same(decoding.sequences, steps[-back].input_ids)
        for step, again in zip(steps[-back:], decoding, strict=True):
            same(again.logits, step.logits)
            same(again.attention_mask, step.attention_mask)
            assert again.cache_length == step.cache_length and again.reasons == step.reasons
        same(decoding.sequences, whole)
        assert torch.rand(1) == drawn


def test_a_cropped_cache_costs_one_pass_and_a_repeated_one_all():
    for cache, passes in (("dynamic", 1), ("sliding", 4), ("static", 4)):
        name, kwargs = CACHES[cache]
        model = model_of(name)
        decoding = decode_steps(model, prompt(), max_new_tokens=6, eos_token_id=None, **kwargs)
        list(decoding)
        with Calls(model) as calls:
            decoding.back(2)
            decoding.back(1)
            assert len(calls.given) == 0
            next(decoding)
            assert len(calls.given) == passes


def test_another_seed_after_going_back_draws_something_else():
    torch.manual_seed(6)
    decoding = decode_steps(model_of("Llama"), prompt(), max_new_tokens=6, eos_token_id=None, **SAMPLED)
    list(decoding)
    first = decoding.sequences
    decoding.back(5)
    torch.manual_seed(7)
    list(decoding)
    assert torch.equal(decoding.sequences[:, :5], first[:, :5])
    assert not torch.equal(decoding.sequences, first)


class Force(LogitsProcessor):
    """Leaves one token in one row at one length: what `choose` does, inside of generate()."""

    def __init__(self, token, row, length):
        self.token, self.row, self.length = token, row, length

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] == self.length:
            scores[self.row] = -torch.inf
            scores[self.row, self.token] = 0
        return scores


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cache", CACHES)
def test_choosing_at_any_step_is_what_generate_does_when_it_is_forced(cache, sampling):
    name, kwargs = CACHES[cache]
    model = model_of(name)
    kwargs = {"max_new_tokens": 6, "min_new_tokens": 6, "eos_token_id": ENDS, **kwargs, **sampling}
    torch.manual_seed(8)
    decoding = decode_steps(model, prompts(), **kwargs)
    list(decoding)
    start = decoding.sequences.shape[1] - 6
    for index in range(6):
        decoding.back(decoding.steps_taken)
        for _ in range(index + 1):
            next(decoding)
        decoding.choose(50 + index, row=1)
        list(decoding)
        torch.manual_seed(8)
        forced = LogitsProcessorList([Force(50 + index, 1, start + index)])
        same(decoding.sequences, model.generate(**prompts(), **kwargs, logits_processor=forced))


@pytest.mark.parametrize("cache", ["dynamic", "none", "static", "sliding"])
def test_what_follows_another_choice_is_generate_from_that_prefix(cache):
    name, kwargs = CACHES[cache]
    model, length = model_of(name), 6
    decoding = decode_steps(model, prompts(), max_new_tokens=length, eos_token_id=None, **kwargs)
    for index in reversed(range(length - 1)):
        list(decoding)
        decoding.back(length - 1 - index)
        decoding.choose(50 + index, row=1)
        prefix, left = decoding.sequences, length - 1 - index
        assert prefix[1, -1] == 50 + index and decoding.steps_taken == index + 1
        list(decoding)
        mask = torch.nn.functional.pad(prompts()["attention_mask"], (0, index + 1), value=1)
        rest = {"attention_mask": mask, "max_new_tokens": left, "eos_token_id": None, **kwargs}
        same(decoding.sequences, model.generate(prefix, **rest))


def test_choosing_in_an_encoder_decoder_model_is_generate_from_that_prefix():
    model = model_of("T5")
    decoding = decode_steps(model, prompts(), max_new_tokens=6, eos_token_id=None)
    list(decoding)
    decoding.back(3)
    decoding.choose(44, row=2)
    prefix = decoding.sequences
    list(decoding)
    kwargs = {"decoder_input_ids": prefix, "max_new_tokens": 3, "eos_token_id": None}
    same(decoding.sequences, model.generate(**prompts(), **kwargs))


def test_choosing_may_end_a_row_or_take_its_end_back():
    decoding = decode_steps(model_of("GPT2"), prompts(), max_new_tokens=4, eos_token_id=[END])
    next(decoding)
    decoding.choose(END, row=1)
    assert decoding.reasons == (None, "end of text", None)
    step = next(decoding)
    assert step.next_tokens[1] == PAD and step.finished.tolist() == [False, True, False]
    with pytest.raises(CourseError, match=r"Row 1 was finished before this step \(end of text\)"):
        decoding.choose(50, row=1)
    decoding.back()
    decoding.choose(50, row=1)
    assert decoding.reasons == (None, None, None)
    assert next(decoding).input_ids[:, -1].tolist()[1] == 50


def test_choosing_goes_on_after_all_rows_were_finished():
    model = model_of("GPT2")
    first = int(next(decode_steps(model, prompt(), max_new_tokens=1)).next_tokens)
    decoding = decode_steps(model, prompt(), max_new_tokens=4, eos_token_id=[first])
    assert len(list(decoding)) == 1 and decoding.reasons == ("end of text",)
    decoding.choose((first + 1) % VOCABULARY)
    assert not decoding.done and next(decoding).index == 1


def test_choosing_asks_a_criterion_that_remembers_only_once():
    criterion = AfterSomeCalls()
    decoding = decode_steps(
        model_of("GPT2"),
        prompt(),
        max_new_tokens=9,
        eos_token_id=None,
        stopping_criteria=StoppingCriteriaList([criterion]),
    )
    for number in range(1, 6):
        next(decoding)
        decoding.choose(30)
        assert criterion.calls == number and not decoding.done
    next(decoding)
    assert decoding.reasons == ("AfterSomeCalls",)


@pytest.mark.parametrize(
    ("move", "sentence"),
    [
        (lambda decoding: decoding.back(3), r"steps is 3. The steps taken are numbered from 1 to 2"),
        (lambda decoding: decoding.back(0), r"steps is 0"),
        (lambda decoding: decoding.back(True), r"steps is True"),
        (lambda decoding: decoding.choose(VOCABULARY), r"token is 60. The model's ids go from 0 to 59"),
        (lambda decoding: decoding.choose(-1), r"token is -1"),
        (lambda decoding: decoding.choose(" Paris"), r"token is ' Paris'"),
        (lambda decoding: decoding.choose(4, row=3), r"row is 3. The rows are numbered from 0 to 2"),
    ],
)
def test_impossible_moves_are_refused_and_change_nothing(move, sentence):
    decoding = decode_steps(model_of("GPT2"), prompts(), max_new_tokens=4, eos_token_id=None)
    next(decoding), next(decoding)
    before = decoding.sequences
    with pytest.raises(CourseError, match=sentence):
        move(decoding)
    same(decoding.sequences, before)
    list(decoding)
    same(decoding.sequences, model_of("GPT2").generate(**prompts(), max_new_tokens=4, eos_token_id=None))


def test_before_the_first_step_there_is_nothing_to_undo_or_replace():
    decoding = decode_steps(model_of("GPT2"), prompt(), max_new_tokens=4)
    with pytest.raises(CourseError, match="No step was taken"):
        decoding.back()
    with pytest.raises(CourseError, match="No token was chosen yet"):
        decoding.choose(4)


# ---- interrupted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("cache", CACHES)
def test_an_interrupted_step_is_not_half_taken(cache, at):
    name, kwargs = CACHES[cache]
    model = model_of(name)
    kwargs = {"max_new_tokens": 6, "eos_token_id": None, **SAMPLED, **kwargs}
    torch.manual_seed(9)
    expected = model.generate(**prompts(), **kwargs)
    torch.manual_seed(9)
    decoding = decode_steps(model, prompts(), **kwargs)
    for _ in range(at):
        next(decoding)

    def interrupt(*_):
        raise KeyboardInterrupt

    # Between the two layers: the first has taken the new keys in, the second has not.
    layers = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 2]
    hook = layers[-1][1].register_forward_pre_hook(interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            next(decoding)
        assert decoding.steps_taken == at
    hook.remove()
    list(decoding)
    same(decoding.sequences, expected)


@pytest.mark.parametrize("at", [0, 2])
def test_a_cache_is_mended_wherever_it_was_interrupted(at, monkeypatch):
    """Ctrl-C at each call of torch.cat in a step: some are between the keys and the values of a layer."""
    model, join, calls = model_of("Llama"), torch.cat, []

    def counted(tensors, **kwargs):
        calls.append(len(calls))
        if calls == list(range(limit)):
            raise KeyboardInterrupt
        return join(tensors, **kwargs)

    kwargs = {"max_new_tokens": 5, "eos_token_id": None}
    expected = model.generate(**prompts(), **kwargs)
    limit = 0
    while limit <= len(calls):  # until a whole step has fewer calls
        limit += 1
        calls.clear()
        decoding = decode_steps(model, prompts(), **kwargs)
        for _ in range(at):
            next(decoding)
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(torch, "cat", counted)
            next(decoding)
        list(decoding)
        same(decoding.sequences, expected)
    assert limit > 8  # two layers with keys and values, and more


def test_a_processor_that_fails_once_leaves_the_step_to_be_taken():
    class FailsOnce(LogitsProcessor):
        failed = False

        def __call__(self, input_ids, scores):
            if input_ids.shape[1] == 6 and not FailsOnce.failed:
                FailsOnce.failed = True
                raise ZeroDivisionError
            return scores

    kwargs = {"max_new_tokens": 6, "eos_token_id": None, **SAMPLED}
    torch.manual_seed(9)
    expected = model_of("GPT2").generate(**prompts(), **kwargs)
    torch.manual_seed(9)
    processors = LogitsProcessorList([FailsOnce()])
    decoding = decode_steps(model_of("GPT2"), prompts(), **kwargs, logits_processor=processors)
    with pytest.raises(ZeroDivisionError):
        list(decoding)
    assert decoding.steps_taken == 2
    list(decoding)
    same(decoding.sequences, expected)


# ---- bad input ---------------------------------------------------------------------------------------

IDS = torch.tensor([[5, 6, 7, 8]], device=DEVICE)
BAD_INPUT = {
    "nothing": (None, {}, "given no prompt"),
    "a text": ("The capital", {}, "given a str"),
    "a tensor": (IDS, {}, "given a Tensor"),
    "no ids": ({}, {}, "There is no prompt"),
    "only a mask": ({"attention_mask": IDS.clamp(max=1)}, {}, "There is no prompt"),
    "an empty prompt": ({"input_ids": IDS[:, :0]}, {}, "The prompt is empty"),
    "no rows": ({"input_ids": IDS[:0]}, {}, "The prompt is empty"),
    "lists": ({"input_ids": IDS.tolist()}, {}, "input_ids is a list"),
    "one dimension": ({"input_ids": IDS[0]}, {}, r"type input_ids\[None\]"),
    "fractions": ({"input_ids": IDS.float()}, {}, r"type torch.float32; ids are integers"),
    "small integers": ({"input_ids": IDS.to(torch.uint8)}, {}, r"type torch.uint8; ids are integers"),
    "a foreign id": ({"input_ids": IDS + 52}, {}, "input_ids holds 60, and this model's ids go from 0 to 59"),
    "a short mask": ({"input_ids": IDS, "attention_mask": IDS[:, :3].clamp(max=1)}, {}, "mask has the shape"),
    "a mask of twos": ({"input_ids": IDS, "attention_mask": IDS.clamp(max=2)}, {}, "this one holds 2"),
    "vectors of no row": (
        {"inputs_embeds": torch.ones(4, WIDTH)},
        {},
        r"inputs_embeds has the shape \(4, 32\)",
    ),
    "no vectors": (
        {"inputs_embeds": torch.ones(1, 0, WIDTH)},
        {},
        r"inputs_embeds has the shape \(1, 0, 32\)",
    ),
    "a dict of settings": (
        {"input_ids": IDS},
        {"generation_config": {"top_k": 5}},
        "generation_config is a dict",
    ),
    "ids twice": ({"input_ids": IDS}, {"input_ids": IDS}, "input_ids is given twice"),
    "zero new tokens": ({"input_ids": IDS}, {"max_new_tokens": 0}, "max_new_tokens is 0"),
    "negative length": ({"input_ids": IDS}, {"max_length": -3}, "max_length is -3"),
    "half a token": ({"input_ids": IDS}, {"max_new_tokens": 0.5}, "max_new_tokens is 0.5"),
    "a length of the prompt": ({"input_ids": IDS}, {"max_length": 4}, "Input length of input_ids is 4"),
    "temperature 0": ({"input_ids": IDS}, {"temperature": 0.0, "do_sample": True}, "temperature is 0.0"),
    "temperature below": ({"input_ids": IDS}, {"temperature": -1, "do_sample": True}, "temperature is -1"),
    "top_p of 2": ({"input_ids": IDS}, {"top_p": -2.0, "do_sample": True}, "top_p"),
    "a typing error": ({"input_ids": IDS}, {"temprature": 0.5}, "temprature. Did you mean temperature?"),
    "an unknown name": ({"input_ids": IDS}, {"zzz": 1}, "no argument zzz. Leave it out"),
    "beams": ({"input_ids": IDS}, {"num_beams": 3}, "num_beams=3 asks .*lesson 06 .*Type num_beams=1"),
    "lookup": ({"input_ids": IDS}, {"prompt_lookup_num_tokens": 2}, "lesson 06"),
    "an assistant": ({"input_ids": IDS}, {"assistant_model": tiny("GPT2")}, "lesson 06"),
    "early exit": ({"input_ids": IDS}, {"assistant_early_exit": 1}, "lesson 06"),
    "contrastive": ({"input_ids": IDS}, {"penalty_alpha": 0.5}, "contrastive search"),
    "a loop": ({"input_ids": IDS}, {"custom_generate": print}, "lesson 05"),
    "paged": ({"input_ids": IDS}, {"cache_implementation": "paged"}, "continuous batching"),
    "greedy thrice": ({"input_ids": IDS}, {"num_return_sequences": 3}, "num_return_sequences"),
    "no tokenizer": ({"input_ids": IDS}, {"stop_strings": ["a"]}, "Add tokenizer=tokenizer"),
    "no pad": (
        {"input_ids": IDS},
        {"eos_token_id": None, "pad_token_id": None, "stopping_criteria": "its own end"},
        "Add pad_token_id",
    ),
}


class OwnEnd(AfterSomeCalls):
    eos_token_id = 3


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_a_sentence_and_changes_nothing(case):
    inputs, kwargs, sentence = BAD_INPUT[case]
    kwargs = {"max_new_tokens": 3, **kwargs} if "max_length" not in kwargs else dict(kwargs)
    model = model_of("GPT2")
    if case == "no pad":
        model = copy.deepcopy(model)
        model.generation_config = GenerationConfig()
        kwargs["stopping_criteria"] = StoppingCriteriaList([OwnEnd()])
    before, state = fingerprint(model), torch.get_rng_state()
    with pytest.raises(CourseError, match=sentence):
        decode_steps(model, inputs, **kwargs)
    assert fingerprint(model) == before
    same(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (torch.tensor([2, 5]), r"decoder_input_ids has the shape \(2,\)"),
        (torch.tensor([[2.0, 5.0]]), r"Type decoder_input_ids.long\(\)"),
        (torch.tensor([[2, 99]]), "decoder_input_ids holds 99"),
    ],
)
def test_a_decoders_prompt_is_looked_at_too(ids, sentence):
    with pytest.raises(CourseError, match=sentence):
        decode_steps(model_of("T5"), prompt() | {"decoder_input_ids": ids.to(DEVICE)}, max_new_tokens=3)


def test_what_another_model_reads_is_no_typing_error():
    inputs = prompt() | {"token_type_ids": torch.zeros_like(IDS)}
    with pytest.raises(CourseError, match=r"no argument token_type_ids\. Leave it out"):
        decode_steps(model_of("Llama"), inputs, max_new_tokens=3)


def test_no_loop_of_ones_own_is_none():
    kwargs = {"max_new_tokens": 3, "custom_generate": None}
    list(decoding := decode_steps(model_of("GPT2"), prompts(), **kwargs))
    same(decoding.sequences, model_of("GPT2").generate(**prompts(), **kwargs))


def test_a_model_without_a_head_is_refused():
    encoder = T5EncoderModel(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(CourseError, match="T5EncoderModel has no generate"):
        decode_steps(encoder, prompt(), max_new_tokens=2)


@pytest.mark.parametrize("name", ["GPT2", "OPT"])
def test_what_does_not_fit_into_the_positions_is_refused_and_what_fits_runs(name):
    model = model_of(name)
    inputs = {"input_ids": IDS.repeat(1, POSITIONS // 4)[:, :-2]}
    with pytest.raises(CourseError, match="positions, so 3 fit: type max_new_tokens=3"):
        decode_steps(model, inputs, max_new_tokens=4, eos_token_id=None)
    list(decoding := decode_steps(model, inputs, max_new_tokens=3, eos_token_id=None))
    same(decoding.sequences, model.generate(**inputs, max_new_tokens=3, eos_token_id=None))
    longer = {"input_ids": IDS.repeat(1, POSITIONS)}
    with pytest.raises(CourseError, match=f"{POSITIONS} positions. Shorten the prompt by {POSITIONS * 3}"):
        decode_steps(model, longer, max_new_tokens=1)


def test_padding_takes_no_position():
    padded = torch.nn.functional.pad(IDS, (POSITIONS, 0), value=PAD)
    inputs = {"input_ids": padded, "attention_mask": (padded != PAD).long()}
    list(decoding := decode_steps(model_of("GPT2"), inputs, max_new_tokens=3))
    same(decoding.sequences, model_of("GPT2").generate(**inputs, max_new_tokens=3))


@pytest.mark.parametrize("name", ["Llama", "Bloom", "T5"])
def test_positions_that_are_computed_have_no_end(name):
    inputs = {"input_ids": IDS.repeat(1, POSITIONS)}
    list(decoding := decode_steps(model_of(name), inputs, max_new_tokens=2))
    same(decoding.sequences, model_of(name).generate(**inputs, max_new_tokens=2))


@pytest.mark.parametrize("name", ["Llama", "T5"])
def test_a_vocabulary_as_large_as_the_trained_length_is_no_table_of_positions(name):
    model = copy.deepcopy(model_of(name))
    model.config.max_position_embeddings = VOCABULARY
    list(decoding := decode_steps(model, {"input_ids": IDS.repeat(1, 20)}, max_new_tokens=2))
    assert decoding.steps_taken == 2


def test_an_encoders_prompt_has_to_fit_too():
    with pytest.raises(CourseError, match=f"encoder has {POSITIONS} positions"):
        decode_steps(model_of("Bart"), {"input_ids": IDS.repeat(1, POSITIONS)}, max_new_tokens=2)


def test_logits_that_are_not_finite_are_named_with_step_and_row():
    model = copy.deepcopy(model_of("GPT2"))
    decoding = decode_steps(model, prompts(), max_new_tokens=4, eos_token_id=None)
    next(decoding)
    weight = model.transformer.ln_f.weight
    whole = weight.detach().clone()
    weight.data.fill_(torch.nan)
    with pytest.raises(CourseError, match=r"At step 1 .*row 0 .*after the model: the scores hold NaN"):
        next(decoding)
    weight.data.copy_(whole)
    list(decoding)
    same(decoding.sequences, model.generate(**prompts(), max_new_tokens=4, eos_token_id=None))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-torch.inf, r"At step 2 .*row 1 .*after Spoil: every token is at -inf"),
        (torch.inf, r"hold \+inf. Look at the scores that it returns"),
        (torch.nan, "hold NaN"),
    ],
)
@pytest.mark.parametrize("sampling", [{}, SAMPLED])
def test_a_processor_that_leaves_no_distribution_is_named(value, sentence, sampling):
    class Spoil(LogitsProcessor):
        def __call__(self, input_ids, scores):
            scores[1] = value if input_ids.shape[1] == 6 else scores[1]
            return scores

    kwargs = {"max_new_tokens": 4, "eos_token_id": None, "logits_processor": [Spoil()], **sampling}
    decoding = decode_steps(model_of("GPT2"), prompts(), **kwargs)
    with pytest.raises(CourseError, match=sentence):
        list(decoding)
    assert decoding.steps_taken == 2


def test_values_that_generate_removes_are_no_error():
    model = copy.deepcopy(model_of("GPT2"))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.lm_head.weight.data[7] = torch.nan
    kwargs = {"max_new_tokens": 4, "remove_invalid_values": True}
    list(decoding := decode_steps(model, prompts(), **kwargs))
    same(decoding.sequences, model.generate(**prompts(), **kwargs))
