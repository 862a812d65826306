# Every target works as the first command typed in a fresh clone; `make install` alone prepares everything.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTEST := .venv/bin/pytest

.PHONY: help install lock lock-sdks up down demo test test-fast test-sdks faults bench asyncapi lint

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: ## .venv with everything, by version and hash
	@deploy/local/install.sh

lock: ## write the locks anew (UPGRADE=1: with the newest versions)
	@deploy/local/install.sh lock

lock-sdks: install ## write the locks of the SDKs' environments anew
	@tests/sdks/lock.sh

up: install ## the local stack in the foreground; Ctrl-C ends it
	@exec .venv/bin/tunesmith up

down: install ## end the local stack
	@.venv/bin/tunesmith down

demo: install ## start the stack, tune the sample subject and draw it before and after
	@.venv/bin/tunesmith up --detach
	@.venv/bin/tunesmith demo

test: install ## all tests but the long forms of the faults
	@$(PYTEST) tests

test-fast: install ## the tests that need no backend
	@$(PYTEST) tests/unit

test-sdks: install ## every published version of OctoAI's SDKs against a stack, about a minute each
	@$(PYTEST) tests/sdks -m "long or not long"

faults: install ## every promise of docs/reliability in full length
	@$(PYTEST) tests/faults -m "long or not long"

bench: install ## what we cost against bare peers, as ratios (docs/performance.md)
	@$(PYTEST) tests/bench -o python_files='bench_*.py' -q

asyncapi: install ## write docs/asyncapi.json anew, after an event has changed
	@.venv/bin/python -m shared.messaging.asyncapi > docs/asyncapi.json.new && mv docs/asyncapi.json.new docs/asyncapi.json

lint: install ## style, format and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/basedpyright
