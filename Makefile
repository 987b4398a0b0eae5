# Two commands: `make run` shows it at work, `make test` proves it. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run serve test coverage check format bench chaos soak clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(READY) ## Make the virtual environment.

run: $(READY) ## Two simulated engines, the router, one streamed answer; Ctrl-C ends all.
	$(BIN)/router demo

serve: $(READY) ## Run the router with backends.yaml.
	$(BIN)/router serve

test: $(READY) ## All tests that need no real engine.
	$(BIN)/python -m pytest -m "not real_vllm and not node and not docker and not browser and not prometheus"

coverage: $(READY) ## The same tests, with a coverage report.
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -m "not real_vllm and not node and not docker and not browser and not prometheus"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(READY) ## Style, types, floors.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code in form.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## CPU a request and an event, beside nginx and a direct connection.
	$(BIN)/python -m bench

chaos: $(READY) ## Hostile engines and clients: make chaos SEED=1 N=5000.
	PYTHONPATH=tests $(BIN)/python -m e2e.chaos --seed $(or $(SEED),1) --count $(or $(N),5000)

soak: $(READY) ## Mixed load for a time: make soak MINUTES=20.
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),20)

clean: ## Remove what the other targets made.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
