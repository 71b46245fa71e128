# %% [markdown]
# # Where did that name go?
#
# **By the end you will have mended a snippet of older days, with errors that shout and one that does not, and you will
# have a map of older lines, each checked as this page ran.**
#
# You will be able to
#
# - look up a name, and read what became of it,
# - run older code until it breaks, and mend it line by line,
# - tell which older lines still run and no longer do what they did.
#
# *15 minutes, no exercises. You need: lesson 05. The map is for looking things up, not for reading through.*

# %% [markdown]
# ## 1. One name
#
# Articles on `generate()` stay online for years. The code that they explain moves on: names change, methods go, and
# some arguments are still taken and no longer do anything. `library.where` answers for one name:

# %%
from course_utils import library

library.where("greedy_search")

# %% [markdown]
# The tick says that this was just proven. The old line was run, on a small GPT-2, and raised the error that stands
# below it; the new line ran. *Gone by 4.41*: of the releases looked at, the first without it. *S0* is where the name
# was met:

# %%
for label, article in library.SEEN.items():
    print(f"{label:6} {article}")

# %% [markdown]
# The name may be spelled as the article has it. One that is not in the map gets a sentence, with the nearest names:

# %% tags=["raises-exception"]
library.where("model.greedy_serch()")

# %% [markdown]
# ## 2. A snippet, mended
#
# S4 translates the library's pages of version 4.37. One example there writes with beam search, which follows
# several texts at once, and then rebuilds each text's score from those of its tokens. It is TensorFlow:

# %%
try:
    from transformers import GPT2Tokenizer, TFAutoModelForCausalLM
except ImportError as error:
    print(str(error).partition(" (")[0])  # then comes the file's place on this machine

# %% [markdown]
# An error's last line names what is missing. We look that name up:

# %%
library.where("TFAutoModelForCausalLM")

# %% [markdown]
# PyTorch's class, then, and tensors of `"pt"` in place of `"tf"`. `load()` gives us a model of that class, so the example can
# go on, unchanged:

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
# A text's score is the sum of its tokens' scores, divided by a power of its length. The example's last lines
# rebuild it, and compare. The page prints `True` below them:

# %% tags=["raises-exception"]
input_length = inputs.input_ids.shape[1]
output_length = input_length + np.sum(scores.numpy() < 0, axis=1)
length_penalty = model.generation_config.length_penalty
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)

# %% [markdown]
# Something in the power is None. Two names stand there, and the map knows both. First the one that can be None:

# %%
library.where("length_penalty")

# %% [markdown]
# A config's unset fields were filled with defaults, and now they stay None until `generate()` fills them in. We take the map's line:

# %%
length_penalty = 1.0 if (p := model.generation_config.length_penalty) is None else p
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# No error, and not `True` either. Had the example not compared, nothing would have told us. The other name:

# %%
library.where("output_length")

# %%
output_length = (outputs.beam_indices >= 0).sum(1).cpu().numpy()
rebuilt = np.sum(scores.numpy(), axis=1) / (output_length**length_penalty)
np.allclose(outputs.sequences_scores.cpu(), rebuilt)

# %% [markdown]
# **Run it, read the last line of the error, look the name up, mend one line, run it again. And where an article
# prints a number, compare.** Lesson 07 says which length counts, and since which
# version; this page still had the older one.

# %% [markdown]
# ## 3. The silent ones
#
# These lines run without an error, and are no longer what older code meant by them:

# %%
for entry in library.version_map("changed").entries:
    if not entry.fails and not entry.source:
        print(entry.old)

# %% [markdown]
# Most of them have one of three reasons. A default has changed. An argument is no longer known, and is swallowed. A
# name stands for something else. The tables below say which.

# %% [markdown]
# ## 4. The map
#
# In the tables, `model` is a small GPT-2, `inputs` one tokenized sentence of 4 tokens, `cache` what the model keeps of it,
# `past` the same as the tuples of older code, and `name` a folder with the model in bfloat16. Five kinds:

# %%
for kind, meaning in library.KINDS.items():
    print(f"{kind:8} {meaning}")

# %% [markdown]
# ### Ways of decoding

# %%
library.version_map(topic="decoding")

# %% [markdown]
# ### Inside the loop
#
# These lines are the library's own. They are not run, but looked for, in the function that is named
# below: the old line must not be there, and the new one must.

# %%
library.version_map(topic="loop")

# %% [markdown]
# To read such a line among its neighbours, show the function with the line as an anchor:

# %%
library.show(
    "generation.utils.GenerationMixin._sample",
    {"next_token_scores = logits_processor(": "where S1's code calls `logits_warper`, too"},
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
# With another version of transformers the page still runs. A line that is not so there has ✘ in place of ✔, and says what
# was found.

# %% [markdown]
# ## Where to look next
#
# For a name that is not in the map: `MIGRATION_GUIDE_V5.md` in transformers' repository lists what version 5
# changed. `course_utils/old_names.py` has the map's lines, each with the expression that proves its note.
