# The two commands a newcomer needs: `make demo` and `make test`. Both set everything up on first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo real-demo branching-demo balancing-demo merging-demo leaderboard-demo tables test fast-test long-tests mutation fuzz fault-tests data-problems conformance audit lint format docs benchmark clean controllable-demo help

help:
	@echo "make demo       train a tiny network on synthetic scenes, end with a table and pictures in work_dirs/demo"
	@echo "make leaderboard-demo  every method's tiny row x 3 seeds, gains over single-task networks, table and page (hours)"
	@echo "make real-demo DATA=/data  rows on mOSD, BSDS with saliency and CamVid: table and page (under an hour; PART=mosd for more)"
	@echo "make tables     regenerate the tables in README and docs from results/"
	@echo "make controllable-demo  one slimmable network against separate ones, in work_dirs/slimmable (40 minutes)"
	@echo "make branching-demo  search a tree, compare it with full and no sharing at equal parameters"
	@echo "make balancing-demo  balancing rules against equal and tuned weights, three seeds, in work_dirs/balancing (hours)"
	@echo "make merging-demo  single-task networks, their merges and joint training, three seeds, in work_dirs/merging (hours)"
	@echo "make test       all tests but the long ones (under 15 minutes on two cores)"
	@echo "make fast-test  all tests but those marked slow"
	@echo "make long-tests  tests of half a minute and more, which make test leaves out (half an hour)"
	@echo "make mutation   which of 240 single changes of the code the tests notice (an hour and a half on two cores)"
	@echo "make fuzz       5000 changed files of 25 kinds through the readers (5 minutes; FUZZ=10000 for more)"
	@echo "make audit      licences, known vulnerabilities, and tests with the lowest declared versions"
	@echo "make fault-tests    inject every fault that a run must survive, write docs/reliability.md (under 20 minutes)"
	@echo "make data-problems  try what people's files really have, write docs/data_problems.md"
	@echo "make conformance  the matrix of methods and properties from the outcomes of tests, docs/conformance.md (15 minutes)"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation site, in site/"
	@echo "make benchmark  speed and memory, as ratios against a baseline of the same run; BENCHMARK=FILE gets the numbers"

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@$(BIN)/python -c "import mmengine"  # writes yapf's grammar cache once, before processes race for it
	@touch $(READY)

demo: $(READY)
	$(BIN)/python tools/train.py configs/synthetic/parallel_tiny_synthetic_1xb16_1000.py --work-dir work_dirs/demo --overwrite

# The same command again skips what is finished and goes on with what was interrupted.
# The plain decoder on the four backbones of the rows: with one task at a time, the networks that gains are over.
PLAIN := configs/parallel/parallel
DEMO_SINGLE ?= $(addsuffix _tiny_synthetic_1xb8_300.py,$(PLAIN) $(PLAIN)_resnet18 $(PLAIN)_vit $(PLAIN)_swin)
DEMO_TASKS ?= ['semseg'],['depth'],['normals'],['edge']
# Configs of a search are no rows: what they find is trained by another config.
DEMO_SEARCHES = $(shell grep -l '^search = ' configs/*/*_tiny_synthetic_1xb8_300.py)
DEMO_ROWS ?= $(PLAIN)_tiny_synthetic_1xb8_300.py \
  $(filter-out $(DEMO_SINGLE) $(DEMO_SEARCHES),$(sort $(wildcard configs/*/*_tiny_synthetic_1xb8_300.py)))
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

# DATA holds the prepared folders mosd, bsds_sod and camvid. PART: data sets or parts of them, as
# `tools/real_demo.py --list` names them; without it a part that takes under an hour. RUNS=N trains N runs at most.
SEEDS ?= 0
real-demo: $(READY)
	@test -n "$(DATA)" || { echo "make real-demo DATA=FOLDER: the folder of the prepared mosd, bsds_sod and camvid; see datasets/"; exit 2; }
	$(BIN)/python tools/real_demo.py --data "$(DATA)" $(if $(PART),--part $(PART)) --seeds $(SEEDS) $(if $(RUNS),--runs $(RUNS))

tables: $(READY)
	$(BIN)/python tools/table.py --write README.md docs/*.md docs/*/*.md

branching-demo: $(READY)
	$(BIN)/python tools/branching_experiment.py

# The same command again continues where it was stopped. A quick look, whose numbers say nothing about the rules:
# make balancing-demo BALANCING="--iterations 30 --images 100 --candidates 2 --conflict-steps 50 --rules LogSum UPGrad"
balancing-demo: $(READY)
	$(BIN)/python tools/balancing_experiment.py $(BALANCING)

# Real sets lie below DATA as datasets/*.md say; those that are absent are left out. The same command continues.
# A quick look: make merging-demo MERGING="--problems scenes --seeds 0 --iterations 10 --learned 5"
DATA ?= data
merging-demo: $(READY)
	$(BIN)/python tools/merging_experiment.py --data $(DATA) $(MERGING)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -q -m "not long"

fast-test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -q -m "not slow and not long"

# Tests of half a minute and more: every decoder through torch.compile and torch.export, restarts by torchrun.
long-tests: $(READY)
	$(BIN)/python -m pytest -n 2 -q -m long

# Results are kept in work_dirs/mutation: the same command goes on where it was stopped. MUTATION="--only losses/ --list"
mutation: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[test,mutation]'
	PYTHONPATH=tests/support $(BIN)/python -m mutation $(MUTATION)

# Another seed, or a single kind: FUZZ_OPTIONS="--seed 1 --only png" ; --json prints the table as JSON
FUZZ ?= 5000
fuzz: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -m fuzz --count $(FUZZ) $(FUZZ_OPTIONS)

# Licences, known vulnerabilities where a database can be reached, and the quick tests with the lowest declared versions.
AUDIT := work_dirs/audit
AUDIT_TESTS ?= tests/core tests/recipe tests/data tests/metrics tests/report tests/runtime

audit: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -m audit licences
	$(BIN)/python -m pip install --quiet pip-audit
	PYTHONPATH=tests/support $(BIN)/python -m audit vulnerabilities
	rm -rf $(AUDIT) && mkdir -p $(AUDIT)
	PYTHONPATH=tests/support $(BIN)/python -m audit lowest $(AUDIT)/lowest.txt
	$(PYTHON) -m venv $(AUDIT)/lowest
	$(AUDIT)/lowest/bin/python -m pip install --quiet --prefer-binary --constraint $(AUDIT)/lowest.txt --editable '.[test]'
	$(AUDIT)/lowest/bin/python -m pytest -n 2 --dist loadscope -q -m "not slow" $(AUDIT_TESTS)

# Pages of documentation that tests make; the last column is what was seen.
# KILLS = how often `kill -9` strikes at random moments, SOAK = iterations of the long run; fewer for a quick look.
KILLS ?= 100
SOAK ?= 2000
fault-tests: $(READY)
	KILLS=$(KILLS) SOAK=$(SOAK) PYTHONPATH=tests/support $(BIN)/python -m pytest -p outcomes -n 2 --dist worksteal -q -m fault \
	  --page fault=docs/reliability.md

data-problems: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -m pytest -p outcomes -n 2 --dist loadscope --no-loadscope-reorder -q -m problem \
	  --page problem=docs/data_problems.md

conformance: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -m pytest -p outcomes -n 2 --dist loadscope --no-loadscope-reorder -q -m "conformance and not long" \
	  --page conformance=docs/conformance.md

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python tools/documentation stage
	rm -rf site
	$(BIN)/zensical build --clean --strict
	$(BIN)/python tools/documentation check

SLIM := configs/slimmable
SLIM_OUT := work_dirs/slimmable

controllable-demo: $(READY)
	$(BIN)/python tools/train.py $(SLIM)/slimmable_regnetx_002_synthetic_1xb8_400.py --work-dir $(SLIM_OUT)/slimmable --overwrite
	for width in 25 50 75 100; do $(BIN)/python tools/train.py $(SLIM)/separate$${width}_regnetx_002_synthetic_1xb8_400.py \
		--work-dir $(SLIM_OUT)/separate$$width --overwrite || exit 1; done
	rm -f $(SLIM_OUT)/control/width_table.json
	$(BIN)/python tools/controllable.py $(SLIM)/slimmable_regnetx_002_synthetic_1xb8_400.py $(SLIM_OUT)/slimmable/iter_400.pth \
		--work-dir $(SLIM_OUT)/control --separate $(foreach width,0.25=separate25 0.5=separate50 0.75=separate75 1=separate100,$(subst =,=$(SLIM_OUT)/,$(width))/iter_400.pth)

# About nine minutes. Two files, e.g. of two versions: `python tools/benchmark.py compare BEFORE AFTER`
BENCHMARK ?= work_dirs/benchmark.json
benchmark: $(READY)
	@mkdir -p $(dir $(BENCHMARK))
	$(BIN)/python tools/benchmark.py --json > $(BENCHMARK)
	$(BIN)/python tools/benchmark.py page $(BENCHMARK)

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache
