# Every verb that a person or CI needs. Nothing but Go, gcc, make and Node has
# to be there; the rest is installed or built when it is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run build test check fmt lint bench bench-smoke bench-peers fuzz prove figures image clean

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
FUZZTIME ?= 30s
BENCH ?= .

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

run: build ## the gateway with embedded Redis and NATS; DWS_… settings from the environment
	@exec ./bin/daisi-ws run

build: ## static binaries in bin/
	$(GO_BUILD) -o bin/ ./cmd/...

test: build ## everything: Go with -race, sizes and allocations without, npm's ws, Chromium
	@.ci/test

check: ## format, vet, staticcheck, policy tests; no servers
	@.ci/check

fmt: ## write the format that check wants
	@find . -name '*.go' -not -path './.git/*' -not -path '*/node_modules/*' -not -name '*.pb.go' -print0 | xargs -0 go tool -modfile=.tools/gofumpt.mod gofumpt -w

lint: ## what .golangci.yml says; slower than check, and builds golangci-lint first
	go tool -modfile=.tools/golangci-lint.mod golangci-lint run ./...

bench: ## benchmarks of the parts; BENCH=regexp
	@ulimit -n $$(ulimit -Hn); go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

bench-smoke: build ## do the benchmarks still run?
	@.ci/bench-smoke

bench-peers: build ## the gateway beside bare servers of gorilla, gws, coder and nbio, as one table
	@mkdir -p .tools/bin && .tools/need redis-server=redis-server
	CGO_ENABLED=0 go build -o .tools/bin/nats-server github.com/nats-io/nats-server/v2
	cd .tools/peers && CGO_ENABLED=0 go build -trimpath -o ../bin/peers .
	@ulimit -n $$(ulimit -Hn); ./bin/daisi-bench peers

fuzz: ## every fuzz target for FUZZTIME each
	@grep -rhoE --include='*_test.go' --exclude-dir='.*' '^func Fuzz[A-Za-z0-9_]+' -H * | while IFS=: read -r file func; do \
		echo "--- $$file $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 500x "./$$(dirname $$file)" || exit 1; \
	done

prove: build ## the long proofs: minutes instead of seconds, victoria-metrics, promtool
	@.ci/prove

figures: ## README's tables of figures, each the median of three runs: 35 minutes, nothing else on the machine
	@.tools/need redis-server=redis-server; ulimit -n $$(ulimit -Hn); go test -tags figures -count=1 -timeout 2h -parallel 3 -run TestFigures -v ./server

image: ## the container image
	docker build -f .deploy/Dockerfile --build-arg VERSION=$(VERSION) -t daisi-ws:$(VERSION) .

clean: ## remove what was built
	rm -rf bin .tools/bin .ci/out .ci/node/node_modules
