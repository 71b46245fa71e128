"""decoding.beam_search: what it reads is held to generate()'s own output and to teacher forcing."""

import random
from itertools import pairwise

import pytest
import torch
from transformers import GenerationConfig

from course_utils.decoding.beam_search import is_continuation, search_settings, watch_beam_search
from course_utils.scores import token_log_probs
from tiny import tiny_gpt2

PROMPT = torch.tensor([[1, 2, 3]])
PENALTIES = (0.0, 1.0, 2.0, -1.0)


@pytest.fixture(scope="module")
def models():
    found = []
    for seed in range(3):
        model = tiny_gpt2(positions=64, vocabulary=24, seed=seed)
        model.transformer.wte.weight.data /= 6  # a soft distribution, in which sequences end at any time
        found.append(model)
    return found


def drawn_settings(seed):
    draw = random.Random(seed)
    return {
        "num_beams": draw.randint(2, 6),
        "max_new_tokens": draw.randint(1, 8),
        "eos_token_id": draw.sample(range(24), draw.randint(0, 3)),
        "length_penalty": draw.choice(PENALTIES),
        "early_stopping": draw.choice([False, True, "never"]),
    }


@pytest.fixture(scope="module")
def runs(models):
    """Searches with drawn settings: list of (model, settings, output, steps)."""
    found = []
    for seed in range(60):
        settings = drawn_settings(seed)
        found.append((models[seed % 3], settings, *watch_beam_search(models[seed % 3], PROMPT, **settings)))
    return found


def test_watching_changes_nothing(runs):
    for model, settings, output, _ in runs[:20]:
        plain = model.generate(
            PROMPT,
            num_return_sequences=settings["num_beams"],
            **settings | {"eos_token_id": settings["eos_token_id"] or None},
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert torch.equal(output.sequences, plain.sequences)
        assert torch.equal(output.sequences_scores, plain.sequences_scores)
        for ours, theirs in zip(output.scores, plain.scores, strict=True):
            assert torch.equal(ours, theirs)


def test_every_result_is_a_finished_candidate_with_its_score(runs):
    early = 0
    for _, settings, output, steps in runs:
        of_tokens = {one.tokens: one for step in steps for one in step}
        found = zip(output.sequences.tolist(), output.beam_indices, output.sequences_scores, strict=True)
        for number, (ids, beams, score) in enumerate(found):
            length = int((beams >= 0).sum())
            one = of_tokens[tuple(ids[3 : 3 + length])]
            assert one.fate == "finished"
            assert one.total / length ** settings["length_penalty"] == pytest.approx(score.item(), abs=1e-5)
            parts = [output.scores[at][beams[at], ids[3 + at]].item() for at in range(length)]
            assert one.total == pytest.approx(sum(parts), abs=1e-4)
            assert one.log_prob == parts[-1]
            early += number == 0 and length < settings["max_new_tokens"]
    assert early > 5


def test_what_is_weighed_comes_from_what_runs(runs):
    fates = set()
    for _, settings, _, steps in runs:
        beams, ends = settings["num_beams"], settings["eos_token_id"]
        kept = {(): 0.0}
        for number, step in enumerate(steps):
            assert len(step) == beams * max(2, 1 + len(ends))
            assert [one.rank for one in step] == list(range(len(step)))
            assert all(first.total >= second.total for first, second in pairwise(step))
            for one in step:
                complete = one.tokens[-1] in ends or number + 1 == settings["max_new_tokens"]
                assert one.total == pytest.approx(kept[one.tokens[:-1]] + one.log_prob, abs=1e-5)
                assert (one.fate == "finished") == (complete and one.rank < beams)
                fates.add((one.fate, complete))
            going = [one for one in step if one.fate in ("kept", "open")]
            assert number + 1 == len(steps) or {one.fate for one in going} == {"kept"}
            best = [one for one in step if one.tokens[-1] not in ends][:beams]
            assert going == (best if number + 1 < settings["max_new_tokens"] else [])
            kept = {one.tokens: one.total for one in going}
    assert fates == {
        ("kept", False), ("open", False), ("pruned", False), ("pruned", True), ("finished", True)
    }  # fmt: skip


def test_finished_candidates_that_are_no_result_score_lower(runs):
    beaten = 0
    for _, settings, output, steps in runs:
        results = {tuple(ids[3:]) for ids in output.sequences.tolist()}
        finished = [one for step in steps for one in step if one.fate == "finished"]
        scores = sorted(
            (one.total / len(one.tokens) ** settings["length_penalty"] for one in finished), reverse=True
        )
        expected = output.sequences_scores.tolist()
        assert scores[: len(expected)] == pytest.approx(expected, abs=1e-5)
        beaten += len(scores) - len(results) > 0
    assert beaten > 5


def test_log_probabilities_by_teacher_forcing(runs):
    for model, _, _, steps in runs[::6]:
        for one in steps[-1]:
            log_probs, _ = token_log_probs(model, torch.tensor([[*PROMPT[0].tolist(), *one.tokens]]))
            new = log_probs[0, 3:]
            assert one.log_prob == pytest.approx(new[-1].item(), abs=2e-5)
            assert one.total == pytest.approx(new.sum().item(), abs=1e-4)


def test_a_path_of_ones_own_is_added_where_a_beam_could_take_it(runs):
    added = 0
    for seed, (model, settings, output, steps) in enumerate(runs):
        draw = random.Random(seed)
        path = [*steps[0][0].tokens, *(draw.randrange(24) for _ in range(settings["max_new_tokens"] - 1))]
        same, found = watch_beam_search(model, PROMPT, **settings, also=path)
        assert torch.equal(same.sequences, output.sequences)
        for number, (before, after) in enumerate(zip(steps, found, strict=True)):
            assert after[: len(before)] == before
            extra = after[len(before) :]
            kept = number == 0 or tuple(path[:number]) in {
                one.tokens for one in steps[number - 1] if one.fate == "kept"
            }
            weighed = tuple(path[: number + 1]) in {one.tokens for one in before}
            assert len(extra) == (kept and not weighed)
            for one in extra:
                assert one.tokens == tuple(path[: number + 1])
                assert one.fate == "pruned"
                assert one.rank >= len(before)
                assert one.total <= before[-1].total
                log_probs, _ = token_log_probs(model, torch.tensor([[*PROMPT[0].tolist(), *one.tokens]]))
                assert one.total == pytest.approx(log_probs[0, 3:].sum().item(), abs=1e-4)
                added += 1
    assert added > 20


def test_the_rank_of_an_added_path_counts_all_continuations(models):
    first = models[0](PROMPT).logits[0, -1].sort(descending=True).indices.tolist()
    for rank in (3, 4, 10, 23):
        _, steps = watch_beam_search(models[0], PROMPT, 2, 1, also=[first[rank]])
        assert steps[0][-1].tokens == (first[rank],)
        assert steps[0][-1].rank == rank


def test_what_a_processor_forbids_is_no_candidate(models):
    output, steps = watch_beam_search(models[0], PROMPT, 3, 2, suppress_tokens=list(range(4, 24)))
    assert output.sequences[:, 3:].max() < 4
    assert [len(step) for step in steps] == [4, 6]
    assert all(one.total > -1e8 for step in steps for one in step)
    assert [one.rank for step in steps for one in step] == [*range(4), *range(6)]
    _, steps = watch_beam_search(models[0], PROMPT, 3, 4, suppress_tokens=[*range(7), *range(8, 24)])
    assert [[one.tokens for one in step] for step in steps] == [[(7,) * length] for length in (1, 2, 3, 4)]


def test_fewer_continuations_than_beams(models):
    """What is no continuation is told from one, whatever generate() fills up with."""
    unreal = 0
    for seed in range(40):
        draw = random.Random(seed)
        vocabulary, steps, beams = draw.randint(2, 5), draw.randint(1, 3), draw.randint(4, 8)
        model = tiny_gpt2(positions=16, vocabulary=vocabulary, seed=seed % 3)
        ends, penalty = (
            draw.sample(range(vocabulary), draw.randint(0, vocabulary - 1)),
            draw.choice(PENALTIES),
        )
        output, found = watch_beam_search(
            model, PROMPT[:, :2] % 2, beams, steps, ends, length_penalty=penalty
        )
        totals = {one.tokens: one.total for step in found for one in step if one.fate == "finished"}
        lengths = (output.beam_indices >= 0).sum(dim=1).tolist()
        results = {}
        for ids, length, score in zip(
            output.sequences[:, 2:].tolist(), lengths, output.sequences_scores.tolist(), strict=True
        ):
            if is_continuation(length, score, penalty):
                tokens = tuple(ids[:length])
                assert tokens not in results
                results[tokens] = score
            else:
                unreal += 1
        assert results
        for tokens, score in results.items():
            assert totals[tokens] / len(tokens) ** penalty == pytest.approx(score, abs=1e-4)
    assert unreal > 20


def test_the_models_own_configuration_makes_no_other_search_of_it(models):
    model = models[0]
    settings = {"num_beams": 3, "max_new_tokens": 4}
    own, plain = model.generation_config, watch_beam_search(model, PROMPT, **settings)
    others = {
        "stop_strings": ["a"], "max_time": 1e-9, "token_healing": True, "num_beam_groups": 3,
        "diversity_penalty": 1.0, "exponential_decay_length_penalty": (2, 1.5), "force_words_ids": [[3]],
        "penalty_alpha": 0.6, "dola_layers": "low", "prompt_lookup_num_tokens": 2, "do_sample": True,
        "low_memory": True, "is_assistant": True, "return_dict_in_generate": False,
    }  # fmt: skip
    try:
        for name, value in others.items():
            model.generation_config = GenerationConfig()
            setattr(model.generation_config, name, value)
            assert watch_beam_search(model, PROMPT, **settings)[1] == plain[1], name
            greedy = model.generate(PROMPT, max_new_tokens=4, num_beams=1, **search_settings([]))
            if name == "return_dict_in_generate":
                assert greedy.shape == (1, 7)
        model.generation_config = GenerationConfig(repetition_penalty=5.0)
        assert watch_beam_search(model, PROMPT, **settings)[1] != plain[1]  # a processor of its own counts
    finally:
        model.generation_config = own
