# Everything from a bare clone, with only Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two cores are plenty: more threads per process only fight over them.
export OMP_NUM_THREADS ?= 1
JOBS ?= 2

.PHONY: demo test rest test-all containers lint types install format benchmark guard clean
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -rs

demo: install  ## train, forget, recover, and prove it, on 5 000 real digits
	$(BIN)/fedunlearn run experiments/quickstart.toml

test: lint types  ## lint, types, unit tests and every capability once from end to end, within ten minutes
	$(PYTEST) -m "not slow and not containers"

rest: install  ## the tests that `make test` leaves out: longer runs, more cases
	$(PYTEST) -m "slow and not containers"

test-all: test rest  ## both: every test that needs no Docker engine, half an hour

containers: install  ## a federation in containers, killed and replayed: minutes, and 7 GB; needs a Docker engine
	FEDUNLEARN_CONTAINERS=required $(BIN)/python -m pytest -n 0 -m containers tests/containers

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: install  ## every engine beside a bare loop and stock Flower, hours
	$(BIN)/python -m benchmarks.engines --threads 1 --threads 2 --json runs/engines.json --write-docs

guard: install  ## fails if an engine has become slower, about a minute
	$(BIN)/python -m benchmarks.engines --guard

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
