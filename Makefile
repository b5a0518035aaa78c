# The few commands of this project. Only Python 3.11+ and make are needed; `make help` lists them.
PYTHON ?= python3
PY := .venv/bin/python
STACK := $(PY) -m devtools.localstack
# uv, where it is, only makes the same installation faster.
PIP := $(if $(shell command -v uv 2>/dev/null),uv pip install --quiet --python $(PY),$(PY) -m pip install --quiet --disable-pip-version-check)
RUN := .venv/.installed-run
DEV := .venv/.installed-dev
# A stack or a test run is dozens of processes: each would compile the whole project for itself.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := .venv/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-header --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help demo up down infra run-api run-processor dlq status logs manage test check check-deploy audit-deps format lock dashboards picture bench-backbone bench-path bench-whole-path bench-orders bench-load bench-hot-paths bench-feeds bench-relay bench-notifications bench-ops image-size chaos upgrade-test configuration clean-state

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(RUN) ## start everything, send load, check every effect, stop again
	@$(PY) -m devtools.demo $(ARGS)

up: $(RUN) ## start everything in the background (PORT=8080)
	@$(STACK) up

down: $(RUN) ## stop what `make up` started
	@$(STACK) down

infra: $(RUN) ## start the servers alone in the background, with tables and topics
	@$(STACK) --plan devtools.localstack.processes:SERVERS up

run-api: $(RUN) ## run the web process here, on the servers of `make infra`
	@$(STACK) run web

run-processor: $(RUN) ## run workers, beat and bridge here, on the servers of `make infra`
	@$(STACK) run

dlq: $(RUN) ## list the dead letters of the running stack (ARGS="--topic feed-events")
	@$(STACK) manage -- dead_letters list $(ARGS)

status: $(RUN) ## what runs, and whether it is well
	@$(STACK) status

logs: $(RUN) ## show the logs (ARGS="web -f": follow one)
	@$(STACK) logs $(ARGS)

manage: $(RUN) ## run manage.py on the running stack (ARGS="event <id>")
	@$(STACK) manage -- $(ARGS)

test: $(DEV) ## run the tests on servers of their own (ARGS="-k name"; HOT_PATHS=off: all through Django)
	@$(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder -p devtools.testing.own_servers $(ARGS)

check: $(DEV) ## lint, format, types, import contracts, Django's checks
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) manage.py check
	$(PY) -W "ignore:Got an error checking a consistent migration history" manage.py makemigrations --check --dry-run

check-deploy: $(DEV) ## check chart and Terraform files with helm, terraform and checkov (the first run builds them, with Go)
	@deploy/install-tools >/dev/null
	@$(PY) -m pytest -q -p no:cacheprovider --fail-on-skip deploy/tests $(ARGS)
	@deploy/check-policies
	@$(PY) -m devtools.image

format: $(DEV) ## format the code and mend what can be mended
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lock: $(DEV) ## compile the pinned requirements from the .in files
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-local.in -o requirements-local.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt

bench-backbone: $(RUN) ## measure outbox, drain, bridge and effects at full speed
	@$(PY) -m devtools.benchmarks.backbone $(ARGS)

bench-path: $(RUN) ## measure the way of an event from request to effect
	@$(PY) -m devtools.benchmarks.path $(ARGS)

bench-whole-path: $(RUN) ## measure what an order costs from request to figures, at several rates, and SIGKILLs
	@$(PY) -m devtools.benchmarks.whole_path $(ARGS)

bench-hot-paths: $(RUN) ## measure what is answered before Django (needs wrk)
	@$(PY) -m devtools.benchmarks.hot_paths $(ARGS)

bench-feeds: $(RUN) ## measure posts, feeds and fan-out beside the barest program that does the same (needs wrk)
	@$(PY) -m devtools.benchmarks.feeds $(ARGS)

bench-orders: $(RUN) ## measure POST and GET /orders beside the barest program that does the same
	@$(PY) -m devtools.benchmarks.orders $(ARGS)

bench-relay: $(RUN) ## measure the relay from RabbitMQ to Kafka (needs rabbitmq-server)
	@$(PY) -m devtools.benchmarks.relay $(ARGS)

bench-notifications: $(RUN) ## measure notifications from POST to the provider
	@$(PY) -m devtools.benchmarks.notifications $(ARGS)

bench-ops: $(RUN) ## measure the page of operators beside a million of everything, and rest (ARGS="--share 0.01")
	@$(PY) -m devtools.benchmarks.operations $(ARGS)

bench-load: $(RUN) ## measure what the load generator itself can send
	@$(PY) -m devtools.benchmarks.load_generator $(ARGS)

upgrade-test: $(RUN) ## upgrade from the commit in UPGRADE_FROM under load, and back, and account for every order
	@$(PY) -m devtools.upgrade $(ARGS)

chaos: $(RUN) ## break everything under load and judge what became of it (QUICK=1, MUTANTS=1, ARGS="name …")
	@$(PY) -m devtools.chaos $(if $(QUICK),--quick) $(if $(MUTANTS),--mutants) $(ARGS)

picture: $(DEV) ## make README's picture of the page of operators, or all pictures (ARGS="--all DIR"; needs Chromium)
	@$(PY) -m devtools.picture $(ARGS)

image-size: $(RUN) ## say how large what goes into the image is; exit 1 above 150 MB
	@$(PY) -m devtools.image

audit-deps: $(DEV) ## look for known weaknesses of the locked packages (ARGS=--warn: exit 0)
	@$(PY) -m devtools.dependency_audit $(ARGS)

dashboards: $(DEV) ## write Grafana's dashboards from devtools/dashboards
	@$(PY) -m devtools.dashboards

configuration: $(DEV) ## write docs/configuration.md from the settings
	@$(PY) -m devtools.configuration

clean-state: $(RUN) ## stop the stack and delete its data
	@$(STACK) down --wipe

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; name one with PYTHON=, e.g. make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "Making .venv …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "The virtual environment could not be made; on Debian: apt-get install python3-venv" >&2; exit 1; }

# The mark is touched last, so that a half-finished installation is taken up again.
$(RUN): requirements-local.txt | .venv/bin/python
	@echo "Installing what the project runs on …"
	@$(PIP) --require-hashes -r requirements-local.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	@echo "Installing what tests and checks need …"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@
