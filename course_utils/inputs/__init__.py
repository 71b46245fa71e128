"""Checks of what callers give: numbers as learners have them, and what kind of model it is."""
