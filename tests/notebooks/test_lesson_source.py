"""The tag rules: what becomes of each cell of a source."""

import pytest

from lesson_source import SourceError, learner_notebook, read_source, solved_notebook, without_solutions

LESSON = '''# %% [markdown]
# # Why?

# %% tags=["exercise"]
def double(x):
    raise NotImplementedError

# %% tags=["solution"]
def double(x):
    """Twice, as in ```2 * x```."""
    return 2 * x

# %% tags=["solution"]
double(4)

# %% [markdown] tags=["solution"]
# Because of **this**.

# %% tags=["check"]
lesson.check_double(double)

# %% [markdown] tags=["hints"]
# 1. A number has a `double`:
#
#    ```python
#    - 2
#        # indented
#    ```
# 2. Use `*`.
#
#    With two paragraphs.
# 3. `2 * x`

# %% tags=["raises-exception"]
1 / 0
'''
FOLDED = '''<details>
<summary>Solution</summary>

````python
def double(x):
    """Twice, as in ```2 * x```."""
    return 2 * x
````

```python
double(4)
```

Because of **this**.

</details>'''
HINTS = """<details>
<summary>Hint 1 of 3</summary>

A number has a `double`:

```python
- 2
    # indented
```

<details>
<summary>Hint 2 of 3</summary>

Use `*`.

With two paragraphs.

<details>
<summary>Hint 3 of 3</summary>

`2 * x`

</details>

</details>

</details>"""
STUB = "def double(x):\n    raise NotImplementedError"


@pytest.fixture
def cells(tmp_path):
    return lambda text=LESSON: read_source(write(tmp_path, text))


def write(folder, text):
    path = folder / "01_lesson.py"
    path.write_text(text, encoding="utf-8")
    return path


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def test_the_learners_notebook_has_the_stub_and_the_solution_folded_after_check_and_hints(cells):
    check = "lesson.check_double(double)"
    assert sources(learner_notebook(cells())) == ["# Why?", STUB, check, HINTS, FOLDED, "1 / 0"]


def test_without_hints_the_solution_follows_the_check(cells):
    text = LESSON[: LESSON.index('# %% [markdown] tags=["hints"]')]
    assert sources(learner_notebook(cells(text)))[-2:] == ["lesson.check_double(double)", FOLDED]
    assert sources(learner_notebook(cells(text + "# %%\n1")))[-2:] == [FOLDED, "1"]


def test_the_solved_notebook_has_the_solution_in_place_of_the_stub(cells):
    solved = sources(solved_notebook(cells()))
    assert STUB not in solved
    assert solved[1:5] == [
        'def double(x):\n    """Twice, as in ```2 * x```."""\n    return 2 * x',
        "double(4)",
        "Because of **this**.",
        "lesson.check_double(double)",
    ]


def test_a_reader_gets_the_learners_notebook_less_its_solutions(cells):
    learner = learner_notebook(cells())
    assert sources(without_solutions(learner)) == [text for text in sources(learner) if text != FOLDED]


def test_tags_stay(cells):
    tags = [cell.metadata.get("tags", []) for cell in learner_notebook(cells()).cells]
    assert tags == [[], ["exercise"], ["check"], ["hints"], ["solution"], ["raises-exception"]]


def test_an_inserted_cell_moves_no_other_id(cells):
    before = learner_notebook(cells()).cells
    after = learner_notebook(cells("# %%\nnew\n\n" + LESSON)).cells
    assert [cell.id for cell in after[1:]] == [cell.id for cell in before]


def test_the_two_notebooks_of_a_lesson_share_the_ids_of_equal_cells(cells):
    ids = {cell.source: cell.id for cell in learner_notebook(cells()).cells}
    solved = solved_notebook(cells()).cells
    assert len([cell for cell in solved if ids.get(cell.source) == cell.id]) == 4


def test_the_stored_answer_to_a_prediction_is_hidden(cells):
    (cell,) = learner_notebook(cells('# %% tags=["answer"]\n1')).cells
    assert cell.metadata == {"tags": ["answer"], "collapsed": True, "jupyter": {"outputs_hidden": True}}


def test_a_comment_that_asks_stays_a_comment(cells):
    assert sources(learner_notebook(cells("# %%\n# why?\n1"))) == ["# why?\n1"]


def test_equal_cells_are_numbered(cells):
    first, text, second = learner_notebook(cells("# %%\n1\n\n# %% [markdown]\n# 1\n\n# %%\n1")).cells
    assert second.id == f"{first.id}-2"
    assert text.id != first.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('# %% tags=["excercise"]\n1', "unknown: excercise. Known tags"),
        ('# %% tag=["check"]\n1', "unknown: tag. Known tags"),
        ("# %%\n1\n\n# %%\n\n# %%\n2", "empty cell after '1'"),
        ("# %% [raw]\n# 1", "a raw cell cannot be used"),
        ('# %% tags=["exercise"]\n1\n\n# %% tags=["check"]\n2', "at '1': this exercise has no solution"),
        ('# %% tags=["exercise"]\n1\n\n# %% tags=["solution"]\n2', "at '1': this exercise has no check"),
        ('# %% tags=["exercise"]\n1', "at '1': this exercise has no solution"),
        ('# %% tags=["exercise"]\n1\n\n# %% tags=["exercise"]\n2', "at '1': this exercise has no solution"),
        ('# %% tags=["solution"]\n1', "a solution needs an exercise before it"),
        ('# %% tags=["hints"]\n1', "a code cell cannot be used"),
        ('# %% [markdown] tags=["hints"]\n# Think.', "hints must be one markdown list"),
        ('# %% [markdown] tags=["hints"]\n# - Think.\n#\n# And again.', "hints must be one markdown list"),
    ],
)
def test_a_source_that_breaks_a_rule_is_refused(text, message, cells):
    with pytest.raises(SourceError, match=message):
        learner_notebook(cells(text))
