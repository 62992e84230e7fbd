# Entry points only: what a target does is in the program it calls. `make` lists them.

PYTHON ?= python3.11
# The environment in the cache, linked here by the target `environment`.
RUN := .venv/bin/python
# Kinds of tests, by folder. Whatever is not one of the slower kinds is a unit test.
CHART_TESTS := tests/chart
SERVE_TESTS := tests/serve
MODEL_TESTS := tests/demo
E2E_TESTS := tests/e2e
UNIT_TESTS := $(filter-out $(CHART_TESTS) $(SERVE_TESTS) $(MODEL_TESTS) $(E2E_TESTS) tests/__pycache__,\
    $(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))
# Renders share the cores, file by file, so that a file's fixtures are made once. Other tests have real servers and
# deadlines, and are worth more undisturbed.
ON_ALL_CORES := --numprocesses auto --dist loadfile
# Arguments for pytest, for example: make test-unit ARGS="-k gateway -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-canary key images redis-server bench-gateway bench-routing test test-unit test-chart test-serve test-model e2e lint cluster cluster-down packages \
    format generate golden verify lock environment tools clean

##@ Use

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	    /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: environment ## Serve a preset on this machine and ask its documents (ASK="…" EXIT=1 PORT=8000 FILE=values/rag.yaml)
	@$(RUN) -m tools.demo $(if $(ASK),--ask "$$ASK") $(if $(EXIT),--exit) $(if $(PORT),--port $(PORT)) \
	    $(if $(FILE),--file "$$FILE")

demo-canary: environment ## A minute in which the gateway takes a bad version out of service; no models needed
	@$(RUN) -m tools.demo_canary $(ARGS)

key: environment ## Make an API key (ID=team-a; ROTATE=1 for one beside those it has, EXPIRES=2027-01-31)
	@$(RUN) -m tools.key "$(ID)" $(if $(ROTATE),--rotate) $(if $(EXPIRES),--expires "$(EXPIRES)")

images: environment ## Build the images with docker, podman or buildah (NAMES="ray-serve …" REGISTRY= BASE=; LOCAL=1: see images/)
	@$(RUN) -m tools.images $(NAMES) $(if $(LOCAL),--local) $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(BASE),--base "$(BASE)")

##@ Test

test: lint redis-server ## Everything: lint, then unit, chart, serve and model tests (ARGS="…" for pytest)
	@$(RUN) -m pytest $(ON_ALL_CORES) $(CHART_TESTS) $(ARGS)
	@$(RUN) -m pytest $(UNIT_TESTS) $(SERVE_TESTS) $(MODEL_TESTS) $(ARGS)

test-unit: environment redis-server ## Decisions, schemas, errors; milliseconds each
	@$(RUN) -m pytest $(UNIT_TESTS) $(ARGS)

test-chart: environment ## Renders against goldens, schemas and a real API server
	@$(RUN) -m pytest $(ON_ALL_CORES) $(CHART_TESTS) $(ARGS)

test-serve: environment ## The rendered config on real Ray and HAProxy, with a fake engine
	@$(RUN) -m pytest $(SERVE_TESTS) $(ARGS)

test-model: environment ## The demo with real models on CPU
	@$(RUN) -m pytest $(MODEL_TESTS) $(ARGS)

e2e: environment ## The chart, the images and real models on a cluster: that of KUBECONFIG, of kind, or `make cluster`
	@$(RUN) -m pytest $(E2E_TESTS) $(ARGS)

lint: environment ## Check Python, YAML and the chart
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(RUN) -m yamllint --strict .
	@helm=$$($(RUN) -m tools.gotools helm) && ct=$$($(RUN) -m tools.gotools ct) && \
	    PATH="$$(dirname "$$helm"):$(CURDIR)/.venv/bin:$$PATH" "$$ct" lint --config ct.yaml

##@ Cluster

cluster: environment ## Start a Kubernetes with KubeRay on this machine, as root (GPUS=2 fakes GPUs on every node)
	@$(RUN) -m tools.cluster up $(if $(GPUS),--gpus $(GPUS))

cluster-down: environment ## End it; the images that its nodes have stay in the cache
	@$(RUN) -m tools.cluster down

packages: environment ## Install the Debian packages it needs, as root
	@$(RUN) -m tools.cluster packages

##@ Measure

bench-gateway: environment ## The gateway beside vllm-router, HAProxy, LiteLLM and stock Ray Serve (ARGS=--quick)
	@$(RUN) -m bench.gateway $(ARGS)

bench-routing: environment ## The choice of a replica on a trace in Mooncake's format (TRACE=file.jsonl)
	@$(RUN) -m bench.routing $(if $(TRACE),"$(TRACE)") $(ARGS)

##@ Write

format: environment ## Format and mend what ruff can
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

generate: environment ## Write the chart's schema and the values table of its README
	@$(RUN) -m tools.chart.schema
	@$(RUN) -m tools.chart.readme

golden: environment ## Render the presets into tests/chart/golden
	@$(RUN) -m tests.chart.golden

verify: environment ## Fail if anything that is generated is out of date
	@$(RUN) -m tools.chart.schema --check
	@$(RUN) -m tools.chart.readme --check
	@$(RUN) -m tests.chart.golden --check

lock: environment ## Write the lock files (UPGRADE=1 takes the newest versions that are allowed)
	@$(RUN) -m tools.lock $(if $(UPGRADE),--upgrade)

##@ Set up

environment: ## Make the Python environment, once for each lock, in the cache
	@command -v "$(PYTHON)" >/dev/null || \
	    { echo "make: $(PYTHON) not found; install Python 3.11, or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@"$(PYTHON)" -m tools.environment

redis-server:
	@PATH="$$PATH:/usr/sbin:/sbin" command -v redis-server >/dev/null || { \
	    echo "redis-server: not found, the tests start it; installing Debian's"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq --yes --no-install-recommends redis-server >/dev/null; } || \
	    { echo "make: install redis-server" >&2; exit 1; }

tools: environment ## Build the Go tools, once for each version, into the cache
	@$(RUN) -m tools.gotools

clean: ## Remove what make wrote into the clone; the cache stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
