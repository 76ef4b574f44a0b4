# The short way to the usual chores. Needs git, make and a Rust toolchain; `tools` and `ci` also python3 with pip.

.PHONY: help demo test ci bless tools bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: ## check and render an example
	@tools/demo

test: ## run every test
	cargo test --workspace --no-fail-fast

ci: ## run what a commit must pass: format, lints, documentation, tests
	cargo xtask ci

bless: ## rewrite golden files with what the tests produce now
	cargo xtask bless

tools: ## install what the tests look for: the schemas of Kubernetes
	tools/install-schemas

bench: ## measure
	cargo bench --workspace
