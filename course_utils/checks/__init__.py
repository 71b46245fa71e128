"""Checks, hints, quizzes, predictions and progress, shared by all lessons.

`exercise`  checks that name the likely mistake and never break a notebook
`quiz`      questions and predictions as data
`progress`  what a learner has done, on this machine only
`lessonNN`  what one lesson asks

An author begins with the examples at the top of `exercise` and `quiz`.
"""
