"""Training by policy gradient: what a run raises, what it leaves alone, and what it refuses."""

import math
from types import SimpleNamespace

import numpy
import pytest
import torch

from course_utils import load, training
from course_utils.errors import CourseError
from course_utils.objectives import REINFORCE, Objective
from course_utils.training import ProgressBar, sample, train_habit, trained_parts

PROMPT = "My dog is"
SHORT = {"steps": 2, "samples": 6, "new_tokens": 4, "temperature": 1.0}


def length(text):
    return float(len(text))


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-llama"])
def pair(request):
    return load(request.param)


@pytest.fixture
def unchanged(pair):
    """The model, whose weights, flags and mode must be after the test as they were before it."""
    model, tokenizer = pair
    before = state(model)
    yield model, tokenizer
    assert_same(model, before)


def state(model):
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    flags = {name: value.requires_grad for name, value in model.named_parameters()}
    return weights, flags, [module.training for module in model.modules()]


def assert_same(model, before):
    weights, flags, mode = state(model)
    assert all(torch.equal(weights[name], value) for name, value in before[0].items())
    assert (flags, mode) == before[1:]
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- what a run does ---------------------------------------------------------------------------------


def test_the_reward_rises_and_undo_takes_it_back(unchanged):
    model, tokenizer = unchanged
    embeddings = model.get_input_embeddings().weight.detach()
    wanted = embeddings[:, 0] > 0  # half of the tokens, and a direction that the trained parts can learn

    def reward(text):
        return float(wanted[tokenizer(text).input_ids[0]])

    asked = {"new_tokens": 1, "temperature": 1.0, "samples": 48}
    run = train_habit(model, tokenizer, reward, PROMPT, steps=8, learning_rate=2e-2, seed=0, **asked)
    run.undo()
    first, last = run.steps[0], run.steps[-1]
    assert last.reward > first.reward + 0.15 and last.kl > first.kl > 0
    assert "8 steps" in repr(run)


def test_only_the_last_block_and_the_final_norm_move(pair):
    model, tokenizer = pair
    before, _, _ = state(model)
    run = train_habit(model, tokenizer, length, PROMPT, **SHORT)
    trained = {id(parameter) for part in trained_parts(model) for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in trained), name
    run.undo()


def test_a_seed_repeats_a_run_and_leaves_the_random_state(unchanged):
    model, tokenizer = unchanged
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seen = []
    for _ in range(2):
        run = train_habit(model, tokenizer, length, PROMPT, **SHORT, seed=4, on_step=seen.append)
        run.undo()
    assert torch.equal(torch.rand(3), expected)
    first, again = seen[:2], seen[2:]
    assert [step.texts for step in first] == [step.texts for step in again]
    assert [step.kl for step in first] == pytest.approx([step.kl for step in again])
    other = train_habit(model, tokenizer, length, PROMPT, **SHORT, seed=5)
    other.undo()
    assert other.steps[0].texts != first[0].texts


def test_one_step_is_adamw_along_the_policy_gradient(unchanged):
    """Against a step that is written out, with the log probabilities of one token at a time."""
    model, tokenizer = unchanged
    asked = {"samples": 3, "new_tokens": 2, "temperature": 0.8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = sample(model, tokenizer, PROMPT, **asked)
    rewards = torch.tensor([length(text) for text in drawn.texts], device=model.device)
    weights = (rewards - rewards.mean()) * 3 / 2
    parameters = [parameter for part in trained_parts(model) for parameter in part.parameters()]
    loss = 0
    for row, weight in zip(drawn.sequences, weights, strict=True):
        for place in range(drawn.prompt_length, len(row)):
            logits = model(row[None, :place]).logits[0, -1] / 0.8
            loss = loss - weight * logits.log_softmax(-1)[row[place]] / 3
    gradients = torch.autograd.grad(loss, parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    run = train_habit(model, tokenizer, length, PROMPT, steps=1, learning_rate=1e-3, seed=0, **asked)
    for parameter, start, gradient in zip(parameters, before, gradients, strict=True):
        clear = gradient.abs() > 1e-4  # the first step of AdamW is the gradient's sign
        moved = (parameter.detach() - start)[clear]
        torch.testing.assert_close(moved, -1e-3 * gradient[clear].sign(), atol=2e-5, rtol=0)
    assert run.steps[0].loss == pytest.approx(loss.item(), rel=1e-3)
    run.undo()


def test_several_prompts_make_groups_of_their_own(unchanged):
    """The second prompt's rewards are all higher: advantages per prompt do not see that."""
    model, tokenizer = unchanged
    prompts = ["My dog is", "It will rain in the"]
    seen = []

    def reward(text):
        seen.append(text)
        group = (len(seen) - 1) // SHORT["samples"] % 2
        return length(text) + 1000 * group

    alike = train_habit(model, tokenizer, length, prompts, **SHORT, seed=2)
    alike.undo()
    apart = train_habit(model, tokenizer, reward, prompts, **SHORT, seed=2)
    apart.undo()
    assert [step.texts for step in alike.steps] == [step.texts for step in apart.steps]
    assert [step.kl for step in alike.steps] == pytest.approx([step.kl for step in apart.steps], rel=1e-3)
    assert len(alike.steps[0].texts) == 2 * SHORT["samples"]
    assert apart.steps[0].reward == pytest.approx(alike.steps[0].reward + 500)


def test_a_clip_holds_many_updates_back(unchanged):
    model, tokenizer = unchanged
    asked = SHORT | {"steps": 1, "samples": 16, "learning_rate": 2e-3, "seed": 1, "updates": 16}
    found = {}
    for clip in (None, (0.2, 0.2)):
        run = train_habit(model, tokenizer, length, PROMPT, **asked, objective=Objective(clip=clip))
        run.undo()
        found[clip] = run.steps[0]
    assert found[0.2, 0.2].kl < 0.7 * found[None].kl
    assert found[0.2, 0.2].clipped > 0.5 and found[None].clipped == 0


@pytest.mark.parametrize("terms", [{"kl": "k1", "kl_in": "reward"}, {"kl": "k3", "kl_in": "loss"}])
def test_a_kl_holds_the_model_near_its_beginning(terms):
    model, tokenizer = load("tiny-llama")
    asked = SHORT | {"steps": 3, "samples": 8, "learning_rate": 5e-3, "seed": 1, "updates": 4}
    found = []
    for weight in (0.0, 1000.0):
        objective = Objective(clip=None, kl_weight=weight, **terms)
        run = train_habit(model, tokenizer, length, PROMPT, **asked, objective=objective)
        run.undo()
        found.append(run.steps[-1].kl)
    assert found[1] < 0.7 * found[0]


def test_the_first_update_of_any_ratio_is_reinforces(unchanged):
    model, tokenizer = unchanged
    asked = SHORT | {"steps": 1, "seed": 3}
    parameters = [weight for part in trained_parts(model) for weight in part.parameters()]
    moved = []
    for objective in (REINFORCE, Objective(), Objective(clip=None, over="length", longest=1)):
        run = train_habit(model, tokenizer, length, PROMPT, **asked, objective=objective)
        moved.append(torch.cat([weight.detach().flatten() for weight in parameters]))
        run.undo()
    start = torch.cat([weight.detach().flatten() for weight in parameters])
    for other in moved[1:]:
        steps = moved[0] - start, other - start
        assert torch.cosine_similarity(*steps, dim=0) > 0.99


def test_kl_is_that_of_the_whole_model(unchanged):
    model, tokenizer = unchanged
    asked = {"samples": 5, "new_tokens": 3, "temperature": 0.8}

    def log_probs(drawn):
        with torch.no_grad():
            logits = model(drawn.sequences).logits[:, drawn.prompt_length - 1 : -1] / 0.8
        return logits.log_softmax(-1)[drawn.drawn]

    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = sample(model, tokenizer, PROMPT, **asked)
    start = log_probs(drawn)
    run = train_habit(model, tokenizer, length, PROMPT, steps=1, learning_rate=1e-2, seed=1, **asked)
    now = log_probs(drawn)
    assert run.steps[0].kl == pytest.approx((now.exp() * (now - start)).sum(-1).mean().item(), rel=1e-3)
    run.undo()


class Ending:
    """A tokenizer with another end of text."""

    def __init__(self, tokenizer, end):
        self.tokenizer, self.eos_token_id, self.decode = tokenizer, end, tokenizer.decode

    def __call__(self, *args, **kwargs):
        return self.tokenizer(*args, **kwargs)


def test_what_follows_an_end_of_text_is_neither_text_nor_trained(unchanged):
    model, tokenizer = unchanged
    asked = {"samples": 8, "new_tokens": 6, "temperature": 1.0}
    free = sample(model, tokenizer, PROMPT, **asked, seed=0)
    new = free.sequences[:, free.prompt_length :]
    early = Ending(tokenizer, new[0, 1].item())
    ended = sample(model, early, PROMPT, **asked, seed=0)
    assert ended.drawn[0].tolist() == [True, True] + [False] * (ended.drawn.shape[1] - 2)
    assert ended.texts[0] == tokenizer.decode(new[0, :2])
    run = train_habit(model, early, length, PROMPT, steps=1, **asked, seed=0)
    run.undo()
    rewards = torch.tensor([length(text) for text in ended.texts])
    weights = (rewards - rewards.mean()) * 8 / 7
    with torch.no_grad():
        logits = model(ended.sequences).logits[:, ended.prompt_length - 1 : -1].log_softmax(-1)
    found = logits.gather(-1, ended.sequences[:, ended.prompt_length :, None]).squeeze(-1).cpu()
    expected = -(weights * (found * ended.drawn.cpu()).sum(1)).mean().item()
    assert run.steps[0].loss == pytest.approx(expected, rel=1e-3)


def test_rewards_that_become_equal_later_change_nothing(unchanged):
    model, tokenizer = unchanged
    calls = []

    def reward(text):
        calls.append(text)
        return length(text) if len(calls) <= SHORT["samples"] else 1.0

    run = train_habit(model, tokenizer, reward, PROMPT, **SHORT)
    assert run.steps[0].spread > 0 and run.steps[1].spread == 0
    assert run.steps[1].loss == 0
    run.undo()


def test_a_tensor_of_one_number_is_a_reward(unchanged):
    model, tokenizer = unchanged
    train_habit(model, tokenizer, lambda text: torch.tensor([length(text)]), PROMPT, **SHORT).undo()


@pytest.mark.parametrize("kind", [numpy.float32, numpy.int64, numpy.array, lambda n: numpy.bool_(n % 2)])
def test_a_number_of_numpy_is_a_reward(unchanged, kind):
    model, tokenizer = unchanged
    run = train_habit(model, tokenizer, lambda text: kind(len(text)), PROMPT, **SHORT)
    run.undo()
    found = [float(kind(len(text))) for text in run.steps[0].texts]
    assert run.steps[0].reward == pytest.approx(sum(found) / len(found))


def test_numbers_may_be_numpys_or_tensors(unchanged):
    model, tokenizer = unchanged
    plain = train_habit(model, tokenizer, length, PROMPT, **SHORT, learning_rate=0.25, seed=3)
    plain.undo()
    for whole, real in ((numpy.int64, numpy.float32), (torch.tensor, torch.tensor)):
        asked = {name: whole(number) for name, number in SHORT.items() if name != "temperature"}
        asked |= {"temperature": real(1.0), "learning_rate": real(0.25), "seed": whole(3)}
        run = train_habit(model, tokenizer, length, PROMPT, **asked)
        run.undo()
        assert run.steps == plain.steps


def test_rewards_that_differ_far_from_zero_are_told_apart(unchanged):
    """In float32 a hundred million and one more are the same number."""
    model, tokenizer = unchanged
    runs = []
    for offset in (0, 10**8):
        run = train_habit(model, tokenizer, lambda text, add=offset: len(text) % 2 + add, PROMPT, **SHORT)
        run.undo()
        runs.append(run.steps)
    near, far = runs
    assert [step.texts for step in near] == [step.texts for step in far]
    assert [step.loss for step in near] == pytest.approx([step.loss for step in far], abs=1e-5)
    assert [step.spread for step in near] == pytest.approx([step.spread for step in far])


def test_equal_rewards_with_a_rounded_mean_change_nothing(unchanged):
    model, tokenizer = unchanged
    calls = []

    def reward(text):
        calls.append(text)
        return length(text) if len(calls) <= SHORT["samples"] else 0.1

    before = None

    def note(step):
        nonlocal before
        if step.step == 1:
            before = state(model)[0]

    run = train_habit(model, tokenizer, reward, PROMPT, **SHORT, on_step=note)
    assert run.steps[1].spread == 0
    assert all(torch.equal(value, before[name]) for name, value in state(model)[0].items())
    run.undo()


def test_no_seed_draws_from_the_global_random_state(unchanged):
    model, tokenizer = unchanged
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        run = train_habit(model, tokenizer, length, PROMPT, **SHORT, seed=None)
        run.undo()
        runs.append([step.texts for step in run.steps])
    assert runs[0] == runs[1] != runs[2]


def test_a_whole_temperature_is_the_same_number(unchanged):
    model, tokenizer = unchanged
    runs = [train_habit(model, tokenizer, length, PROMPT, **SHORT | {"temperature": t}) for t in (2, 2.0)]
    for run in reversed(runs):
        run.undo()
    assert sample(model, tokenizer, PROMPT, temperature=2, seed=0).texts == (
        sample(model, tokenizer, PROMPT, temperature=2.0, seed=0).texts
    )


def test_a_tokenizer_without_an_end_ends_no_row(unchanged):
    model, tokenizer = unchanged
    endless = Ending(tokenizer, None)
    drawn = sample(model, endless, PROMPT, samples=4, new_tokens=3, seed=0).drawn
    assert drawn.tolist() == [[True] * 3] * 4
    train_habit(model, endless, length, PROMPT, **SHORT).undo()


def test_the_models_own_settings_are_no_part_of_the_draw(unchanged, monkeypatch):
    model, tokenizer = unchanged
    plain = sample(model, tokenizer, PROMPT, temperature=1.0, seed=0).texts
    for name, value in (("top_p", 0.2), ("top_k", 2), ("repetition_penalty", 3.0)):
        monkeypatch.setattr(model.generation_config, name, value)
    assert sample(model, tokenizer, PROMPT, temperature=1.0, seed=0).texts == plain


# ---- what it refuses, and what is left then ----------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda text: math.nan, "is nan"),
        (lambda text: math.inf, "is inf"),
        (lambda text: 10**400, "is inf"),
        (lambda text: "1.0", "is a str"),
        (lambda text: 1j, "is a complex"),
        (lambda text: 1.0, "nothing to learn from"),
        (lambda text: [1.0, 2.0], "is a list"),
        (lambda text: None, "is a NoneType"),
        (lambda text: torch.ones(2, 3), r"tensor of the shape \(2, 3\)"),
    ],
)
def test_rewards_that_are_refused(unchanged, reward, words):
    with pytest.raises(CourseError, match=words):
        train_habit(*unchanged, reward, PROMPT, **SHORT)


def test_a_reward_that_turns_nan_in_a_later_step_takes_the_steps_back(unchanged):
    calls = []

    def reward(text):
        calls.append(text)
        return length(text) if len(calls) <= SHORT["samples"] else math.nan

    with pytest.raises(CourseError, match="is nan"):
        train_habit(*unchanged, reward, PROMPT, **SHORT)
    assert len(calls) == SHORT["samples"] + 1


@pytest.mark.parametrize(("rate", "limit"), [(0.05, 1e-3), (1e30, 6.0)])
def test_a_learning_rate_that_diverges_is_stopped(unchanged, monkeypatch, rate, limit):
    monkeypatch.setattr(training, "MOST_KL", limit)
    with pytest.raises(CourseError, match=r"diverged in step 1 of 2.*as they were before the run") as caught:
        train_habit(*unchanged, length, PROMPT, **SHORT, learning_rate=rate)
    assert f"learning_rate={rate / 10:g}" in str(caught.value)


@pytest.mark.parametrize("place", ["reward", "on_step", "backward"])
def test_an_interrupt_gives_the_weights_back(unchanged, monkeypatch, place):
    model, tokenizer = unchanged
    calls = []

    def interrupt(*args, **kwargs):
        calls.append(place)
        if len(calls) == 2 or place == "reward":
            raise KeyboardInterrupt
        return original(*args, **kwargs) if place == "backward" else None

    original = torch.Tensor.backward
    if place == "backward":
        monkeypatch.setattr(torch.Tensor, "backward", interrupt)
    reward = interrupt if place == "reward" else length
    on_step = interrupt if place == "on_step" else None
    done = {"reward": 0, "on_step": 2, "backward": 1}[place]
    with pytest.raises(CourseError, match=f"Stopped after {done} of 2 steps.*before the run"):
        train_habit(model, tokenizer, reward, PROMPT, **SHORT, on_step=on_step)


def test_an_error_in_the_reward_is_the_learners_and_takes_the_steps_back(unchanged):
    calls = []

    def reward(text):
        calls.append(text)
        if len(calls) > SHORT["samples"]:
            raise ZeroDivisionError("mine")
        return length(text)

    with pytest.raises(ZeroDivisionError, match="mine"):
        train_habit(*unchanged, reward, PROMPT, **SHORT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"samples": 1}, "at least 2"),
        ({"new_tokens": 2.0}, "new_tokens is 2.0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"temperature": -1}, "temperature is -1"),
        ({"steps": True}, "steps is True"),
        ({"samples": torch.tensor(True)}, "at least 2"),
        ({"learning_rate": "1"}, "learning_rate is '1'"),
        ({"temperature": torch.ones(2)}, "Give a number above 0"),
        ({"seed": "a"}, "The seed is 'a'. Give a whole number"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": None}, "prompt is of type NoneType"),
        ({"prompt": []}, "There is no prompt"),
        ({"prompt": ["I", 3]}, "prompt is of type int"),
        ({"updates": 0}, "updates is 0"),
        ({"objective": "ppo"}, "objective is of type str"),
        ({"prompt": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_numbers_that_are_refused(unchanged, change, words):
    with pytest.raises(CourseError, match=words):
        train_habit(*unchanged, length, **{"prompt": PROMPT, **SHORT, **change})


def test_texts_beyond_the_models_positions_are_refused():
    model, tokenizer = load("tiny-gpt2")
    prompt = " dog" * 1020
    with pytest.raises(CourseError, match=r"has 1,020 tokens, and 5 new ones make 1,025.*take 1 tokens"):
        sample(model, tokenizer, prompt, samples=2, new_tokens=5)
    asked = {"steps": 1, "samples": 2, "new_tokens": 4}
    train_habit(model, tokenizer, length, prompt, **asked, temperature=3.0).undo()


def test_modes_and_gradients_are_as_they_were(unchanged):
    model, tokenizer = unchanged
    parameter = model.get_output_embeddings().weight
    frozen, gradient = model.get_input_embeddings(), torch.ones_like(parameter)
    model.train()
    frozen.eval()
    parameter.grad = gradient
    before = [module.training for module in model.modules()]
    try:
        with pytest.raises(CourseError, match="prompt is empty"):
            train_habit(model, tokenizer, length, "", **SHORT)
        train_habit(model, tokenizer, length, PROMPT, **SHORT).undo()
        assert [module.training for module in model.modules()] == before
        assert parameter.grad is gradient and gradient.eq(1).all()
    finally:
        model.eval()
        model.zero_grad()


def test_a_model_that_is_built_otherwise_is_refused():
    with pytest.raises(CourseError, match="built like Llama or GPT-2"):
        trained_parts(SimpleNamespace(base_model=SimpleNamespace(encoder=[], norm=None)))


# ---- the bar -----------------------------------------------------------------------------------------


def test_the_bar_is_one_output_that_is_drawn_anew(monkeypatch):
    shown = []

    def display(what, display_id):
        shown.append(repr(what))
        return SimpleNamespace(update=lambda what: shown.append(repr(what)))

    monkeypatch.setattr("IPython.display.display", display)
    bar = ProgressBar()
    for number in (1, 2, 4):
        bar(SimpleNamespace(step=number, steps=4))
    assert shown == [
        "█████" + "░" * 15 + " step 1 of 4",
        "█" * 10 + "░" * 10 + " step 2 of 4",
        "█" * 20 + " step 4 of 4",
    ]
    assert 'value="4" max="4"' in bar._repr_html_()
