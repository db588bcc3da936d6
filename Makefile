# Run `make` for the list.
.DEFAULT_GOAL := help
.PHONY: help demo demo-canary night simulate-canary test frameworks test-valkey outage dashboards fuzz soak bench image site fmt lint deny

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: ## a FastAPI app, Streamgauge in front of it, one streamed answer and its anatomy
	@scripts/demo

demo-canary: ## a new version takes over from 1 % to 100 % by itself, and a bad one is rolled back
	@scripts/demo-canary

night: ## three troubles among healthy traffic, and what docs/incident-response.md finds out about them
	@scripts/setup build
	@cargo build
	@tests/night/run.sh

simulate-canary: ## how often the canary judge errs, over 10,000 simulated rollouts, and how soon it sees harm
	@STREAMGAUGE_ROLLOUTS=10000 cargo test --profile simulation -p canary-simulation --test rollouts -- --nocapture --test-threads 1

test: ## everything that must pass; installs what is missing
	@scripts/test

test-valkey: ## the tests of limits and fleets that share a store, with Valkey in place of Redis
	@scripts/test-valkey

outage: ## a fleet whose Redis is away for 30 s (or OUTAGE_S): stopped, cut off, silent, read-only
	@scripts/setup build apt redis-server
	@STREAMGAUGE_OUTAGE_S=$${OUTAGE_S:-30} cargo test --test proxy fleet_chaos:: -- --nocapture

frameworks: ## real frameworks behind the proxy: same bytes, right first token, usage, outcome; a table at the end (ONLY=agno,mcp: some)
	@scripts/frameworks $(if $(ONLY),--only $(ONLY))

dashboards: ## Grafana's dashboards and the SLO's rules, written anew from their sources
	@dashboards/source.py && dashboards/slo.py

fuzz: ## the gauge against mutated streams, guided by coverage where cargo-fuzz and a nightly toolchain are there
	@scripts/fuzz

soak: ## half an hour of churn (or SOAK_S seconds), after which the process is as large as before
	@STREAMGAUGE_SOAK_S=$${SOAK_S:-1800} cargo test --release --test proxy soak:: -- --nocapture

bench: ## Streamgauge beside nginx, HAProxy, a bare pingora proxy and no proxy
	@bench/run

image: ## the container image, with whichever of docker, podman or buildah there is
	@scripts/image

site: ## the documentation site, in .cache/site/html; a broken link fails
	@scripts/setup build site
	@cargo build --quiet
	@.cache/venv/bin/python scripts/site target/debug/streamgauge

fmt: ## format the code
	cargo fmt --all

lint: ## clippy, warnings denied
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## licences and known vulnerabilities of the dependencies
	@scripts/deny
