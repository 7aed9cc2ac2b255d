# The two commands are `make run` and `make test`; `make check` is what you run all day.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check format lock bench clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run ## Set everything up and start the chat on http://127.0.0.1:$(PORT)
	@exec $(BIN)/hubbub serve --dev --port $(PORT)

test: $(VENV)/.test ## Set everything up and run all tests
	$(BIN)/pytest

check: $(VENV)/.dev $(VENV)/.libraries ## Format, lint, types, import layers, fast tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m fast -q -n auto

format: $(VENV)/.dev ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Resolve the newest allowed versions into constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)  # not .dev: that needs the file that is made here
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --group dev pyproject.toml \
		--no-header --no-emit-index-url -o constraints.txt

bench: $(VENV)/.dev ## Measure delivery, sending and memory on this machine (several minutes)
	$(BIN)/python -m bench

clean: ## Remove the environment and what tests and builds left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

$(VENV)/.run: pyproject.toml constraints.txt scripts/setup
	@PYTHON=$(PYTHON) scripts/setup run

$(VENV)/.dev: pyproject.toml constraints.txt scripts/setup
	@PYTHON=$(PYTHON) scripts/setup dev

# Debian's packages can vanish without this folder knowing, so the script looks for them each time.
.PHONY: $(VENV)/.libraries $(VENV)/.test
$(VENV)/.libraries: $(VENV)/.dev
	@scripts/setup system libatomic1

$(VENV)/.test: $(VENV)/.dev
	@scripts/setup system libatomic1 chromium nodejs npm
