"""What each lesson asks: exercises with their catalogue of mistakes, predictions and quizzes.

A lesson is a module or a folder `lessonNN` with a TITLE; `checks.progress.lessons()` finds it by that name.
"""
