# The two commands are `make run` and `make test`; `make check` is what you run all day.
PYTHON ?= python3
PORT ?= 8000
PYTHON_VERSION ?= 3.13
ARCHITECTURE ?= arm64
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run run-cluster test test-faults check format lock bench bench-peers package-aws clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run ## Set everything up and start the chat on http://127.0.0.1:$(PORT)
	@exec $(BIN)/hubbub serve --dev --port $(PORT)

run-cluster: $(VENV)/.cluster $(VENV)/.servers ## Start PostgreSQL, three NATS servers, three nodes and nginx, for trying out what may die
	@exec $(BIN)/python -m scripts.run_cluster --port $(PORT)

# What Python makes of a source is kept, whatever the shell says of compiled files: tests start thousands of processes.
check test test-faults: export PYTHONDONTWRITEBYTECODE :=

# Most of their time tests wait for servers and for time to pass. A file stays in one process, with the servers it shares,
# and so does a home with all its tests: tests/scheduling.py.
test: $(VENV)/.test ## Set everything up and run all tests
	$(BIN)/pytest -n 2 --dist loadfile

# The seed makes the same faults in the same order: FAULTS_SEED=… for what a run has said that its seed was.
FAULTS_SECONDS ?= 600
test-faults: $(VENV)/.test ## Break a cluster in every way for ten minutes, and check what clients saw (FAULTS_SECONDS, FAULTS_SEED)
	FAULTS_SECONDS=$(FAULTS_SECONDS) FAULTS_FOLDER=build/faults $(BIN)/pytest -s tests/faults/test_cluster_history.py

# Making what pytest makes of the tests' asserts takes as long as a third of the tests. Properties are tried with a tenth of
# the examples that `make test` takes.
# The first check of types takes half a minute on one core, so it goes beside the tests; what it says comes after them.
check: $(VENV)/.dev $(VENV)/.libraries ## Format, lint, types, import layers, fast tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@mkdir -p .mypy_cache; $(BIN)/mypy >.mypy_cache/said 2>&1 & types=$$!; \
		$(BIN)/pytest -m fast -q -n logical --hypothesis-profile=check; tests=$$?; \
		wait $$types; types=$$?; echo "mypy: $$(cat .mypy_cache/said)"; [ $$tests = 0 ] && [ $$types = 0 ]

format: $(VENV)/.dev ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Resolve the newest allowed versions into constraints.txt, and of them what functions need
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)  # not .dev: that needs the file that is made here
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --group dev pyproject.toml \
		--no-header --no-emit-index-url -o constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 -c constraints.txt deploy/requirements.in \
		--generate-hashes --no-annotate --no-header --no-emit-index-url -o deploy/requirements.txt
	for peer in bench/peers/requirements/*.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 "$$peer" \
			--generate-hashes --no-annotate --no-header --no-emit-index-url -o "$${peer%.in}.txt"; done

bench: $(VENV)/.dev ## Measure delivery, sending and memory on this machine (several minutes; BENCH="--only sends --save")
	$(BIN)/python -m bench $(BENCH)

# Each peer is installed below build/peers. What cannot be had here is named with the reason, and the others go on.
PEERS ?= --save
bench-peers: $(VENV)/.dev ## Measure Hubbub beside its peers, an hour, and write docs/benchmarks.md (PEERS="--only hubbub,ws --quick")
	@scripts/setup system gcc nodejs npm redis-server || echo "Peers that need what is missing are left out" >&2
	@$(BIN)/python -m bench.peers $(PEERS); status=$$?; $(BIN)/python -m bench.report; exit $$status

package-aws: $(VENV)/.run ## Build the archives that Lambda functions run from (PYTHON_VERSION, ARCHITECTURE, INCLUDE)
	$(BIN)/python scripts/package_aws.py --python-version $(PYTHON_VERSION) --architecture $(ARCHITECTURE) \
		$(addprefix --include ,$(INCLUDE))

clean: ## Remove the environment and what tests and builds left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

ACCELERATOR := hatch_build.py $(addprefix src/hubbub/gateway/,_accelerator.c _intake.c _intake.h)

$(VENV)/.run: pyproject.toml constraints.txt scripts/setup $(ACCELERATOR)
	@PYTHON=$(PYTHON) scripts/setup run

$(VENV)/.dev: pyproject.toml constraints.txt scripts/setup $(ACCELERATOR)
	@PYTHON=$(PYTHON) scripts/setup dev

$(VENV)/.cluster: pyproject.toml constraints.txt scripts/setup $(ACCELERATOR)
	@PYTHON=$(PYTHON) scripts/setup cluster

# Debian's packages can vanish without this folder knowing, so the script looks for them each time.
.PHONY: $(VENV)/.libraries $(VENV)/.servers $(VENV)/.test
$(VENV)/.servers: $(VENV)/.cluster
	@scripts/setup system postgresql nginx

$(VENV)/.libraries: $(VENV)/.dev
	@scripts/setup system libatomic1

$(VENV)/.test: $(VENV)/.dev
	@scripts/setup system libatomic1 chromium nodejs npm postgresql pgbouncer nginx haproxy caddy valgrind
	@scripts/dynamodb-local || echo "DynamoDB Local is not here: tables are tested on moto alone" >&2
