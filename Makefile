# Every target sets up what it needs. `make help` lists them.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH ?= night
NIGHT ?=
# Test files run side by side, one worker a core of a small machine; in their order, or the long ones would come last.
WORKERS ?= 2
# Hundreds of processes import the same files: compiled once, wherever a shell says not to keep what was compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help night up test test-dags check prove bench model clean
.DEFAULT_GOAL := help

help:
	@echo "make night              one real night on this machine (NIGHT='--force --json' passes options on)"
	@echo "make up                 Airflow's UI, gateways, dispatchers, auditors and cars to play with; Ctrl-C ends all"
	@echo "make test               every test, on real parts"
	@echo "make test-dags          the DAGs alone"
	@echo "make check              lint, types, layers"
	@echo "make prove              long proofs"
	@echo "make bench BENCH=name   one of benchmarks/, beside its peers"
	@echo "make model              train the road-sign model and the drive's detector anew"
	@echo "make clean              remove the environment and the nights"

$(STAMP): infra/locks/laptop.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "fleetbatch needs Python 3.11 or newer and found none on PATH; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "fleetbatch needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=/path/to/python3" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks the venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "setting up $(VENV) from the lock (once, one to three minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/locks/laptop.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

night: $(STAMP)
	@$(BIN)/fleetbatch night $(NIGHT)

up: $(STAMP)
	@$(BIN)/fleetbatch up

test: $(STAMP)
	$(BIN)/python -m pytest -m "not prove" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-dags: $(STAMP)
	$(BIN)/python -m pytest -m "not prove" -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/dags

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prove: $(STAMP)
	$(BIN)/python -m pytest -m prove -s

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run $(BENCH)

model: $(STAMP)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python infra/train_road_signs.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python infra/train_drive.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python infra/train_driving_policy.py

clean:
	rm -rf $(VENV) .fleetbatch .bench
