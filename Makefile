# Every target sets itself up from a bare Python >= 3.11: a virtual environment in .venv with the locked dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: run test lint format bench load restarts simulate chaos pictures lock schemas clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)  ## everything locally: Redis, Pub/Sub, three venues, a demo strategy, the service, a live view
	@exec $(BIN)/execution dev $(ARGS)

test: $(READY)  ## the whole test suite, against real local servers
	$(BIN)/pytest -n auto --dist loadgroup $(ARGS)

lint: $(READY)  ## style and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## speed of the whole service against a bare ccxt loop, cost of the algorithms against common bots
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.costs

load: $(READY)  ## 10,000 live orders and a stream of signals for ten minutes; ARGS="--minutes 3 --slow store"
	$(BIN)/python -m benchmarks.load $(ARGS)

restarts: $(READY)  ## replicas replaced one after another under load
	$(BIN)/python -m benchmarks.rolling_restart $(ARGS)

simulate: $(READY)  ## seeded runs of the whole service with faults on virtual time; SEEDS=1000 for more
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),300) $(ARGS)

chaos: $(READY)  ## seeded runs of real processes that are killed, frozen, cut off; SEEDS=50 for more
	$(BIN)/python -m tests.chaos --seeds $(or $(SEEDS),10) $(ARGS)

pictures: $(READY)  ## the pictures in docs/algorithms.md, from simulated runs
	$(BIN)/python -m benchmarks.pictures docs/images

schemas: $(READY)  ## JSON Schema of everything on the wire, into docs/schemas
	$(BIN)/python -m schemas.export docs/schemas

lock:  ## renew requirements.lock from pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	{ echo '# Exact versions of every dependency, for all platforms. Made by `make lock`.'; \
	  $(BIN)/uv pip compile --quiet --universal --all-extras --no-annotate --no-header --python-version 3.11 pyproject.toml; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove what the other targets made
	rm -rf $(VENV) .execution .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)
