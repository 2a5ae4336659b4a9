# Two commands: `make demo` shows the product at work, `make test` proves it.
# A fresh machine needs Python 3.11+ with venv, make, git and a package index set up for pip.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

# Tests, demo and bench start many processes; without kept bytecode each of them compiles its libraries anew.
unexport PYTHONDONTWRITEBYTECODE

# uv installs the same locked wheels faster; pip is all that is needed.
UV  := $(shell command -v uv 2>/dev/null)
ifdef UV
INSTALL = VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet
else
# Not compiled ahead: of the thousands of FHIR modules a handful is ever imported, and Python compiles those itself.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-services test-browser pictures check check-deploy bench evidence pages scan bundle lock clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The build backend comes from its own lock: an isolated build would fetch it unlocked.
$(VENV)/.runtime: $(BIN)/python requirements.lock requirements-build.lock pyproject.toml
	$(INSTALL) --require-hashes --only-binary :all: -r requirements-build.lock -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(INSTALL) --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.runtime ## the main job, live; ARGS=--once runs it to its end and prints the summary
	$(BIN)/neutroflag demo $(ARGS)

test: $(VENV)/.dev ## all tests: real sockets, files, HTTP
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

$(VENV)/.browser: $(VENV)/.dev requirements-browser.lock
	$(INSTALL) --require-hashes --only-binary :all: -r requirements-browser.lock
	@touch $@

test-browser: $(VENV)/.browser ## the console in a real Chromium: every page and form, keyboard, phone, print, axe-core (needs Node.js)
	deploy/dev/chromium.sh
	deploy/dev/oidc/oidc.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/browser $(ARGS)

test-services: $(VENV)/.dev ## real services: Apache Kafka (needs Java 17 and Maven)
	deploy/dev/kafka/kafka.sh install
	$(BIN)/python -m pytest -q tests/services $(ARGS)

pictures: $(VENV)/.browser ## today's pictures of the console, for the README
	deploy/dev/chromium.sh
	PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/browser/test_open_console.py -k pictures

check: $(VENV)/.dev ## lint, types, layers, protocols
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/neutroflag rules check

$(VENV)/.deploy: $(VENV)/.dev requirements-deploy.lock
	$(INSTALL) --require-hashes --only-binary :all: -r requirements-deploy.lock
	@touch $@

check-deploy: $(VENV)/.deploy ## Helm chart, alert rules, dashboard, balancer, Dockerfile, AsyncAPI file, by the real programs (needs Go, npm and apt)
	deploy/dev/tools.sh
	$(BIN)/python -m pytest -q tests/deploy/tools $(ARGS)

bench: $(VENV)/.dev ## what it costs, one table
	$(BIN)/python -m bench $(ARGS)

# Each line may be run by itself; docs/how-it-is-tested.md says what it shows.
evidence: $(VENV)/.dev $(VENV)/.scan/bin/cyclonedx-py ## hours: every step failing in turn, soak, mutation, fuzz, two foreign FHIR servers (Java 17, Maven, Node.js)
	EVERY_STEP=all $(BIN)/python -m pytest -q -n 0 tests/engine/test_every_step.py
	$(BIN)/python -m evidence $(ARGS)
	$(BIN)/python tests/fuzz.py --seconds 300
	$(VENV)/.scan/bin/python deploy/scan/http_api.py
	$(BIN)/python tests/mutate_rules.py --minutes 600
	deploy/dev/fhir-validate fixtures/alerts/*.json fixtures/alerts/levels/*.json
	NEUTROFLAG_ALERTS=10000 $(BIN)/python -m pytest -q -n 0 tests/emitters/foreign

$(VENV)/.scan/bin/cyclonedx-py: deploy/scan/requirements.lock
	$(PYTHON) -m venv $(VENV)/.scan
	$(VENV)/.scan/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --only-binary :all: -r deploy/scan/requirements.lock
	@touch $@

scan: $(VENV)/.scan/bin/cyclonedx-py ## SBOM (dist/), secrets in the repository, known vulnerabilities (needs the advisory service)
	$(VENV)/.scan/bin/python deploy/scan/scan.py $(ARGS)

bundle: $(VENV)/.runtime $(VENV)/.scan/bin/cyclonedx-py ## one archive for a machine without an index, with its SBOM, tried offline
	$(VENV)/.scan/bin/python deploy/scan/scan.py sbom
	$(BIN)/python deploy/bundle/build.py

pages: $(VENV)/.dev ## write the pages that come from the protocols, cases and hazards
	$(BIN)/python docs/generate.py

lock: ## renew the hash-locked requirement files (needs uv)
	uv pip compile $(LOCKFLAGS) pyproject.toml --extra postgres -o requirements.lock
	uv pip compile $(LOCKFLAGS) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	uv pip compile $(LOCKFLAGS) pyproject.toml --extra dev --extra browser -c requirements-dev.lock -o requirements-browser.lock
	uv pip compile $(LOCKFLAGS) pyproject.toml --extra dev --extra deploy -c requirements-dev.lock -o requirements-deploy.lock
	printf 'cyclonedx-bom\ndetect-secrets\npip-audit\nschemathesis\n' | uv pip compile $(LOCKFLAGS) - -o deploy/scan/requirements.lock
	echo hatchling | uv pip compile $(LOCKFLAGS) -c requirements.lock - -o requirements-build.lock

LOCKFLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

clean: ## removes the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
