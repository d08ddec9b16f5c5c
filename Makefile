# Every target prepares .venv first, which takes milliseconds when nothing has changed.
.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test e2e contract-table check fmt crds cluster-up cluster-down bench clean bootstrap
MAKEFLAGS += --no-print-directory

PYTHON_IN_VENV := .venv/bin/python

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: bootstrap ## See it work end to end on this machine (KEEP=1 leaves it running; CONTEXT= a cluster of yours)
	@$(PYTHON_IN_VENV) -m deploy.demo

demo-stop: bootstrap ## Stop the demos that KEEP=1 left running, and delete all that is theirs
	@$(PYTHON_IN_VENV) -m deploy.demo stop

test: bootstrap ## Run every test on real servers (ARGS= for pytest, e.g. ARGS="tests/unit -k plan")
	@$(PYTHON_IN_VENV) -m scripts.run_tests $(ARGS)

contract-table: bootstrap ## Run the contract suite of all stores, and write docs/store-contract.md from what it found
	@$(PYTHON_IN_VENV) -m scripts.run_tests tests/contract --contract-report .cache/contract-report.json
	@$(PYTHON_IN_VENV) -m scripts.store_table --report .cache/contract-report.json

check: bootstrap ## Format, lint, types, import contracts, and crds/ against the models
	@$(PYTHON_IN_VENV) -m scripts.check

fmt: bootstrap ## Format the code and mend what the linter can
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

crds: bootstrap ## Write crds/ and the reference page from the models
	@.venv/bin/vectorwright crds --dir crds
	@$(PYTHON_IN_VENV) -m scripts.reference

e2e: bootstrap ## Run the operator and its workers as real pods, as root on Linux or with kind (ARGS= for pytest)
	@NODE=1 VECTORWRIGHT_E2E=1 $(PYTHON_IN_VENV) -m scripts.run_tests -n 0 -m pods tests/e2e $(ARGS)

cluster-up: bootstrap ## Start a Kubernetes API server and leave it running (NAME=, CONTEXT=; NODE=1 runs pods, too)
	@$(PYTHON_IN_VENV) -m deploy.devcluster up

cluster-down: bootstrap ## Stop it and delete its data (NAME= as given to cluster-up)
	@$(PYTHON_IN_VENV) -m deploy.devcluster down

bench: bootstrap ## Measure, and write reports to bench/reports (ARGS= for the benchmark)
	@$(PYTHON_IN_VENV) -m bench $(ARGS)

clean: ## Stop this checkout's demos and clusters, delete what was made in it (downloads and builds in the cache stay)
	@if [ -x $(PYTHON_IN_VENV) ] && [ -d .run ]; then $(PYTHON_IN_VENV) -m deploy.demo stop; fi
	@if [ -x $(PYTHON_IN_VENV) ] && [ -d .run ]; then $(PYTHON_IN_VENV) -m deploy.devcluster down --all; fi
	@rm -rf .venv .run .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find operator tests deploy bench scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

bootstrap:
	@scripts/bootstrap.sh
