# The two commands a newcomer needs: `make demo` and `make test`. Both set everything up on first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo branching-demo leaderboard-demo tables test fast-test mutation lint format docs benchmark clean controllable-demo help

help:
	@echo "make demo       train a tiny network on synthetic scenes, end with a table and pictures in work_dirs/demo"
	@echo "make leaderboard-demo  every decoder's tiny row x 3 seeds, gains over single-task networks, table and page (hours)"
	@echo "make tables     regenerate the tables in README and docs from results/"
	@echo "make controllable-demo  one slimmable network against separate ones, in work_dirs/slimmable (40 minutes)"
	@echo "make branching-demo  search a tree, compare it with full and no sharing at equal parameters"
	@echo "make test       all tests (under 15 minutes on two cores)"
	@echo "make fast-test  all tests but those marked slow"
	@echo "make mutation   which of 240 single changes of the code the tests notice (an hour and a half on two cores)"
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

# The same command again skips what is finished and goes on with what was interrupted.
# The plain decoder on the three backbones of the rows: with one task at a time, the networks that gains are over.
PLAIN := configs/parallel/parallel
DEMO_SINGLE ?= $(addsuffix _tiny_synthetic_1xb8_300.py,$(PLAIN) $(PLAIN)_resnet18 $(PLAIN)_vit)
DEMO_TASKS ?= ['semseg'],['depth'],['normals'],['edge']
DEMO_ROWS ?= $(PLAIN)_tiny_synthetic_1xb8_300.py \
  $(filter-out $(DEMO_SINGLE),$(sort $(wildcard configs/*/*_tiny_synthetic_1xb8_300.py)))
DEMO_SEEDS ?= 0 1 2
DEMO_WORKERS ?= 2
DEMO_OPTIONS ?=
DEMO_WORK_DIR ?= work_dirs/leaderboard
DEMO_RESULTS ?= results/tiny_synthetic
DEMO_SITE ?= site/leaderboard

leaderboard-demo: $(READY)
	@status=0; \
	$(BIN)/python tools/launch.py $(DEMO_SINGLE) --set "tasks=$(DEMO_TASKS)" --name "single-task {tasks}" \
	  --seeds $(DEMO_SEEDS) --workers $(DEMO_WORKERS) --work-dir $(DEMO_WORK_DIR) --results $(DEMO_RESULTS) \
	  $(DEMO_OPTIONS) || status=$$?; \
	test $$status -ne 130 || exit 130; \
	$(BIN)/python tools/launch.py $(DEMO_ROWS) --seeds $(DEMO_SEEDS) --workers $(DEMO_WORKERS) --reference parallel \
	  --work-dir $(DEMO_WORK_DIR) --results $(DEMO_RESULTS) --baseline single-task $(DEMO_OPTIONS) || status=$$?; \
	test $$status -ne 130 || exit 130; \
	$(BIN)/python tools/table.py $(DEMO_RESULTS) --protocol synthetic-scenes --baseline single-task --sort gain || status=$$?; \
	$(BIN)/python tools/leaderboard.py build $(DEMO_RESULTS) --out $(DEMO_SITE) || status=$$?; \
	exit $$status

tables: $(READY)
	$(BIN)/python tools/table.py --write README.md docs/*.md

branching-demo: $(READY)
	$(BIN)/python tools/branching_experiment.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope -q

fast-test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope -q -m "not slow"

# Results are kept in work_dirs/mutation: the same command goes on where it was stopped. MUTATION="--only losses/ --list"
mutation: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,mutation]'
	PYTHONPATH=tests/support $(BIN)/python -m mutation $(MUTATION)

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

SLIM := configs/slimmable
SLIM_OUT := work_dirs/slimmable

controllable-demo: $(READY)
	$(BIN)/python tools/train.py $(SLIM)/slimmable_regnetx_002_synthetic_1xb8_400.py --work-dir $(SLIM_OUT)/slimmable --overwrite
	for width in 25 50 75 100; do $(BIN)/python tools/train.py $(SLIM)/separate$${width}_regnetx_002_synthetic_1xb8_400.py \
		--work-dir $(SLIM_OUT)/separate$$width --overwrite || exit 1; done
	rm -f $(SLIM_OUT)/control/width_table.json
	$(BIN)/python tools/controllable.py $(SLIM)/slimmable_regnetx_002_synthetic_1xb8_400.py $(SLIM_OUT)/slimmable/iter_400.pth \
		--work-dir $(SLIM_OUT)/control --separate $(foreach width,0.25=separate25 0.5=separate50 0.75=separate75 1=separate100,$(subst =,=$(SLIM_OUT)/,$(width))/iter_400.pth)

benchmark: $(READY)
	$(BIN)/python tools/benchmark.py

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache
