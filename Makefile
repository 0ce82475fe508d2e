# Two commands stand for everything: `make demo` shows what muster does, `make test` proves it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Tests and demo use the same binary, cargo uses every core by itself, and two cores are what we count on.
.NOTPARALLEL:

# Where rustup puts cargo; a shell that was open before rustup came does not know it yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Tests start servers of their own: more than a few at a time would only wait for each other.
export RUST_TEST_THREADS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores > 4 ? 4 : cores)))

# Components are embedded into muster from beside their sources, wherever else cargo may be told to build.
PLUGIN_WORKSPACES := $(patsubst %/Cargo.toml,%,$(wildcard plugins/Cargo.toml tests/fixtures/plugins/Cargo.toml))
MUSTER := $(or $(CARGO_TARGET_DIR),target)/debug/muster
RELEASE := $(abspath $(or $(CARGO_TARGET_DIR),target)/release)

.PHONY: help setup services plugins build demo test test-long bench cluster soak fuzz lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

demo: build ## a real backup: captured, drilled, damaged, refused (under three minutes after the build)
	@MUSTER="$(abspath $(MUSTER))" scripts/demo

test: lint build services ## everything: formatting, lints, and all tests against real servers, sandboxes and (as root) a real cluster
	tests/services/cluster/with cargo test --locked --workspace
	tests/services/cluster/with --cni ptp cargo test --locked --workspace --test end_to_end nobody_enforces
	cd plugins && cargo test --locked --lib --target-dir target --target "$$(rustc -vV | sed -n 's/^host: //p')"

test-long: build ## what takes minutes each: thousands of tables, a row of 200 MB, SIGKILL after every event, cgroup version 2 (builds a kernel once)
	tests/services/cluster/with cargo test --locked --workspace -- --ignored
	tests/services/cgroup2/test

# Coverage by flags of the stable compiler, without a sanitizer: what is fuzzed is safe Rust. FUZZ_SECONDS=60 for less.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
fuzz: setup ## what reads hostile bytes, ten minutes each: agent protocol, manifest, drill file, dump header
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --target "$$(rustc -vV | sed -n 's/^host: //p')"
	@mkdir -p target/fuzz; cd fuzz; for target in agent manifest drill dump; do \
	    mkdir -p ../target/fuzz/$$target; \
	    nice target/*/release/$$target -max_total_time=$(or $(FUZZ_SECONDS),600) -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
	        -artifact_prefix=../target/fuzz/$$target- ../target/fuzz/$$target corpus/$$target; \
	done

# The table alone on standard output, so that it can be kept: `make bench > table.md`.
bench: ## muster beside the plain tools: a table of ratios (many minutes; BENCH_MB=50 for less)
	@$(MAKE) --no-print-directory setup plugins >&2
	@for build in tests/services/{vault,toxiproxy}/build; do "$$build" >&2; done
	@cargo build --locked --release --workspace --bins --examples >&2 # in one go: each dependency is built once
	@mkdir -p target
	@$(RELEASE)/examples/schema_queries >target/schema-queries.sql
	@MUSTER="$(RELEASE)/muster" BENCH_SCHEMA_SQL=target/schema-queries.sql PLUGIN_COST="$(RELEASE)/examples/plugin_cost" scripts/bench
	@MANY_DRILLS="$(RELEASE)/examples/many_drills" scripts/bench-daemon
	@MUSTER="$(RELEASE)/muster" scripts/bench-vault
	@MUSTER="$(RELEASE)/muster" scripts/bench-cluster

cluster: setup ## a real Kubernetes node, as root; its kubeconfig (tests/services/cluster/down ends it)
	@tests/services/cluster/up

soak: build ## a daemon under real drills and SIGKILLs for 20 minutes (SOAK_MINUTES=5 for less)
	@MUSTER="$(abspath $(MUSTER))" scripts/soak

# With the tests, whose features are the whole workspace's: nothing is built twice, whichever comes first.
build: setup plugins ## the plugins, then muster, in target/debug
	cargo build --locked --workspace --all-targets

setup: ## find or install what is missing: compiler, bubblewrap, PostgreSQL, minisign, Rust, Go
	@scripts/setup

services: setup ## the real servers of the tests: built once from their modules, kept in ~/.cache/muster-services
	@for build in tests/services/{vault,toxiproxy}/build; do "$$build"; done

plugins: ## the WebAssembly components that muster embeds and the tests use
	@for workspace in $(PLUGIN_WORKSPACES); do \
	    echo "cargo build --locked --release --target wasm32-wasip2 (in $$workspace)"; \
	    (cd "$$workspace" && cargo build --locked --release --target wasm32-wasip2 --target-dir target); \
	done

lint: setup plugins ## formatting and clippy, here, in the plugins and in the fuzz targets
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@for workspace in $(PLUGIN_WORKSPACES); do \
	    echo "cargo fmt, cargo clippy (in $$workspace)"; \
	    (cd "$$workspace" && cargo fmt --all --check \
	        && cargo clippy --locked --release --target wasm32-wasip2 --target-dir target -- -D warnings); \
	done
	cd fuzz && cargo fmt --all --check && cargo clippy --locked -- -D warnings

clean: ## remove what was built
	cargo clean
	@for workspace in $(PLUGIN_WORKSPACES); do rm -rf "$$workspace/target"; done
