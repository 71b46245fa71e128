# %% [markdown]
# # Where did that name go?
#
# **By the end you will have fixed an old snippet, with errors that raise an exception and one that does not, and you
# will have a map of older lines, each checked when this page ran.**
#
# You will be able to
#
# - look up a name, and read what happened to it,
# - run older code until it breaks, and fix it line by line,
# - tell which older lines still run but no longer do what they did.
#
# *15 minutes, no exercises. You need: lesson 05. The map is for looking things up, not for reading from start to
# end.*

# %% [markdown]
# ## 1. One name
#
# Articles on `generate()` stay online for years. The code that they explain moves on: names change, methods
# disappear, and some arguments are still accepted but no longer do anything. `library.where` looks up one name:

# %%
from course_utils import library

library.where("greedy_search")

# %% [markdown]
# The tick says that this was just verified. The old line was run, on a small GPT-2, and raised the error shown below
# it; the new line ran. *Gone by 4.41* names the first release without it, among those we tested. *S0* is where we met
# the name:

# %%
for label, article in library.SEEN.items():
    print(f"{label:6} {article}")

# %% [markdown]
# You can spell the name as in the article. For a name that is not in the map, you get an error that lists the most
# similar names:

# %% tags=["raises-exception"]
library.where("model.greedy_serch()")

# %% [markdown]
# ## 2. Fixing a snippet
#
# S4 translates the library's pages of version 4.37. One example there uses beam search, which follows several texts
# at once, and then rebuilds each text's sequence score from the log probabilities of its tokens. It uses TensorFlow:

# %%
try:
    from transformers import GPT2Tokenizer, TFAutoModelForCausalLM
except ImportError as error:
    print(str(error).partition(" (")[0])  # the file's path on this machine follows

# %% [markdown]
# The last line of the error names what is missing. We look that name up:

# %%
library.where("TFAutoModelForCausalLM")

# %% [markdown]
# So we use PyTorch's class, and `"pt"` tensors instead of `"tf"`. `load()` returns a model of that class, so the rest
# of the example stays the same:

# %%
import numpy as np

from course_utils import load

model, tokenizer = load()
inputs = tokenizer(["Today is"], return_tensors="pt").to(model.device)

# %%
beams = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 5}
outputs = model.generate(**inputs, **beams, return_dict_in_generate=True, output_scores=True)
scores = model.compute_transition_scores(
    outputs.sequences, outputs.scores, outputs.beam_indices, normalize_logits=False
).cpu()
scores.shape  # (text, new token)

# %% [markdown]
# A text's sequence score is the sum of its tokens' log probabilities, divided by a power of its length. The last
# lines of the example rebuild it, and compare. The page shows `True` below them:

# %% tags=["raises-exception"]
input_length = inputs.input_ids.shape[1]
output_length = input_length + np.sum(scores.numpy() < 0, axis=1)
length_penalty = model.generation_config.length_penalty
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)

# %% [markdown]
# Something in the power is None. There are two names in it, and the map has both. First the one that can be None:

# %%
library.where("length_penalty")

# %% [markdown]
# Unset fields of a config used to hold defaults; now they are None until `generate()` fills them in. We use the map's
# line:

# %%
length_penalty = 1.0 if (p := model.generation_config.length_penalty) is None else p
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# There is no error, but no `True` either. Without the comparison we would not have noticed. Now the other name:

# %%
library.where("output_length")

# %%
output_length = (outputs.beam_indices >= 0).sum(1).cpu().numpy()
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# **Run it, read the last line of the error, look the name up, fix one line, run it again. And if an article prints a
# number, compare.** Lesson 07 says which length counts, and since which version; this example still used the older
# one.

# %% [markdown]
# ## 3. The silent ones
#
# These lines run without an error, but no longer do what older code meant:

# %%
for entry in library.version_map("changed").entries:
    if not entry.fails and not entry.source:
        print(entry.old)

# %% [markdown]
# For most of them there is one of three reasons. A default has changed. An argument is no longer known, and is
# ignored without an error. A name now means something else. The tables below say which.

# %% [markdown]
# ## 4. The map
#
# In the tables, `model` is a small GPT-2, `inputs` is a tokenized sentence of 4 tokens, `cache` is the model's cache
# after reading it, `past` is the same cache as the tuples of older code, and `name` is a folder with the model in
# bfloat16. There are five kinds of entries:

# %%
for kind, meaning in library.KINDS.items():
    print(f"{kind:8} {meaning}")

# %% [markdown]
# ### Decoding strategies

# %%
library.version_map(topic="decoding")

# %% [markdown]
# ### Inside the loop
#
# These lines are the library's own. They are not run but searched for in the function named below each: the old line
# must be absent, and the new one present.

# %%
library.version_map(topic="loop")

# %% [markdown]
# To read such a line in context, show the function with the line as an anchor:

# %%
library.show(
    "generation.utils.GenerationMixin._sample",
    {"next_token_scores = logits_processor(": "S1's code also calls `logits_warper` here"},
    context=2,
)

# %% [markdown]
# ### Processors, stopping criteria, scores

# %%
library.version_map(topic="processors")

# %% [markdown]
# ### Settings and loading

# %%
library.version_map(topic="settings")

# %% [markdown]
# ### The cache

# %%
library.version_map(topic="cache")

# %% [markdown]
# ### The model and its masks

# %%
library.version_map(topic="model")

# %% [markdown]
# ### Tokenizers

# %%
library.version_map(topic="tokenizer")

# %% [markdown]
# ### TensorFlow, Flax, ONNX, training

# %%
library.version_map(topic="elsewhere")

# %% [markdown]
# And all of them together:

# %%
library.version_map().summary

# %% [markdown]
# The page also runs with other versions of transformers. There, an entry that does not hold has ✘ in place of ✔, and
# says what was found instead.

# %% [markdown]
# ## Where to look next
#
# For a name that is not in the map: `MIGRATION_GUIDE_V5.md` in transformers' repository lists what version 5 changed.
# `course_utils/library/entries.py` contains the lines of the map, each with the expression that verifies its note.
