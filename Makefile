# One word for each thing a maintainer does. CONTRIBUTING.md says when.
.PHONY: check fast test notebooks browser build

# JavaScript and CSS: an installed biome, or npx; the course itself needs neither.
BIOME := $(if $(shell command -v biome),biome check,$(if $(shell command -v npx),npx --yes @biomejs/biome@2.6.8 check,@echo "JavaScript and CSS are not checked: neither biome nor npx is installed."))

PYRIGHT := $(if $(shell command -v pyright),pyright --pythonpath "$$(command -v python)",@echo "Types are not checked: pyright is not installed.")

check:      # style, types, and notebooks against their sources; runs no model
	ruff check
	ruff format --check
	$(BIOME)
	$(PYRIGHT)
	python tools/build_notebooks.py --check

fast:       # the tests that answer within a minute
	pytest tests/unit/test_releases.py tests/unit/test_imports.py tests/unit/test_package.py \
	    tests/unit/test_test_line.py tests/unit/checks/test_quiz.py tests/unit/checks/test_progress.py \
	    tests/unit/subjects/test_tokens.py tests/unit/subjects/test_plots.py \
	    tests/unit/widgets/test_widgets_base.py tests/unit/widgets/test_widget_labels.py \
	    tests/notebooks/test_lesson_source.py tests/notebooks/test_built_notebooks.py

test:       # everything: the README's line
	pytest

notebooks:  # every cell of every notebook, outputs compared
	pytest notebooks

browser:    # widgets in Chromium and in JupyterLab
	pytest tests/browser

build:      # notebooks from notebooks/source, those that changed
	python tools/build_notebooks.py
