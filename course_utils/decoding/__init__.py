"""generate(), one visible step at a time.

`steps`            decode_steps() and the record of a step
`generate_inputs`  what generate() prepares before its loop, taken from generate() itself
`arguments`        what callers give, checked; generate()'s own complaints, explained
`processor_checks` what logits processors and stopping criteria return, checked
`rewind`           going back: random states, shorter caches, what processors remember
`replay`           a walk through steps that are run again
`beam_search`      what beam search considered at each step
"""
