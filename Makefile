# Thin calls: what they do lies in xtask and e2e.

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/quartermaster
export CARGO_TARGET_DIR ?= $(cache)/target
export CARGO_BUILD_JOBS ?= $(shell nproc)

programs := $(CARGO_TARGET_DIR)/debug

.PHONY: help demo test soak models down prerequisites checkout

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

# The cluster's components, in Go, take minutes when they are built for the first time: they build beside our own code.
# Only tests have nodes of KWOK.
# Always the whole workspace: a package alone is resolved with other features, and its dependencies are compiled twice.
# `--test tidy` turns on the features that tests have, for the same reason: demo and test share every object.
demo: prerequisites ## Bring up a Kubernetes, install everything, tell the story of a budget
	@cargo build --quiet --workspace --bin quartermaster-cluster --test tidy
	@sh xtask/beside.sh "$(programs)/quartermaster-cluster build" "cargo build --workspace --bins --test tidy"
	@$(programs)/xtask images --models --from $(programs)
	@$(programs)/demo

test: prerequisites ## Everything that CI runs: format, lints, tests, charts, the real cluster
	@cargo build --quiet --workspace --bin quartermaster-cluster --bin xtask --test tidy
	@sh xtask/beside.sh "$(programs)/quartermaster-cluster build --kwok" "cargo test --quiet --workspace --no-run"
	@$(programs)/xtask ci

soak: prerequisites ## Half an hour of load on the inference server, and its answers beside the reference's; not in CI
	@cargo xtask bench soak
	@cargo xtask bench logits

models: prerequisites ## Train and measure the model family under models/ anew; hours of work, not in CI
	@cargo xtask models

down: checkout ## Take the demo's cluster down
	@cargo build --quiet --workspace --bin quartermaster-cluster --test tidy
	@$(programs)/quartermaster-cluster down

prerequisites: checkout
	@sh xtask/prerequisites.sh $(filter demo test,$(MAKECMDGOALS))

checkout:
	@sh xtask/checkout.sh "$(CARGO_TARGET_DIR)"
