# What a person needs: `make quickstart` to see it, `make test` to trust it.
#
#   REQUIRE=all   a component that is missing (Kafka, PostgreSQL, MySQL, …) fails the tests instead of skipping some of them
#   KEEP=1        the quickstart runs on until Ctrl-C

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The demonstration's pseudonymisation key. Real topologies take theirs from a secret store.
export MASK_KEY ?= quickstart-only-not-a-secret-0123456789abcdef

.PHONY: help quickstart deps test fmt lint bench mutations clean

help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

quickstart:  ## build with embedded parts only, and watch half a minute of a shop
	@tests/support/deps.sh build
	@loadtest/quickstart.sh

deps:  ## install what is missing for building and testing (Debian packages, Kafka's jars, database servers in .cache)
	@tests/support/deps.sh build test

test: deps  ## format, lints, and every test
	@tests/support/test.sh

fmt:  ## format the code
	cargo fmt --all

lint:  ## format check and lints, without tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features failpoints -- -D warnings

bench:  ## the figures of the README that need no whole process (release build: minutes); the others: loadtest/figures.sh
	cargo bench --bench binlog --bench decode --bench lake --bench pgoutput --bench upload --bench upsert

mutations:  ## plant protocol bugs one at a time and show that the tests catch each
	@tests/mutations/run.sh

clean:  ## remove what was built and made; .cache (Kafka's jars, database servers) stays
	cargo clean
	rm -rf data/quickstart
