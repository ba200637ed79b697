# Two commands set everything up: `make ablations` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MATRIX ?= ablations.yaml
SCALE ?= micro
ROWS ?=
SEEDS ?= 0
PARALLEL ?= 1
WHERE ?= local
CLUSTER ?=
ROOTS ?= .
MUTANTS ?= 60

# See experiments/main.py: short spins keep two busy cores usable.
export GOMP_SPINCOUNT ?= 3000

.DEFAULT_GOAL := help
.PHONY: help install ablations status retry gather report prune test test-cluster check format house mutants clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  variables: SCALE=micro|smoke|mini|base|large ROWS=3A,table6|all SEEDS=0,1 MATRIX=ablations.yaml PYTHON=python3 VENV=.venv"
	@echo "             WHERE=local PARALLEL=1, or WHERE=slurm CLUSTER=a file of experiments/clusters by name"

# The stamp is newer than pyproject.toml only where the last install went through.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, got " + sys.version.split()[0] + "; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on -e '.[dev]'
	@touch $@

install: $(VENV)/installed ## make the virtual environment and install the suite with its tools

WHAT = --matrix $(MATRIX) --scale $(SCALE) --rows '$(ROWS)' --seeds $(SEEDS)

ablations: $(VENV)/installed ## run the matrix: corpus, training, sampling, scores, tables in results/
ifeq ($(WHERE),slurm)
	$(BIN)/mntp ablate submit $(WHAT) --cluster '$(or $(CLUSTER),$(error WHERE=slurm needs CLUSTER=, a file of experiments/clusters by name))'
else
	$(BIN)/mntp ablate run $(WHAT) --parallel $(PARALLEL)
endif

status: $(VENV)/installed ## show the state of every cell
	$(BIN)/mntp ablate status --scale $(SCALE)

retry: $(VENV)/installed ## start the cells again that failed or were cancelled
	$(BIN)/mntp ablate retry --scale $(SCALE) --cluster '$(CLUSTER)' --parallel $(PARALLEL)

prune: $(VENV)/installed ## drop the optimiser states of finished cells
	$(BIN)/mntp ablate prune --scale $(SCALE)

gather: $(VENV)/installed ## write the tables from what is finished
	$(BIN)/mntp ablate gather --scale $(SCALE)

report: $(VENV)/installed ## write report.html: tables, curves, sounds, failures in one offline file
	$(BIN)/mntp ablate report --scale $(SCALE)

test: $(VENV)/installed ## run the tests (no system packages, no network, no GPU)
	$(BIN)/python -m pytest

test-cluster: $(VENV)/installed ## run the tests that need a real SLURM (slurm-wlm and munge), started here and thrown away
	TEST_CLUSTER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster

check: $(VENV)/installed ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

house: $(VENV)/installed ## print how the source is laid out, in figures; ROOTS='DIR .' compares checkouts
	$(BIN)/python -m tools.house --trips build/house $(ROOTS)

mutants: $(VENV)/installed ## change single expressions of central files: which changes does no test notice? takes about an hour
	nice $(BIN)/python -m tools.mutants --sample $(MUTANTS)

clean: ## remove runs, results, prepared data and caches; keeps the environment
	rm -rf runs results data lightning_logs .pytest_cache .mypy_cache .ruff_cache
