# Entry points only: what a target does is in the program it calls. `make` lists them.

# Debian's own if it can make environments: compiled with a profile of itself, it imports all this a fifth faster than
# what version managers compile.
PYTHON ?= $(if $(wildcard /usr/lib/python3.11/ensurepip),/usr/bin/)python3.11
# The environment in the cache, linked here by the target `environment`.
RUN := .venv/bin/python
# What Python has compiled, it keeps: the tests and a demo's cluster start hundreds of processes that import the same.
unexport PYTHONDONTWRITEBYTECODE
# Kinds of tests, by folder. Whatever is not one of the slower kinds is a unit test.
CHART_TESTS := tests/chart
SERVE_TESTS := tests/serve
MODEL_TESTS := tests/demo
E2E_TESTS := tests/e2e
UNIT_TESTS := $(filter-out $(CHART_TESTS) $(SERVE_TESTS) $(MODEL_TESTS) $(E2E_TESTS) tests/__pycache__,\
    $(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))
# Side by side; tests/conftest.py says what stays together. In the order they are given, so that what takes longest
# begins first.
SIDE_BY_SIDE := --numprocesses auto --dist loadfile --no-loadscope-reorder
# What a lint looks at; side by side too.
LINTS := lint-style lint-types lint-imports lint-yaml lint-chart
# Arguments for pytest, for example: make test-unit ARGS="-k gateway -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-canary key images plan doctor redis-server chromium bench-batch bench-gateway bench-rag bench-routing test test-unit test-chart test-serve test-model e2e lint $(LINTS) \
    cluster cluster-down packages format generate golden verify release lock environment tools clean

##@ Use

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	    /^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: environment ## Serve a preset on this machine and ask its documents (ASK="…" EXIT=1 PORT=8000 FILE=values/rag.yaml)
	@$(RUN) -m tools.demo $(if $(ASK),--ask "$$ASK") $(if $(EXIT),--exit) $(if $(PORT),--port $(PORT)) \
	    $(if $(FILE),--file "$$FILE")

demo-canary: environment ## A minute in which the gateway takes a bad version out of service; no models needed
	@$(RUN) -m tools.demo_canary $(ARGS)

key: environment ## Make an API key (ID=team-a; ROTATE=1 for one beside those it has, EXPIRES=2027-01-31)
	@$(RUN) -m tools.key "$(ID)" $(if $(ROTATE),--rotate) $(if $(EXPIRES),--expires "$(EXPIRES)")

images: environment ## Build the images with docker, podman or buildah (NAMES="ray-serve …" REGISTRY= BASE=; LOCAL=1: see images/)
	@$(RUN) -m tools.images $(NAMES) $(if $(LOCAL),--local) $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(BASE),--base "$(BASE)")

plan: environment ## What a values file costs an hour, what fits, how long its models take to start (FILE=values/rag.yaml ENVIRONMENT=…)
	@$(RUN) -m tools.plan "$(or $(FILE),values/rag.yaml)" "$(or $(ENVIRONMENT),values/environments/eks-prod.yaml)" \
	    $(if $(WEIGHTS),--weights $(WEIGHTS))

doctor: environment ## Check the cluster of KUBECONFIG before an install: one line each, ok or what to do (FILE= ENVIRONMENT= NAMESPACE=)
	@$(RUN) -m tools.doctor $(if $(FILE),"$(FILE)") $(if $(ENVIRONMENT),"$(ENVIRONMENT)") \
	    $(if $(NAMESPACE),--namespace "$(NAMESPACE)")

##@ Test

test: lint redis-server chromium ## Everything: lint, then serve, model, chart and unit tests (ARGS="…" for pytest)
	@$(RUN) -m pytest $(SIDE_BY_SIDE) $(SERVE_TESTS) $(MODEL_TESTS) $(CHART_TESTS) $(UNIT_TESTS) $(ARGS)

test-unit: environment redis-server chromium ## Decisions, schemas, errors; milliseconds each
	@$(RUN) -m pytest $(SIDE_BY_SIDE) $(UNIT_TESTS) $(ARGS)

test-chart: environment ## Renders against goldens, schemas and a real API server
	@$(RUN) -m pytest $(SIDE_BY_SIDE) $(CHART_TESTS) $(ARGS)

test-serve: environment ## The rendered config on real Ray and HAProxy, with a fake engine
	@$(RUN) -m pytest $(SERVE_TESTS) $(ARGS)

test-model: environment ## The demo with real models on CPU
	@$(RUN) -m pytest $(MODEL_TESTS) $(ARGS)

e2e: environment ## The chart, the images and real models on a cluster: that of KUBECONFIG, of kind, or `make cluster`
	@$(RUN) -m pytest $(E2E_TESTS) $(ARGS)

lint: environment ## Check Python, YAML and the chart
	@$(MAKE) --no-print-directory --jobs --keep-going --output-sync $(LINTS)

lint-style:
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

# What it knows of files that have not changed lies in the cache, so that a fresh clone is checked in seconds.
lint-types:
	@MYPY_CACHE_DIR="$$($(RUN) -m tools.cache)/mypy" $(RUN) -m mypy

lint-imports:
	@.venv/bin/lint-imports --no-logo

lint-yaml:
	@$(RUN) -m yamllint --strict .

lint-chart:
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

bench-batch: environment ## Batches beside clients: throughput of both, and what a batch costs the others (ARGS=--quick)
	@$(RUN) -m bench.batch $(ARGS)

bench-gateway: environment ## The gateway beside vllm-router, HAProxy, LiteLLM and stock Ray Serve (ARGS=--quick)
	@$(RUN) -m bench.gateway $(ARGS)

bench-rag: environment ## Retrieval through the RAG app on a collection in Cranfield's format (DATA=folder)
	@$(RUN) -m bench.rag $(if $(DATA),"$(DATA)") $(ARGS)

bench-routing: environment ## The choice of a replica on a trace in Mooncake's format (TRACE=file.jsonl)
	@$(RUN) -m bench.routing $(if $(TRACE),"$(TRACE)") $(ARGS)

##@ Write

format: environment ## Format and mend what ruff can
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

generate: environment ## Write the chart's schema and docs/values.md
	@$(RUN) -m tools.chart.schema
	@$(RUN) -m tools.chart.reference

golden: environment ## Render the presets into tests/chart/golden
	@$(RUN) -m tests.chart.golden

verify: environment ## Fail if anything that is generated is out of date
	@$(RUN) -m tools.chart.schema --check
	@$(RUN) -m tools.chart.reference --check
	@$(RUN) -m tests.chart.golden --check

release: environment ## Package the chart and write its release's text into dist/ (VERSION=0.1.0 SIGN_KEY=…)
	@$(RUN) -m tools.release "$(VERSION)" $(if $(SIGN_KEY),--sign-key "$(SIGN_KEY)")

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

chromium:
	@command -v chromium >/dev/null || { \
	    echo "chromium: not found, the tests of the playground drive it; installing Debian's"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq --yes --no-install-recommends chromium >/dev/null; } || \
	    { echo "make: install chromium" >&2; exit 1; }

tools: environment ## Build the Go tools, once for each version, into the cache
	@$(RUN) -m tools.gotools

clean: ## Remove what make wrote into the clone; the cache stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
