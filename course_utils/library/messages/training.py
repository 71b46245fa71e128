"""Messages about training, and numbers that differ: new tokens, gradients, loss and labels, rounding."""

from .entry import Message

TRAINING = (
    # New tokens
    Message(
        key="no-row",
        group="tokens",
        kind="error",
        title="A new token has no row",
        says="IndexError: index out of range in self",
        raises="""
            grown = load_tokenizer("gpt2")
            grown.add_special_tokens({"pad_token": "<pad>"})  # id 50257
            small(**grown(["My dog is", "Hi"], padding=True, return_tensors="pt"))
        """,
        cause="The tokenizer has a new id, and the model's embedding has no row for it. On a GPU this is a device-side assert.",
        cure="Give the model that row: `model.resize_token_embeddings(len(tokenizer))`.",
        cured="""
            grown = load_tokenizer("gpt2")
            grown.add_special_tokens({"pad_token": "<pad>"})
            larger = copy.deepcopy(small)
            larger.resize_token_embeddings(len(grown), mean_resizing=False)  # without it, the log says how the row begins
            print(tuple(larger(**grown(["My dog is", "Hi"], padding=True, return_tensors="pt")).logits.shape))
        """,
        lesson="02_padding",
        section="Too long; and a new pad token",
        asked=(
            "error after adding a pad token or special tokens",
            "CUDA error: device-side assert triggered",
            "Assertion `srcIndex < srcSelectDimSize` failed",
            "forgot resize_token_embeddings",
            "token id is larger than vocab size",
        ),
    ),
    Message(
        key="new-rows",
        group="tokens",
        kind="warning",
        title="How the new rows begin",
        says="The new embeddings will be initialized from a multivariate normal distribution that has old embeddings' mean and covariance. …",
        raises="""
            larger = copy.deepcopy(small)
            larger.resize_token_embeddings(50258)
        """,
        cause="A new row begins near the mean of all rows. The model can read the token, but has learned nothing about it.",
        cure="Harmless. Train the row, or say `mean_resizing=False` for a random one, without the message.",
        cured="""
            larger = copy.deepcopy(small)
            print(larger.resize_token_embeddings(50258, mean_resizing=False))
        """,
        lesson="02_padding",
        section="Too long; and a new pad token",
        asked=(
            "Special tokens have been added in the vocabulary, make sure the associated word embeddings are fine-tuned or trained.",
            "To disable this, use `mean_resizing=False`",
        ),
    ),
    Message(
        key="target-out-of-bounds",
        group="tokens",
        kind="error",
        title="A label has no logit",
        says="IndexError: Target … is out of bounds.",
        raises="""
            small(ids, labels=torch.tensor([[3666, 3290, 50257]]))
        """,
        cause="A label is an id, and the model has logits for 0 to 50,256. What is to be skipped gets −100; no other number will do.",
        cure="Resize the model for a new token; mark what is to be skipped with −100.",
        cured="""
            print(small(ids, labels=torch.tensor([[3666, 3290, -100]])).loss.isfinite().item())
        """,
        lesson="02_padding",
        section="7. Training: pad on the right, and mind the labels",
        asked=(
            "Assertion `t >= 0 && t < n_classes` failed",
            "nll_loss_forward_reduce_cuda_kernel_2d assertion",
            "labels out of range in cross entropy",
        ),
    ),
    # Gradients
    Message(
        key="no-grad",
        group="gradient",
        kind="error",
        title="There is no gradient through generate",
        says="RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
        raises="""
            record = {"output_scores": True, "return_dict_in_generate": True}
            output = small.generate(ids, max_new_tokens=3, pad_token_id=50256, **record)
            output.scores[0].sum().backward()
        """,
        cause="`generate()` runs under `torch.no_grad()`. And without that, the chosen ids would still cut the graph.",
        cure="Draw first, then score the drawn ids with a forward pass of their own.",
        cured="""
            drawn = small.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256)
            log_probs = small(drawn).logits[0, 2:-1].log_softmax(-1)  # (new, vocab)
            log_probs.gather(-1, drawn[0, 3:, None]).sum().backward()
            print("a gradient:", small.lm_head.weight.grad.any().item())
            small.zero_grad()
        """,
        lesson="08_argmax",
        section="2. The first cut: a decorator",
        asked=(
            "how to backpropagate through generate",
            "generate detaches the graph, no gradient",
            "loss.backward() after model.generate",
            "loss does not decrease after requires_grad = True",
        ),
    ),
    Message(
        key="integer-grad",
        group="gradient",
        kind="error",
        title="An id cannot have a gradient",
        says="RuntimeError: only Tensors of floating point dtype can require gradients",
        raises="""
            small.generate(ids, max_new_tokens=3, pad_token_id=50256).requires_grad_()
        """,
        cause="Ids are whole numbers. A small step of a weight does not move them, until it moves them by a jump.",
        cure="Take the gradient at the vectors, not at the ids.",
        cured="""
            vectors = small.get_input_embeddings()(ids).detach().requires_grad_()
            small(inputs_embeds=vectors).logits[0, -1].max().backward()
            print(tuple(vectors.grad.shape))
            small.zero_grad()
        """,
        lesson="08_argmax",
        section="3. The second cut: an integer",
        asked=(
            "only Tensors of floating point and complex dtype can require gradients",
            "argmax is not differentiable",
        ),
    ),
    Message(
        key="backward-twice",
        group="gradient",
        kind="error",
        title="Backward a second time",
        says="RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed). …",
        raises="""
            loss = small(ids, labels=ids).loss
            loss.backward()
            loss.backward()
        """,
        cause="The first pass frees what it needed. It often hides in a loop: a loss, a cache or a hidden state of an earlier step is still part of the graph.",
        cure="Compute the loss anew for each backward pass, and detach what is carried over.",
        cured="""
            for _ in range(2):
                small(ids, labels=ids).loss.backward()
            small.zero_grad()
        """,
        lesson="08_argmax",
        section="8. What the undecorated call is good for",
    ),
    # Loss and labels
    Message(
        key="shift",
        group="loss",
        kind="error",
        title="Logits and labels do not line up",
        says="ValueError: Expected input batch_size (…) to match target batch_size (…).",
        raises="""
            logits = small(ids).logits[0, :-1]  # about the second token and later ones
            torch.nn.functional.cross_entropy(logits, ids[0])
        """,
        cause="The logits at one index are about the *next* token, so both sides lose one: the logits their last row, the labels their first.",
        cure="Shift both, or pass `labels=ids` unshifted and let the model do it. Never do both.",
        cured="""
            by_hand = torch.nn.functional.cross_entropy(small(ids).logits[0, :-1], ids[0, 1:])
            torch.testing.assert_close(by_hand, small(ids, labels=ids).loss)
        """,
        lesson="07_scores",
        section="6. A text that nobody generated",
        asked=(
            "labels shifted twice",
            "should I shift the labels",
            "off by one in the loss",
        ),
    ),
    Message(
        key="class-axis",
        group="loss",
        kind="error",
        title="Cross entropy counts another axis as classes",
        says="RuntimeError: Expected target size …, got …",
        raises="""
            torch.nn.functional.cross_entropy(small(ids).logits, ids)
        """,
        cause="For three axes PyTorch takes the second for the classes: (batch, classes, length). Here it is the length.",
        cure="Flatten batch and length into one axis: `logits.flatten(0, 1)`.",
        cured="""
            logits, labels = small(ids).logits[:, :-1], ids[:, 1:]
            print(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).isfinite().item())
        """,
        lesson="04_forward_pass",
        section="Which token is a row of logits about?",
    ),
    Message(
        key="loss-type",
        group="loss",
        kind="warning",
        title="The loss has no type",
        says="`loss_type=…` was set in the config but it is unrecognized. Using the default loss: `ForCausalLMLoss`.",
        raises="""
            fresh, _ = load("tiny-gpt2", device="cpu")
            fresh(ids, labels=ids).loss
        """,
        cause="Which loss is meant is read off the name of the model's class, and `GPT2LMHeadModel` does not end in `ForCausalLM`. The default is the right one.",
        cure="Harmless. Set `loss_type`, and it is quiet.",
        cured="""
            fresh, _ = load("tiny-gpt2", device="cpu")
            fresh.loss_type = "ForCausalLM"
            print(fresh(ids, labels=ids).loss.isfinite().item())
        """,
        lesson="04_forward_pass",
        section="Which token is a row of logits about?",
    ),
    Message(
        key="loss-nan",
        group="loss",
        kind="symptom",
        title="The loss is NaN",
        says="nan",
        raises="""
            labels = torch.full_like(ids, -100)
            print(small(ids, labels=labels).loss.item())
        """,
        cause="If every label is −100, the mean runs over no token at all: 0 / 0. It happens when a prompt fills the whole length and the answer was cut off.",
        cure="Leave out texts without a label, or keep the answer when you truncate.",
        cured="""
            labels = ids.clone()
            labels[:, 0] = -100  # the prompt
            print("finite:", small(ids, labels=labels).loss.isfinite().item())
        """,
        lesson="11_chat",
        section="7. Which tokens are the assistant's?",
        asked=(
            "loss is nan at the first step of fine-tuning",
            "training loss nan or 0.0",
            "loss 0 and grad norm nan",
            "all labels are -100",
        ),
    ),
    Message(
        key="lost-ends",
        group="loss",
        kind="symptom",
        title="The labels have lost the ends",
        says="ends to learn: 0",
        raises="""
            padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
            batch = padded(["Hi.<|endoftext|>", "My dog is happy.<|endoftext|>"], padding=True, return_tensors="pt")
            labels = batch.input_ids.masked_fill(batch.input_ids == padded.pad_token_id, -100)
            print("ends to learn:", (labels == padded.eos_token_id).sum().item())
        """,
        cause="Padding and end-of-text are one id, so hiding the padding by its id hides every end. The trained model then never stops. The library's collator for language models does the same.",
        cure="Take the mask, which knows one from the other: `labels[attention_mask == 0] = -100`.",
        cured="""
            padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
            batch = padded(["Hi.<|endoftext|>", "My dog is happy.<|endoftext|>"], padding=True, return_tensors="pt")
            labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
            print("ends to learn:", (labels == padded.eos_token_id).sum().item())
        """,
        lesson="02_padding",
        section="7. Training: pad on the right, and mind the labels",
        asked=(
            "pad token equals eos token in fine-tuning",
            "model does not learn to stop, eos token masked in labels",
            "DataCollatorForLanguageModeling masks eos",
        ),
    ),
    Message(
        key="loss-zero",
        group="loss",
        kind="symptom",
        title="The loss of GRPO is 0",
        says="loss 0: True, …",
        raises="""
            log_probs = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)  # of four texts
            rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
            advantages = rewards - rewards.mean()
            ratio = (log_probs - log_probs.detach()).exp()  # 1, before the first update
            loss = -(ratio * advantages).mean()
            loss.backward()
            print(f"loss 0: {loss.item() == 0}, gradient: {log_probs.grad.tolist()}")
        """,
        cause="Before the first update every ratio is 1, and the advantages of a group sum to 0. The *gradient* is not 0.",
        cure="Watch the rewards and the gradient's length. Only if all rewards of a group are equal is there nothing to learn.",
        cured="""
            rewards = torch.tensor([1.0, 1.0, 1.0, 1.0])
            print("nothing to learn:", (rewards - rewards.mean()).abs().sum().item() == 0)
        """,
        lesson="10_ppo_grpo",
        section="4. A loss of 0",
        asked=(
            "GRPO loss is 0 or negative",
            "GRPOTrainer loss always 0.0 at the beginning",
            "loss stays zero in grpo",
            "policy loss is zero",
        ),
    ),
    # Numbers that differ
    Message(
        key="rounding",
        group="numbers",
        kind="symptom",
        title="Logits differ in the last digits",
        says="equal: False, close: True",
        raises="""
            torch.manual_seed(0)
            rows, weight = torch.randn(32, 576), torch.randn(576, 1536)
            alone, together = rows[:1] @ weight, (rows @ weight)[:1]
            print(f"equal: {torch.equal(alone, together)}, close: {torch.allclose(alone, together, atol=1e-3)}")
        """,
        cause="A matrix product of another shape adds up its terms in another order, and each order rounds differently. The same goes for batches, caches, padding, attention kernels and machines.",
        cure="Compare with a tolerance. To tell rounding from a bug, repeat in float64: rounding shrinks, a bug stays.",
        cured="""
            torch.manual_seed(0)
            rows, weight = torch.randn(32, 576, dtype=torch.float64), torch.randn(576, 1536, dtype=torch.float64)
            gap = (rows[:1] @ weight - (rows @ weight)[:1]).abs().max()
            print("below 1e-10:", (gap < 1e-10).item())
        """,
        lesson="12_rounding",
        section="3. The model, five ways",
        asked=(
            "logits differ with and without cache",
            "slightly different logits in a batch, bfloat16",
            "results are not the same on another machine or GPU",
            "Tensor-likes are not close!",
            "use_cache=True and False give different outputs",
        ),
    ),
    Message(
        key="scores-not-logits",
        group="numbers",
        kind="symptom",
        title="Scores are not the logits of a forward pass",
        says="the same: False",
        raises="""
            record = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
            drawn = small.generate(ids, do_sample=True, top_k=5, max_new_tokens=1, pad_token_id=50256, **record)
            logits = small(ids).logits[:, -1]
            print("the same:", torch.allclose(drawn.scores[0], logits, atol=1e-3))
        """,
        cause="`scores` are what the choice was made from: the logits after temperature, filters and penalties.",
        cure="Ask for `output_logits=True` to see the model's own.",
        cured="""
            record = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
            drawn = small.generate(ids, do_sample=True, top_k=5, max_new_tokens=1, pad_token_id=50256, **record)
            logits = small(ids).logits[:, -1]
            print("the same:", torch.allclose(drawn.logits[0], logits, atol=1e-3))
        """,
        lesson="07_scores",
        section="3. Whose probability?",
        asked=(
            "generate scores differ from forward logits",
            "output.scores do not match model(input_ids).logits",
            "log probabilities from generate and forward do not match",
        ),
    ),
)
