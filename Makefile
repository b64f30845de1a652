# The two commands a newcomer needs: `make demo` and `make test`. Both set everything up on first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test fast-test lint format docs benchmark clean help

help:
	@echo "make demo       train a tiny network on synthetic scenes, end with a table and pictures in work_dirs/demo"
	@echo "make test       all tests (under 15 minutes on two cores)"
	@echo "make fast-test  the tests that take seconds"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation site, in site/"
	@echo "make benchmark  speed and memory, as ratios against a baseline of the same run"

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@$(BIN)/python -c "import mmengine"  # writes yapf's grammar cache once, before processes race for it
	@touch $(READY)

demo: $(READY)
	$(BIN)/python tools/train.py configs/synthetic/parallel_tiny_synthetic_1xb16_1000.py --work-dir work_dirs/demo --overwrite

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope -q

fast-test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope -q -m "not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

benchmark: $(READY)
	$(BIN)/python tools/benchmark.py

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache
