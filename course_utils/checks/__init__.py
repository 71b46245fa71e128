"""Checks, hints, quizzes, predictions and progress: what all lessons share. It knows no lesson.

`exercise`  checks that name the likely mistake and never break a notebook
`quiz`      questions and predictions as data
`compare`   in what a value differs from the expected one, in words
`sandbox`   runs a learner's function: time limit, interrupts, changed inputs
`progress`  what a learner has done, on this machine only

An author begins with the examples at the top of `exercise` and `quiz`.
"""
