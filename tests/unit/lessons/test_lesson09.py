"""Lesson 09: its checks against right and wrong answers, its questions against their proofs, and its own
functions against course_utils.gradients."""

import torch
from torch.nn.functional import pad

from course_utils import gradients
from course_utils.lessons import lesson09
from course_utils.masks import position_ids
from lesson_code import definitions
from prove import prove_exercise, prove_questions


def test_questions():
    assert len(prove_questions(lesson09)) == 6


# ---- exercise 1 --------------------------------------------------------------------------------------


def scored(model, sequences, prompt_mask, temperature, mask=True, positions=True, shift=1):
    new = sequences.shape[1] - prompt_mask.shape[1]
    whole = pad(prompt_mask, (0, new), value=1)
    given = {"attention_mask": whole} if mask else {}
    given |= {"position_ids": position_ids(whole)} if positions else {}
    logits = model(sequences, **given).logits / temperature
    return logits[:, -new - shift : logits.shape[1] - shift], sequences[:, -new:, None]


def picked(logits, tokens):
    return logits.log_softmax(-1).gather(-1, tokens).squeeze(-1)


def by_cross_entropy(model, sequences, prompt_mask, temperature):
    logits, tokens = scored(model, sequences, prompt_mask, temperature)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return -losses.view(tokens.shape[:2])


def with_logits_to_keep(model, sequences, prompt_mask, temperature):
    new = sequences.shape[1] - prompt_mask.shape[1]
    mask = torch.cat([prompt_mask, torch.ones_like(sequences[:, -new:])], 1)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    logits = model(
        input_ids=sequences, attention_mask=mask, position_ids=positions, logits_to_keep=new + 1
    ).logits
    return picked(logits[:, :-1] / temperature, sequences[:, -new:, None])


def row_by_row(model, sequences, prompt_mask, temperature):
    """Without padding neither the mask nor position ids are needed."""
    new = sequences.shape[1] - prompt_mask.shape[1]
    rows = []
    for ids, mask in zip(sequences, prompt_mask, strict=True):
        own = ids[int((mask == 0).sum()) :][None]
        logits = model(own).logits[:, -new - 1 : -1] / temperature
        rows.append(picked(logits, own[:, -new:, None]))
    return torch.cat(rows)


def without_temperature(model, sequences, prompt_mask, temperature):
    return picked(*scored(model, sequences, prompt_mask, 1.0))


def times_temperature(model, sequences, prompt_mask, temperature):
    return picked(*scored(model, sequences, prompt_mask, 1 / temperature))


def temperature_after_softmax(model, sequences, prompt_mask, temperature):
    return picked(*scored(model, sequences, prompt_mask, 1.0)) / temperature


def without_positions(*given):
    return picked(*scored(*given, positions=False))


def without_mask(*given):
    return picked(*scored(*given, mask=False))


def without_either(*given):
    return picked(*scored(*given, mask=False, positions=False))


def unshifted(*given):
    return picked(*scored(*given, shift=0))


def without_gradient(*given):
    with torch.no_grad():
        return by_cross_entropy(*given)


def new_leaf(*given):
    return by_cross_entropy(*given).detach().requires_grad_()


def mask_from_id(model, sequences, prompt_mask, temperature):
    mask = (sequences != 0).long()
    logits = model(sequences, attention_mask=mask, position_ids=position_ids(mask)).logits / temperature
    new = sequences.shape[1] - prompt_mask.shape[1]
    return picked(logits[:, -new - 1 : -1], sequences[:, -new:, None])


def new_tokens_masked(model, sequences, prompt_mask, temperature):
    new = sequences.shape[1] - prompt_mask.shape[1]
    mask = pad(prompt_mask, (0, new))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(sequences, attention_mask=mask, position_ids=positions).logits / temperature
    return picked(logits[:, -new - 1 : -1], sequences[:, -new:, None])


def raw_logits(*given):
    logits, tokens = scored(*given)
    return logits.gather(-1, tokens).squeeze(-1)


def likeliest(*given):
    return scored(*given)[0].log_softmax(-1).amax(-1)


def not_squeezed(*given):
    logits, tokens = scored(*given)
    return logits.log_softmax(-1).gather(-1, tokens)


def whole_text(model, sequences, prompt_mask, temperature):
    return picked(model(sequences).logits[:, :-1] / temperature, sequences[:, 1:, None])


def test_log_probs_of():
    prove_exercise(
        lesson09.check_log_probs_of,
        right=[
            *definitions("09", "log_probs_of", torch=torch),
            by_cross_entropy,
            with_logits_to_keep,
            row_by_row,
        ],
        wrong=[
            (without_temperature, "the temperature is missing"),
            (times_temperature, "multiplied by the temperature"),
            (temperature_after_softmax, "is applied after the softmax"),
            (without_positions, "the position ids are missing"),
            (without_mask, "the mask is missing"),
            (without_either, "neither the mask nor position ids"),
            (unshifted, "nothing is shifted"),
            (without_gradient, "carry no gradient"),
            (new_leaf, "does not reach the model's weights"),
            (mask_from_id, "made from an id"),
            (new_tokens_masked, "the new tokens are masked"),
            (raw_logits, "these are logits"),
            (likeliest, "the likeliest tokens"),
            (not_squeezed, "`gather` leaves"),
            (whole_text, "the prompts' tokens are included"),
            (lambda *given: by_cross_entropy(*given).exp(), "these are probabilities"),
            (lambda *given: -by_cross_entropy(*given), "the sign is wrong"),
            (lambda *given: by_cross_entropy(*given).sum(1), "already a sum"),
            (lambda *given: by_cross_entropy(*given).tolist(), "return a tensor"),
            (lambda *given: by_cross_entropy(*given)[:, 1:], "expected (batch, new)"),
            (lambda *given: by_cross_entropy(*given) - 1, "log probability of each new token in one"),
        ],
    )


# ---- exercise 2 --------------------------------------------------------------------------------------


def by_loop(rewards):
    columns = range(rewards.shape[-1])
    others = [[other for other in columns if other != own] for own in columns]
    return torch.stack([rewards[..., own] - rewards[..., others[own]].mean(-1) for own in columns], -1)


def scaled_group_mean(rewards):
    samples = rewards.shape[-1]
    return (rewards - rewards.mean(dim=-1, keepdim=True)) * samples / (samples - 1)


def sum_of_others(rewards):
    return rewards.sum(-1, keepdim=True) - rewards


def test_leave_one_out():
    prove_exercise(
        lesson09.check_leave_one_out,
        right=[
            *definitions("09", "leave_one_out", torch=torch),
            by_loop,
            scaled_group_mean,
            lambda rewards: by_loop(rewards).float(),
        ],
        wrong=[
            (gradients.group_mean, "mean of the whole group"),
            (gradients.group_relative, "divided by the standard deviation"),
            (lambda rewards: rewards - by_loop(rewards), "this is the baseline"),
            (lambda rewards: -by_loop(rewards), "the sign is wrong"),
            (lambda rewards: rewards - sum_of_others(rewards), "the *sum* of the others"),
            (
                lambda rewards: rewards - sum_of_others(rewards) / rewards.shape[-1],
                "the size of the whole group",
            ),
            (
                lambda rewards: rewards - rewards.sum(-1, keepdim=True) / (rewards.shape[-1] - 1),
                "still in the sum",
            ),
            (
                lambda rewards: (rewards - rewards.mean()) * rewards.numel() / (rewards.numel() - 1),
                "runs over all groups",
            ),
            (
                lambda rewards: by_loop(rewards.transpose(0, -1)).transpose(0, -1),
                "your result uses the first",
            ),
            (lambda rewards: by_loop(rewards) + 1, "subtract from each reward"),
        ],
    )


# ---- exercise 3 --------------------------------------------------------------------------------------


def loop(model, optimizer, draw, reward, updates, **change):
    """The loop in another style than the lesson's, with one thing changed."""
    found, drawn, recorded = [], None, None
    for _ in range(updates):
        if drawn is None or not change.get("draw_once"):
            drawn, recorded = draw(model)
        if change.get("draw_twice"):
            draw(model)
        rewards = reward(drawn)
        weigh = change.get("weigh", lambda rewards: rewards - (rewards.sum() - rewards) / (len(rewards) - 1))
        log_probs = gradients.sequence_log_probs(model, drawn)
        if change.get("recorded"):
            log_probs = recorded.requires_grad_()
        loss = (weigh(rewards).detach() * log_probs).sum() / (1 if change.get("summed") else len(drawn))
        if not change.get("keep_gradients"):
            model.zero_grad()
        (loss if change.get("downhill") else -loss).backward()
        if not change.get("no_step"):
            optimizer.step()
        found.append(rewards.mean())
    return change.get("result", lambda found: found)(found)


def changed(**change):
    return lambda model, optimizer, draw, reward, updates: loop(
        model, optimizer, draw, reward, updates, **change
    )


def one_graph(model, optimizer, draw, reward, updates):
    drawn, _ = draw(model)
    log_probs = gradients.sequence_log_probs(model, drawn)
    for _ in range(updates):
        loss = -(gradients.leave_one_out(reward(drawn)) * log_probs).mean()
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
    return [0.0] * updates


def test_train():
    prove_exercise(
        lesson09.check_train,
        right=[*definitions("09", "train", torch=torch, gradients=gradients), changed()],
        wrong=[
            (changed(recorded=True), "no weight has changed"),
            (changed(no_step=True), "`optimizer.step()` is missing"),
            (changed(draw_once=True), "the texts are drawn once"),
            (changed(draw_twice=True), "`draw` was called 8 times in 4"),
            (changed(keep_gradients=True), "the gradients of all updates add up"),
            (changed(weigh=lambda rewards: rewards), "the rewards themselves"),
            (changed(weigh=gradients.group_mean), "mean of the whole group is subtracted"),
            (changed(downhill=True), "the sign is wrong"),
            (changed(summed=True), "the loss is a sum"),
            (changed(weigh=gradients.group_relative), "do not follow the policy gradient"),
            (changed(result=lambda found: found[-1]), "also return a list"),
            (changed(result=lambda found: [2 * mean for mean in found]), "the list is not"),
            (one_graph, "inplace operation"),
        ],
    )


# ---- the lesson's own functions ----------------------------------------------------------------------


def test_log_prob_of_the_lesson_is_that_of_the_library():
    model = gradients.toy_model(seed=3)
    (log_prob,) = definitions("09", "log_prob", torch=torch, toy=model)
    sequences = gradients.all_sequences(6, 3)[::17]
    torch.testing.assert_close(log_prob(sequences), gradients.sequence_log_probs(model, sequences))


def test_expected_of_the_lesson_is_the_mean_over_all_groups_of_two():
    problem = gradients.Problem(gradients.toy_model(4), gradients.random_rewards(4))
    rewards, probs = problem.rewards.flatten(), problem.probs
    known = {"chances": probs[:, None] * probs, "grad_log_p": problem.scores}
    known["pairs"] = torch.stack(torch.broadcast_tensors(rewards[:, None], rewards), dim=-1)
    (expected,) = definitions("09", "expected", **known)
    torch.testing.assert_close(expected(gradients.leave_one_out), problem.gradient)
    torch.testing.assert_close(expected(gradients.group_mean), problem.gradient / 2)
    relative = expected(gradients.group_relative)
    estimates = problem.score_function(gradients.group_relative, 2, 4000, torch.Generator().manual_seed(0))
    found = gradients.measure(problem, estimates)
    assert (estimates.mean(0) - relative).norm() / problem.gradient.norm() < 2 * found.bias_error
