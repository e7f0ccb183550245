# make test is what continuous integration runs; the rest are its parts and the tools beside it.

SHELL       := /bin/bash -o pipefail
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME    ?= 20s
BENCHFLAGS  ?=
GO          := GOTOOLCHAIN=local go
BUILDFLAGS  := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
BLACKBOX    := ./cmd/flyscreen/blackbox
FAULTS      := ./cmd/flyscreen/faults
# Debian puts mosquitto into sbin, which is not on everybody's PATH.
export PATH := $(PATH):/usr/sbin
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true

.PHONY: build test install lint unit blackbox faults bench bench-install fuzz clean help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## the program, static, as .bin/flyscreen
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o .bin/flyscreen ./cmd/flyscreen

install: ## what the checks need, pinned (apt-get, npm, golangci-lint)
	@.ci/install

test: install ## everything: lint, unit, property, fuzz seeds and black-box tests, with the race detector
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory blackbox
	@echo "all checks passed"

lint: ## gofmt, vet, golangci-lint, and the API description
	@echo "== lint"
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	.bin/golangci-lint run ./...
	.ci/node_modules/.bin/redocly lint --config .ci/redocly.yaml openapi.yaml 2>&1

# One package at a time: with the race detector several at once starve each other of the two cores that CI has.
unit: ## unit and property tests and fuzz seeds
	@echo "== unit tests"
	$(GO) test -race -p 1 -timeout 8m $$($(GO) list ./... | grep -v -e /blackbox -e /faults)

blackbox: ## the built program, driven from outside by clients that are not ours, and a short run of the faults
	@echo "== black-box tests"
	$(GO) test -race -count=1 -timeout 8m -v $(BLACKBOX) | grep -v '^=== '
	@echo "== faults, the short form"
	$(GO) test -race -count=1 -timeout 5m -v $(FAULTS) | grep -v '^=== '

faults: ## the faults at length (15 min, root): broker and gateway killed, links, disks; prints the figures
	FAULTS_RUN=full $(GO) test -count=1 -timeout 40m -v $(FAULTS) | grep -v '^=== '

bench-install: ## the peers of the load run, pinned (apt-get)
	@cmd/flyload/install

# Built first, not "go run": a signal must reach it, so that it ends its servers.
bench: bench-install ## the load run beside its peers, about an hour (BENCHFLAGS='-quick -runs 1', '-help')
	$(GO) build -trimpath -o .bin/flyload ./cmd/flyload
	.bin/flyload $(BENCHFLAGS)

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

clean: ## what the targets above made, but for the installed tools
	rm -f .bin/flyscreen .bin/flyload
	$(GO) clean -testcache
