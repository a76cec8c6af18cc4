# Guardhouse: what one does with this tree. Every target first sets the machine up (deploy/setup.sh), once.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-check test guest check fuzz bench bench-keylime lock clean
PYTHON := .venv/bin/python
SHELL := /bin/bash
# Python keeps what it compiled, also where the caller's environment says no: else each of the hundreds of processes that
# the tests and the demo start compiles all of Guardhouse anew, and each run of the tests all tests.
export PYTHONDONTWRITEBYTECODE :=

help: ## List the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
setup: ## Install what is missing: Debian packages, .venv, browser assets
	@deploy/setup.sh
demo: setup ## Run the portal, three lab hosts and a shielded VM here (APPROVED=1: host and baseline approved already; MODE=hostkey or kerberos)
	@$(PYTHON) deploy/demo.py $(if $(APPROVED),--approved) $(if $(MODE),--mode $(MODE))
demo-check: setup ## Walk through the demo without a person; one line per step
	@$(PYTHON) deploy/demo.py --check
test: setup ## Run every test on SQLite, then services and APIs on PostgreSQL and Redis
	$(PYTHON) -m pytest -n 2 --ignore tests/e2e
	$(PYTHON) -m pytest -n 2 tests/e2e
	GUARDHOUSE_TEST_SERVICES=1 $(PYTHON) -m pytest -n 2 --ignore-glob='tests/*/core' tests/attestation tests/kps tests/ledger tests/fabric tests/e2e/test_crash.py
guest: setup ## Build a Debian template, make a shielded VM of it and ask that over SSH what it got, twice (as root; some five minutes)
	$(PYTHON) -m pytest -m guest -s tests/e2e/test_guest.py
check: export GUARDHOUSE_SECRET_KEY := $(shell head -c 48 /dev/urandom | base64 -w0)
check: export GUARDHOUSE_STATE_DIR := $(CURDIR)/.setup
check: setup ## Lint, types, import contracts, templates, settings, migrations, API schema, spelling
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy deploy $(wildcard bench/*.py)
	.venv/bin/lint-imports --no-logo
	.venv/bin/djlint --quiet --check templates
	.venv/bin/djlint --quiet --lint templates
	$(PYTHON) manage.py check --deploy --fail-level WARNING
	$(PYTHON) manage.py makemigrations --check --dry-run
	$(PYTHON) manage.py spectacular --validate --fail-on-warn --file /dev/null
	.venv/bin/typos
fuzz: setup ## Feed every reader damaged captures, led by coverage, for ten minutes (MINUTES=1: shorter)
	@$(PYTHON) -m pip install -qq --require-hashes -r tests/fuzz/atheris.txt
	@$(PYTHON) -m tests.fuzz.campaign --minutes $(or $(MINUTES),10)
bench: setup ## Measure what an attestation and a release cost (ONLY="cores verifier ima wire load audit": some of it)
	@$(PYTHON) bench/run.py $(ONLY)
bench-keylime: setup ## Install Keylime beside us (needs tpm2-tools and libefivar1) and measure both verifiers
	@bench/keylime.sh
	@$(PYTHON) bench/run.py verifier
lock: setup ## Pin requirements/*.txt anew from pyproject.toml
	@deploy/lock.sh
clean: ## Remove everything that make made
	rm -rf .venv .venv-keylime .setup node_modules static/vendor staticfiles var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
