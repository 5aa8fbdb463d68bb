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
ADDR     ?= 127.0.0.1:8080
FUZZTIME ?= 2s
DURATION ?= 20s
GRAPH    ?=
SEED     ?= 1
comma    := ,

# The race detector lets every process sleep a second before it ends, and the tests
# start hundreds.
export GORACE ?= atexit_sleep_ms=50

.PHONY: help run test test-long test-soak lint generate generate-check walls vet unit seeds fuzz nested verify-jaeger bench-rpc bench-observe bench-inflight bench-crowd bench-modes bench-moments bench-growth bench-causal bench-overload bench-overload-real drill-midnight drill-hotpost drill-regions drill-rehome drill-faults drill-restart build changes api clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## build Moments and bring it up (on ADDR=127.0.0.1:8080, data in DATA=moments-data)
	@echo "building bin/moments (the first time takes a few minutes, then seconds) ..."
	@$(GO) build -o bin/moments ./app/cmd/moments
	@echo "starting; stop with Ctrl-C; data is kept in $(DATA)"
	@exec bin/moments up --addr $(ADDR) --data $(DATA)

build: ## build every package, and bin/moments
	@$(GO) build ./...
	@$(GO) build -o bin/moments ./app/cmd/moments

test: ## all checks of the project: generated code, lint, race tests, 2 s of each fuzz target
	@.ci/deps
	@.ci/s3 >/dev/null || echo "no S3 server could be built; its test is left out"
	@$(MAKE) changes generate-check lint walls unit seeds fuzz nested && echo "make test: all passed in $$SECONDS s"

test-long: ## as test, with 20 s of each fuzz target and 100,000 seeds of the simulation
	@$(MAKE) test FUZZTIME=20s SEEDS=100000
	@.ci/step "go-zero and Kratos make calls" $(GO) test -C framework/bench/governed -tags governed$(comma)no_k8s ./...

test-soak: ## servers, clients and Moments in use for DURATION=30m with restarts, refusals and streams: do goroutines, files and memory stay flat
	@mkdir -p build
	@$(GO) run -C framework/bench ./soak -duration $(if $(filter command line environment,$(origin DURATION)),$(DURATION),30m) -json ../../build/test-soak.jsonl

generate: ## write the generated code beside its contracts again
	@$(GO) generate ./...

generate-check: # generated code says what its contract says
	@.ci/step "generated code is fresh" .ci/generated

changes: # what other modules can import, and could not before, or can no more; fails for nothing
	@.ci/step "changes of the exported API" .ci/changes $(BASE)

vet: # go vet over the module; lint has it too
	@.ci/step "go vet" $(GO) vet ./...

lint: ## golangci-lint with the walls between packages (.golangci.yml)
	@.ci/step "lint" .ci/golangci-lint run ./...

walls: # the walls of .golangci.yml catch what they say they catch
	@.ci/step "walls" .ci/walls

unit: # the tests, with the race detector where there is a C compiler
	@.ci/step "tests" .ci/unit

# Each run is one thread, so the race detector would find nothing and take ten times as
# long; unit runs a few with it.
seeds: # the simulation of regions keeps every promise in so many seeds
	@.ci/step "$(or $(SEEDS),2000) seeds" env SIM_SEEDS=$(or $(SEEDS),2000) $(GO) test -vet=off -timeout=60m -run '^TestSeeds$$' ./app/comment/causal/sim

fuzz: # FUZZTIME of every fuzz target there is
	@.ci/step "fuzz, $(FUZZTIME) a target" .ci/fuzz $(FUZZTIME)

nested: # the benches are modules of their own: they must build and pass too
	@.ci/step "nested modules" .ci/nested

verify-jaeger: ## traces and call graph beside a real Jaeger (built once, some minutes): the same calls on each edge; REQUESTS=600
	@jaeger=$$(.ci/jaeger) && $(GO) run ./examples/callgraph/jaeger -jaeger "$$jaeger" $(if $(REQUESTS),-requests $(REQUESTS))

bench-rpc: ## server and client CPU, calls/s, allocations and bytes per call, beside bare kitex and grpc-go, and with everything on beside grpc-go, go-zero and Kratos with theirs; ONLY=full ROUNDS=15
	@mkdir -p build
	@$(GO) run -C framework/bench . $(if $(ONLY),-only $(ONLY)) $(if $(ROUNDS),-rounds $(ROUNDS)) -json ../../build/bench-rpc.jsonl

bench-observe: ## what recording everything costs, beside kitex and grpc-go with OpenTelemetry, and how many items there are (hello takes ports 7000 and 7001); ROUNDS=15
	@mkdir -p build
	@$(GO) run -C framework/bench . -only observe,items $(if $(ROUNDS),-rounds $(ROUNDS)) -json ../../build/bench-observe.jsonl

bench-inflight: ## memory of 300,000 calls blocked at once in one server, their client and a middle tier; LONG=1 for 1,000,000 too, PEERS=1 for bare kitex at 100,000
	@mkdir -p build
	@$(GO) run -C framework/bench . -only inflight -calls $(if $(PEERS),100000$(comma))300000$(if $(LONG),$(comma)1000000) -json ../../build/bench-inflight.jsonl

bench-crowd: ## servers full of idle connections, as many as a process may have files or CONNECTIONS=100000: memory of one, who comes then, calls meanwhile
	@mkdir -p build
	@$(GO) run -C framework/bench ./crowd $(if $(CONNECTIONS),-connections $(CONNECTIONS)) -json ../../build/bench-crowd.jsonl

bench-modes: ## goroutines, threads and processes that serve, each with a handler that waits, one that blocks in C, and one that computes: calls/s, p99, memory; then 20 workers killed under load
	@mkdir -p build
	@$(GO) run -C framework/bench ./modes -json ../../build/bench-modes.jsonl

bench-moments: ## Moments beside a Redis fan-out, on the friendships of GRAPH=FILE or generated ones, DURATION=20s each
	@.ci/deps redis-server
	@mkdir -p build
	@$(GO) run -C app/bench . $(if $(GRAPH),-graph "$(abspath $(GRAPH))") -duration $(DURATION) -json ../../build/bench-moments.jsonl

bench-growth: ## Moments with 1,000, 10,000 and 100,000 people: what a page, a delivery and a person cost (20 minutes); SIZES=1000,10000
	@mkdir -p build
	@$(GO) run -C app/bench . growth $(if $(SIZES),-sizes $(SIZES)) -json ../../build/bench-growth.jsonl

bench-causal: ## comments between regions: planted faults that the checker notices, SEEDS=2000 of the simulation, what a comment and its outbox cost
	@mkdir -p build
	@$(GO) run -C app/bench . causal $(if $(SEEDS),-seeds $(SEEDS)) -json ../../build/bench-causal.jsonl

bench-overload: ## overload control and its peers in virtual time, by SEED; FACTOR=6 X=3 for one load, ENTRIES LEAVES SLOTS ONEWAY=5ms REJECTCOST=1ms DIST=heavy
	@mkdir -p build
	@$(GO) run -C qos/admission/bench . -seed $(SEED) -json ../../../build/bench-overload.jsonl \
		$(foreach v,FACTOR X ENTRIES LEAVES SLOTS ONEWAY REJECTCOST DIST POLICIES ONLY,$(if $($v),-$(shell echo $v | tr A-Z a-z) $($v)))

bench-overload-real: ## the same in real processes over loopback, pinned apart; what admitting, refusing and serving costs; ROUNDS=3 COUNT=2.5 (seconds a cell) ONLY=overload.cpu QUOTA=1 (cores, as containers have it)
	@mkdir -p build
	@$(GO) run -C framework/bench/overload . -seed $(SEED) -json ../../../build/bench-overload-real.jsonl \
		$(foreach v,ROUNDS COUNT ONLY QUOTA,$(if $($v),-$(shell echo $v | tr A-Z a-z) $($v)))

drill-midnight: DURATION = 60s
drill-midnight: ## Moments, each service a process, under five times its usual load for DURATION=60s; QUICK=1 for a short look, MIX=20/10/70 for another mix of timelines/posts/albums
	@mkdir -p build
	@$(GO) run -C app/bench . drill -spike $(DURATION) $(if $(QUICK),-quick) $(if $(MIX),-mix $(MIX)) -json ../../build/drill-midnight.jsonl

drill-hotpost: ## one post gets 20,000 likes and 5,000 comments in a minute, each service a process, while others read; QUICK=1 for a short look
	@mkdir -p build
	@$(GO) run -C app/bench . hotpost $(if $(QUICK),-quick) -json ../../build/drill-hotpost.jsonl

drill-regions: DURATION = 10m
drill-regions: ## three regions, each service a process, whose lines are cut and which are killed for DURATION=10m while people talk, and a fourth that joins and leaves; what they saw is judged; QUICK=1 for 30 s, SEED=1
	@mkdir -p build
	@$(GO) run -C app/bench . regions -join -duration $(DURATION) $(if $(QUICK),-quick) -seed $(SEED) -history ../../build/drill-regions-history.jsonl -json ../../build/drill-regions.jsonl

drill-rehome: ## people moved between three regions, each service a process, which are killed one at each step of it; ONLY="account of ca", QUICK=1 for five moves, SEED=1
	@mkdir -p build
	@$(GO) run -C app/bench . rehome $(if $(ONLY),-only "$(ONLY)") $(if $(QUICK),-quick) -seed $(SEED) -json ../../build/drill-rehome.jsonl

drill-faults: LASTS = 10s
drill-faults: AWAY = 20s
drill-faults: ## one of four instances killed, frozen, slow, resetting, speaking garbage, LASTS=10s each, then etcd killed for AWAY=20s (5m for the long form), and what callers see; ONLY=etcd_away
	@mkdir -p build
	@$(GO) run -C framework/bench ./faults -lasts $(LASTS) -away $(AWAY) $(if $(ONLY),-only $(ONLY)) -json ../../build/drill-faults.jsonl

drill-restart: ## a service restarted 100 times on its sockets and 100 times instance after instance, with another binary each time, under load; COUNT=100, QUICK=1 for 5 and 5
	@mkdir -p build
	@$(GO) run -C framework/bench ./restart -count $(if $(QUICK),5,$(or $(COUNT),100)) -json ../../build/drill-restart.jsonl

api: ## what of the exported API differs from the last tag, or from BASE=commit; fails if callers break and CHANGELOG.md does not say so
	@.ci/api $(BASE)

clean: ## remove what was built (data is kept)
	@rm -rf bin build
