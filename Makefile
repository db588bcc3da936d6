# Run `make` for the list.
.DEFAULT_GOAL := help
.PHONY: help demo test bench image fmt lint deny

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: ## a FastAPI app, Streamgauge in front of it, one streamed answer and its anatomy
	@scripts/demo

test: ## everything that must pass; installs what is missing
	@scripts/test

bench: ## Streamgauge beside nginx, HAProxy and no proxy
	@bench/run

image: ## the container image, with whichever of docker, podman or buildah there is
	@scripts/image

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, warnings denied
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## licences and known vulnerabilities of the dependencies (needs cargo-deny)
	cargo deny check
