# Everything a developer and CI run. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One profile for clippy's dependencies and tests, one feature set: what is built once stays built.
CARGO ?= cargo
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
BENCH_ARGS ?=
COMPARE_ARGS ?= --runs 3
FAULTS ?=
LOAD_ARGS ?= --flv 200 --llhls 100 --publishers 1 --secs 30

.PHONY: help
help: ## this list
	@echo "Tidewater. Start with: make demo"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## build and run a whole cluster with the test card on live/demo
	@scripts/setup.sh demo
	@$(MAKE) web-if-npm
	$(CARGO) build --locked -p node
	@exec "$${CARGO_TARGET_DIR:-target}/debug/tidewater" dev --demo $(ARGS)

.PHONY: setup
setup: ## install what the tests use (Debian packages, cargo-nextest, npm packages)
	@scripts/setup.sh

.PHONY: web
web: ## build the pages that the binary carries
	cd web && npm run --silent build

.PHONY: web-if-npm
web-if-npm:
	@if command -v npm >/dev/null; then $(MAKE) web; fi

.PHONY: check
check: web ## formatting, lints, types, web tests, Prometheus files
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd web && npm run --silent check
	@scripts/check-deploy.sh
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --all-features check; else echo "check: cargo-deny is not installed, licences and advisories not checked"; fi

.PHONY: test
test: setup check ## every check and every test
	$(CARGO) nextest run --locked --workspace --profile ci
	$(CARGO) test --locked --workspace --doc
	@$(MAKE) autobahn

.PHONY: autobahn
autobahn: setup ## Autobahn's cases against the WebSocket code (AUTOBAHN_CASES="1.* 7.*" for some)
	$(CARGO) nextest run --locked -p edge --run-ignored only --no-capture -E 'test(autobahn)'

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZ_SECONDS (60) each
	@scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: bench
bench: ## make every named measurement, optimised, and write bench/RESULTS.md (20 minutes)
	@scripts/compare.sh
	$(CARGO) build --locked --release -p node -p bench
	@"$${CARGO_TARGET_DIR:-target}/release/bench" measure \
	  --server "$${CARGO_TARGET_DIR:-target}/release/tidewater" --out bench/RESULTS.md $(BENCH_ARGS)

.PHONY: compare
compare: ## the same load for Tidewater, nginx and others, alternating; prints the ratios
	@scripts/compare.sh
	$(CARGO) build --locked --release -p node -p bench
	@"$${CARGO_TARGET_DIR:-target}/release/bench" measure --peers \
	  --server "$${CARGO_TARGET_DIR:-target}/release/tidewater" $(COMPARE_ARGS)

.PHONY: bench-micro
bench-micro: ## time the pure functions
	$(CARGO) bench --locked -p bench --bench speed

.PHONY: bench-instructions
bench-instructions: ## count the instructions of the pure functions against the baseline (valgrind)
	$(CARGO) bench --locked -p bench --bench instructions -- check

.PHONY: bless-instructions
bless-instructions: ## take today's counts as the baseline
	$(CARGO) bench --locked -p bench --bench instructions -- bless

.PHONY: load
load: ## load a fresh cluster, optimised: 200 FLV and 100 LL-HLS viewers (LOAD_ARGS to change)
	@scripts/load.sh $(LOAD_ARGS)

.PHONY: audit
audit: ## kill nodes AUDIT_KILLS times (100) in the middle of gifts and read the ledger (minutes)
	$(CARGO) build --locked -p node
	$(CARGO) nextest run --locked -p tests --run-ignored only --no-capture -E 'test(gifts_survive_a_hundred_kills)'

.PHONY: soak
soak: ## load a fresh cluster for SOAK_SECONDS (600) and watch its memory
	@SOAK=1 EDGES=2 scripts/load.sh --flv 50 --llhls 25 --hls 25 --publishers 2 --secs $(SOAK_SECONDS)

.PHONY: faults
faults: ## break a cluster in network namespaces (root) and print what viewers saw; half an hour
	@scripts/faults.sh $(FAULTS)

.PHONY: clean-web
clean-web:
	rm -rf web/dist web/node_modules
