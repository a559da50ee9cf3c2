# Thin calls: what they do lies in xtask and e2e.

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quartermaster
export CARGO_TARGET_DIR ?= $(cache)/target
export CARGO_BUILD_JOBS ?= $(shell nproc)

# Go's components of the cluster take minutes when they are built for the first time: they build beside our own code.
harness = cargo run --quiet --package quartermaster-cluster --
beside = sh xtask/beside.sh "$(harness) build"

.PHONY: help demo test down prerequisites

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: prerequisites ## Bring up a Kubernetes, install everything, tell the story of a budget
	@$(beside) "cargo build --workspace --bins"
	@cargo run --quiet --package quartermaster-e2e --bin demo

test: prerequisites ## Everything that CI runs: format, lints, tests, charts, the real cluster
	@$(beside) "cargo test --workspace --no-run --quiet"
	@cargo xtask ci

down: ## Take the demo's cluster down
	@$(harness) down

prerequisites:
	@sh xtask/prerequisites.sh
