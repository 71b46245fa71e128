"""Checks, hints, quizzes, predictions and progress, shared by all lessons."""
