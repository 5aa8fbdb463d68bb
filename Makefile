# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists what there is. Only Go is needed for run and build; test
# installs or names the few Debian packages it can use (.ci/deps).

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

GO       ?= go
DATA     ?= moments-data
FUZZTIME ?= 2s
DURATION ?= 20s
GRAPH    ?=
SEED     ?= 1

# The race detector lets every process sleep a second before it ends, and the tests
# start hundreds.
export GORACE ?= atexit_sleep_ms=50

.PHONY: help run test test-long lint generate generate-check walls vet unit fuzz nested verify-jaeger bench-rpc bench-observe bench-moments bench-overload bench-overload-real drill-midnight build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## build Moments and bring it up on http://127.0.0.1:8080 (data in DATA=moments-data)
	@echo "building bin/moments (the first time takes a few minutes, then seconds) ..."
	@$(GO) build -o bin/moments ./app/cmd/moments
	@echo "starting; stop with Ctrl-C; data is kept in $(DATA)"
	@exec bin/moments up --data $(DATA)

build: ## build every package, and bin/moments
	@$(GO) build ./...
	@$(GO) build -o bin/moments ./app/cmd/moments

test: ## all checks of the project: generated code, lint, race tests, 2 s of each fuzz target
	@.ci/deps
	@$(MAKE) generate-check lint walls unit fuzz nested && echo "make test: all passed in $$SECONDS s"

test-long: ## as test, with 20 s of each fuzz target
	@$(MAKE) test FUZZTIME=20s

generate: ## write the generated code beside its contracts again
	@$(GO) generate ./...

generate-check: # generated code says what its contract says
	@.ci/step "generated code is fresh" .ci/generated

vet: # go vet over the module; lint has it too
	@.ci/step "go vet" $(GO) vet ./...

lint: ## golangci-lint with the walls between packages (.golangci.yml)
	@.ci/step "lint" .ci/golangci-lint run ./...

walls: # the walls of .golangci.yml catch what they say they catch
	@.ci/step "walls" .ci/walls

unit: # the tests, with the race detector where there is a C compiler
	@.ci/step "tests" .ci/unit

fuzz: # FUZZTIME of every fuzz target there is
	@.ci/step "fuzz, $(FUZZTIME) a target" .ci/fuzz $(FUZZTIME)

nested: # the benches are modules of their own: they must build and pass too
	@.ci/step "nested modules" .ci/nested

verify-jaeger: ## traces and call graph beside a real Jaeger (built once, some minutes): the same calls on each edge; REQUESTS=600
	@jaeger=$$(.ci/jaeger) && $(GO) run ./examples/callgraph/jaeger -jaeger "$$jaeger" $(if $(REQUESTS),-requests $(REQUESTS))

bench-rpc: ## server and client CPU, calls/s, allocations and bytes per call, beside bare kitex and grpc-go
	@mkdir -p build
	@$(GO) run -C framework/bench . -json ../../build/bench-rpc.jsonl

bench-observe: ## what recording everything costs, beside kitex and grpc-go with OpenTelemetry, and how many items there are (hello takes ports 7000 and 7001); ROUNDS=15
	@mkdir -p build
	@$(GO) run -C framework/bench . -only observe,items $(if $(ROUNDS),-rounds $(ROUNDS)) -json ../../build/bench-observe.jsonl

bench-moments: ## Moments beside a Redis fan-out, on the friendships of GRAPH=FILE or generated ones, DURATION=20s each
	@.ci/deps redis-server
	@mkdir -p build
	@$(GO) run -C app/bench . $(if $(GRAPH),-graph "$(abspath $(GRAPH))") -duration $(DURATION) -json ../../build/bench-moments.jsonl

bench-overload: ## overload control and its peers in virtual time, by SEED; FACTOR=6 X=3 for one load, ENTRIES LEAVES SLOTS ONEWAY=5ms REJECTCOST=1ms DIST=heavy
	@mkdir -p build
	@$(GO) run -C qos/admission/bench . -seed $(SEED) -json ../../../build/bench-overload.jsonl \
		$(foreach v,FACTOR X ENTRIES LEAVES SLOTS ONEWAY REJECTCOST DIST POLICIES ONLY,$(if $($v),-$(shell echo $v | tr A-Z a-z) $($v)))

bench-overload-real: ## the same in real processes over loopback, pinned apart; what admitting, refusing and serving costs; ROUNDS=3 COUNT=2.5 (seconds a cell) ONLY=overload.cpu
	@mkdir -p build
	@$(GO) run -C framework/bench/overload . -seed $(SEED) -json ../../../build/bench-overload-real.jsonl \
		$(foreach v,ROUNDS COUNT ONLY,$(if $($v),-$(shell echo $v | tr A-Z a-z) $($v)))

drill-midnight: DURATION = 60s
drill-midnight: ## Moments, each service a process, under five times its usual load for DURATION=60s; QUICK=1 for a short look, MIX=20/10/70 for another mix of timelines/posts/albums
	@mkdir -p build
	@$(GO) run -C app/bench . drill -spike $(DURATION) $(if $(QUICK),-quick) $(if $(MIX),-mix $(MIX)) -json ../../build/drill-midnight.jsonl

clean: ## remove what was built (data is kept)
	@rm -rf bin build
