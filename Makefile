# Every target works as the first command typed in a fresh clone; `make install` alone prepares everything.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTEST := .venv/bin/pytest
# The variable turns off an advertisement that mkdocs-material prints at every build.
MKDOCS := NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs
# Tests run in this many processes.
WORKERS ?= 2

.PHONY: help install lock lock-sdks up down demo test coverage test-fast test-faults test-models test-browser test-minio sdk-environments test-sdks test-sdks-latest faults bench chart-schemas asyncapi docs \
	format lint check

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: ## .venv with everything, by version and hash
	@deploy/local/install.sh

lock: ## write the locks again (UPGRADE=1: with the newest versions)
	@deploy/local/install.sh lock

lock-sdks: install ## write the locks of the SDKs' environments again
	@tests/sdks/lock.sh

up: install ## the local stack in the foreground; Ctrl-C stops it
	@exec .venv/bin/tunesmith up

down: install ## stop the local stack
	@.venv/bin/tunesmith down

demo: install ## start the stack, tune the sample subject and show it without and with the tune
	@.venv/bin/tunesmith up --detach
	@.venv/bin/tunesmith demo

test: install ## all tests but those of the targets below (WORKERS=2 processes; prints the 20 slowest)
	@$(PYTEST) tests --ignore tests/faults --ignore tests/sdks -n $(WORKERS) --durations=20

test-faults: install ## every promise of docs/reliability.md in its short form
	@$(PYTEST) tests/faults -n $(WORKERS) --durations=20

faults: install ## the same in full length, and many more hostile files
	@$(PYTEST) tests/faults tests/unit/test_hostile_tars.py tests/unit/test_hostile_safetensors.py -m "long or not long"

test-models: install ## the small checkpoints can be built, and the shipped ones draw what their scores say
	@$(PYTEST) tests/integration -k "shipped or tiny_build or published" -m "long or not long" -n $(WORKERS)

coverage: install ## the lines that the unit and integration tests run, in percent
	@$(PYTEST) tests/unit tests/integration -n $(WORKERS) -q --cov=services --cov=shared --cov=tunesmith --cov-report=term:skip-covered

test-fast: install ## the tests that need no backend
	@$(PYTEST) tests/unit

test-browser: install ## the walks through the console's pages, in Chromium
	@$(PYTEST) tests/browser

test-minio: install ## the contract of the store on MinIO, which Go builds the first time
	@$(PYTEST) tests/contract/test_blobs.py -m minio

sdk-environments: install
	@.venv/bin/python -m tests.sdks.environments

test-sdks-latest: install sdk-environments ## the last versions of OctoAI's SDKs, and the commands of README and guide, against a stack
	@$(PYTEST) tests/sdks -n $(WORKERS) --durations=20

test-sdks: install ## every published version of OctoAI's SDKs against a stack, about a minute each
	@$(PYTEST) tests/sdks -m "long or not long"

chart-schemas: install ## write the schemas of the chart's tests again, after a version in tests/charts/make_schemas.py has changed
	@.venv/bin/python -m tests.charts.make_schemas

bench: install ## what we cost against bare peers, as ratios (docs/performance.md)
	@$(PYTEST) tests/bench -o python_files='bench_*.py' -q

asyncapi: install ## write docs/asyncapi.json again, after an event has changed
	@.venv/bin/python -m shared.messaging.asyncapi > docs/asyncapi.json.new && mv docs/asyncapi.json.new docs/asyncapi.json

docs: install ## the docs site, in build/docs
	@$(MKDOCS) build --strict --quiet
	@echo build/docs/index.html

format: install ## fix style and format
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format .

lint: install ## style, format, types and the links of the docs
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/basedpyright
	@$(MKDOCS) build --strict --quiet

check: lint test ## everything that a change must pass
