# Two commands: `make up` sets up and runs the main job, `make test` sets up and passes the tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
RUN_LISTS := requirements/build.txt requirements/gateway.txt requirements/$(ENGINE).txt requirements/data.txt
DEV_LISTS := requirements/dev.txt requirements/bergson.txt
RUN_STAMP := $(VENV)/.run-$(shell cat $(RUN_LISTS) pyproject.toml | sha256sum | cut -c1-12)
DEV_STAMP := $(VENV)/.dev-$(shell cat $(DEV_LISTS) | sha256sum | cut -c1-12)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --no-deps
PORT ?= 8080
SECONDS_OF_LOAD ?= 60
SEED ?= 1
MINUTES ?= 2
DATASET ?= healthcare

.PHONY: help install install-dev test-servers up once clients test check format chart load fidelity attacks report \
        peers bench-gateway bench-ledger bench-rebuild bench-bytes bench-proof bench-search bench-contributors bench-attribution faults faults-mutants dashboard pins clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(RUN_STAMP)  ## make the environment alone (.venv, with the byline command in it)

install-dev: $(RUN_STAMP) $(DEV_STAMP)

$(RUN_STAMP): $(RUN_LISTS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Byline needs Python 3.11: install it or set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV) ($(ENGINE)): $$(cat $(RUN_LISTS) | wc -l) packages, some minutes the first time"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@for list in $(RUN_LISTS); do echo "  $$list"; $(PIP) -r $$list || { echo "could not install $$list: is a package registry reachable, and the disk not full?"; exit 1; }; done
	@$(PIP) --no-build-isolation --editable .
	@rm -f $(VENV)/.run-*; touch $@

$(DEV_STAMP): $(DEV_LISTS) $(RUN_STAMP)
	@echo "installing the development tools"
	@for list in $(DEV_LISTS); do $(PIP) -r $$list || { echo "could not install $$list: is a package registry reachable, and the disk not full?"; exit 1; }; done
	@rm -f $(VENV)/.dev-*; touch $@

test-servers:  ## Debian's Redis 7.0, PostgreSQL and Chromium for the tests that use them (needs root)
	@for program in redis-server redis-benchmark chromium; do command -v $$program >/dev/null || need=1; done; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || need=1; \
	[ -z "$${need:-}" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends redis-server redis-tools postgresql chromium >/dev/null; }

up: install  ## set up, then run the main job until Ctrl-C
	@exec $(BIN)/byline up --port $(PORT)

once: install  ## the main job once, with its JSON report as last line
	@exec $(BIN)/byline up --once --json --port $(PORT)

test: install-dev check clients  ## set up, then run every test that needs no GPU
	@$(BIN)/python -m pytest -m "not gpu"

check: install-dev  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@PYTHONPATH=.:src $(BIN)/lint-imports

format: install-dev  ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clients: install-dev  ## the real clients that the tests ask with, and schemathesis, outside the repository
	@$(BIN)/python -m tests.clients.installing

chart: install-dev  ## lint and validate the Helm chart with real helm
	@$(BIN)/python -m helm.check_chart

dashboard: install-dev  ## write the Grafana dashboard anew from its code
	@$(BIN)/python -m helm.dashboards.build

load: install-dev  ## 60 s of load against a running `byline up`
	@$(BIN)/python -m loadtests.run --seconds $(SECONDS_OF_LOAD)

fidelity: install  ## how true attributions are, by retraining: DATASET=healthcare PROFILE=quick (about an hour; goes on where it was)
	@$(PIP) -r requirements/fidelity.txt || echo "without sentence embeddings: that baseline is left out"
	@$(PIP) -r requirements/bergson.txt || echo "without Bergson: its TrackStar is left out"
	@$(BIN)/byline fidelity $(DATASET) $(if $(PROFILE),--profile $(PROFILE))

attacks: install  ## what cheating earns: DATASET=healthcare (made for 90 minutes; QUICK=1: 25; goes on where it was)
	@$(BIN)/byline attacks $(DATASET) $(if $(QUICK),--quick)

report: install-dev  ## who is paid for questions about whose rows, on a running `byline up`
	@$(BIN)/python -m loadtests.asked_about

peers: install-dev  ## the gateways to compare with, and the load tool, outside the repository
	@$(BIN)/python -m loadtests.gateway_bench.installing

bench-gateway: install-dev  ## the gateway's speed beside its peers' (QUICK=1: a minute)
	@command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends wrk >/dev/null; }
	@$(BIN)/python -m loadtests.bench_gateway $(if $(QUICK),--quick)

bench-ledger: install-dev  ## durable posts a second of one ledger, beside naive clients
	@$(BIN)/python -m loadtests.bench_ledger

bench-rebuild: install-dev  ## how fast a million entries are folded and rebuilt
	@$(BIN)/python -m loadtests.bench_rebuild

bench-bytes: install-dev  ## bytes an entry, in memory, on disk and in SQL
	@$(BIN)/python -m loadtests.bench_bytes

bench-proof: install-dev  ## from a post to its proof at 1,000 posts a second; a statement of 100,000 lines verified
	@$(BIN)/python -m loadtests.bench_proof

bench-search: install-dev  ## search among a million example vectors: time and recall
	@$(BIN)/python -m loadtests.bench_search

bench-contributors: install-dev  ## the index of contributors: time and size by contributors, numbers and bits
	@$(BIN)/python -m loadtests.bench_contributors

bench-attribution: install-dev  ## from completion to settled shares, and attributions a second (needs artifacts: `make up` once)
	@$(BIN)/python -m loadtests.bench_attribution

faults: install-dev  ## money under faults: SEED=1 MINUTES=2; the same seed replays
	@$(BIN)/python -m loadtests.faults --seed $(SEED) --minutes $(MINUTES)

faults-mutants: install-dev  ## broken ledgers, each of which the fault run must catch
	@$(BIN)/python -m loadtests.faults.mutants

pins:  ## resolve requirements/*.txt anew, in a throw-away environment
	@folder=$$(mktemp -d); $(PYTHON) -m venv $$folder; $$folder/bin/python requirements/pin.py; rm -rf $$folder

clean:  ## delete artifacts, ledger, keys and logs of the default home (asks first)
	@read -r -p "Delete .byline with its ledger? [y/N] " answer; [ "$$answer" = y ] && rm -rf .byline
