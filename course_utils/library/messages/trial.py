"""Ten messages and descriptions from public threads that were not used in writing the entries.

Each is a thread (OWNER/NAME#NUMBER on GitHub), what a person pasted there, shortened, and the entry that it is about.
"""

TRIAL = (
    (
        "QwenLM/Qwen3#388",
        "ValueError: Unable to create tensor, you should probably activate truncation and/or padding with "
        "'padding=True' 'truncation=True' to have batched tensors with the same length. Perhaps your features (`",
        "ragged",
    ),
    (
        "GBLin5566/toward-controlled-generation-of-text-pytorch#8",
        'Traceback (most recent call last):\n  File "train.py", line 296, in <module>\n'
        "    train_vae_with_attr_loss(encoder, decoder, discriminator)\n"
        '  File "/usr/local/lib/python2.7/dist-packages/torch/autograd/variable.py", line 156, in backward\n'
        "    torch.autograd.backward(self, gradient, retain_graph, create_graph, retain_variables)\n"
        "RuntimeError: Trying to backward through the graph a second time, but the buffers have already been "
        "freed. Specify retain_graph=True when calling backward the first time.",
        "backward-twice",
    ),
    (
        "oobabooga/textgen#3701",
        "lib\\site-packages\\transformers\\generation\\configuration_utils.py:367: UserWarning: `do_sample` is set "
        "to `False`. However, `top_p` is set to `0.9` -- this flag is only used in sample-based generation modes. "
        "You should set `do_sample=True` or unset `top_p`.",
        "flags-ignored",
    ),
    (
        "huggingface/transformers#25460",
        "ValueError: Expected input batch_size (1052) to match target batch_size (508) when fine tuning GPT 2 model",
        "shift",
    ),
    (
        "continuedev/continue#7706",
        "The model deployed with Qwen Coder3 30B always outputs exclamation marks, regardless of whether the input "
        "text is in Chinese or English.",
        "nan-greedy",
    ),
    (
        "mudler/LocalAI#677",
        "multi-character unicode is mangled in streaming mode",
        "replacement-character",
    ),
    (
        "huggingface/transformers#23175",
        "When using model.generate, it does not stop at eos_token, but instead continues until the maximum length.",
        "never-stops",
    ),
    (
        "ed-donner/llm_engineering#1307",
        "outputs = model.generate(inputs, max_new_tokens=80)\nKeyError: 'shape'",
        "not-unpacked",
    ),
    (
        "sgl-project/sglang#9891",
        "    rendered_chat, generation_indices = render_jinja_template(\n"
        "    rendered_chat = compiled_template.render(\n"
        "jinja2.exceptions.UndefinedError: 'dict object' has no attribute 'function'",
        "no-content",
    ),
    (
        "huggingface/transformers#30378",
        "Batch inputs get different result to single input for llama model.",
        "batch-differs",
    ),
)
