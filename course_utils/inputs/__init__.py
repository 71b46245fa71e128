"""Checks of what callers give.

`limits`   how long a text a model takes, and the model inside what is wrapped around it
`causal`   whether a model reads from left to right
`numbers`  numbers as learners have them
`text`     one text, its characters, its ids and their number
"""
