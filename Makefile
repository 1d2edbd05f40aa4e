# `make help` says what there is to do.
.DEFAULT_GOAL := help
.PHONY: help deps build test docs lint deny simulate soak bench fuzz clean

# How many seeds `make simulate` runs on how many threads, and how long `make fuzz` fuzzes each target, in seconds,
# and `make soak` lasts, in minutes.
SEEDS ?= 1000
THREADS ?= 1
SECONDS_EACH ?= 60
MINUTES ?= 10
# Most tests wait for sockets and timers, not for a processor.
export RUST_TEST_THREADS ?= 4

help: ## Show this list
	@echo "Targets, and the settings they know:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install what the tests need: RabbitMQ, HAProxy, PHP, amqp-tools, and clients into .deps/ (root or sudo)
	@scripts/install-deps

build: ## Build the release binary, target/release/warren
	cargo build --release --package warren

test: deps ## Run all tests, with RabbitMQ and the clients in Python, Node, PHP, C and Rust
	cargo test --workspace --no-fail-fast

docs: deps ## Write docs/configuration.md, docs/clients.md and docs/conformance.md anew
	WARREN_TEST_WRITE=1 cargo test --package warren --bin warren file::
	WARREN_TEST_WRITE=1 cargo test --package warren-testkit --test proxy clients::
	WARREN_TEST_WRITE=1 cargo test --package warren-testkit --test conformance clients_see

lint: ## Check formatting, and clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Check licences, sources, bans and advisories of all dependencies (needs cargo-deny)
	@scripts/check-dependencies

simulate: ## Run the simulation: make simulate SEEDS=100000, or STEPS=2g; FAULTS=1 breaks connections; THREADS=2
	cargo run --release --package warren-sim -- $(if $(STEPS),--total $(STEPS),--seeds $(SEEDS)) \
		--threads $(THREADS) $(if $(FAULTS),--faults)

soak: ## Clients come and go at random while brokers are killed: make soak MINUTES=10; prints what is left
	WARREN_SOAK_SECONDS=$$(( $(MINUTES) * 60 )) cargo test --package warren-testkit --test soak -- --nocapture

bench: deps ## Measure Warren beside HAProxy and beside no proxy: make bench ARGS="--help"
	cargo build --release --package warren
	cargo run --release --package warren-bench -- $(ARGS)

fuzz: ## Fuzz what reads bytes from a peer: make fuzz SECONDS_EACH=600 (needs cargo-fuzz)
	@scripts/fuzz $(SECONDS_EACH)

clean: ## Remove what was built and what `make deps` put into .deps/
	cargo clean
	rm -rf .deps
