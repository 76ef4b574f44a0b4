# The short way to the usual chores. Needs git, make and a Rust toolchain; `tools` also python3 with
# pip, and a Go that is as new as tools/go.mod says.

.PHONY: help demo test ci bless conformance soak tools tools-all bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: ## run an example whole
	@tools/demo

test: ## run every test
	cargo test --workspace --no-fail-fast

ci: ## run what a commit must pass: format, lints, documentation, tests
	cargo xtask ci

bless: ## rewrite golden files with what the tests produce now
	cargo xtask bless

conformance: ## play the scenarios against Kubernetes and the engine, and compare the answers
	cargo xtask conformance

soak: ## ship good and bad versions on real processes for an hour, with shippers that are killed; SEED and ROUNDS may be set
	LANDFALL_SOAK=$(or $(ROUNDS),3) LANDFALL_SEED=$(or $(SEED),6) cargo test --workspace --test it -- --nocapture --test-threads 1 ship::

tools: ## install what the tests look for: a real control plane, kubectl, Helm, kubeconform, actionlint, hadolint, gitlab-ci-local, schemas, servers, Kafka, nftables
	tools/install-packages
	tools/install-ferretdb
	tools/install-schemas
	tools/install-clients
	tools/install-control-plane
	tools/install-readers kubeconform actionlint
	tools/install-kafka
	tools/install-mermaid
	tools/install-hadolint
	tools/install-gitlab-runner

tools-all: tools ## install also the readers of what is rendered for other tools
	tools/install-readers
	tools/install-checkov
	tools/install-collector

bench: ## measure, against the budget and beside a real control plane
	cargo bench --workspace
