# make help lists the targets.
.DEFAULT_GOAL := build
.NOTPARALLEL:

# As shipped. Only the race detector needs cgo.
export CGO_ENABLED := 0

# Outside a git repository: dev and unknown.
ifndef VERSION
VERSION := $(subst /,-,$(shell git describe --tags --always --dirty 2>/dev/null || echo dev))
endif
ifndef COMMIT
COMMIT := $(shell git rev-parse --verify -q HEAD 2>/dev/null || echo unknown)
endif

# The commit goes in by ldflags, so the same commit gives the same bytes from any checkout.
GOBUILD := go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)"
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s
FAULTS := ^Test(Kill|Disaster|Stop|Replica|Lock|Log|SlowReturn|FirstUpload|Broken|Hangs|TwoWriters|Lease|Gate|StaleWAL|MetaLost|Diverged|Drill|Disk|RestartLoop|ClockJumps|OthersBeside|FileGone)

# RACE=-race turns the race detector on; it needs a C compiler.
RACE ?=
RACE_IF_POSSIBLE = $(shell echo 'int main(void) { return 0; }' | $$(go env CC) -include stdlib.h -x c -fsyntax-only - 2>/dev/null && echo -race)

.PHONY: run dev build test faults browser node screenshots check lint say-race bench fuzz release clean help

run: build ## build, then serve with the demo registry on http://127.0.0.1:3001
	@bin/platform-api serve -demo

dev: build ## make run with single sign-on, by an identity provider on loopback
	@go run ./auth/authtest/dev bin/platform-api serve -demo

build: ## build bin/platform-api
	@mkdir -p bin
	@$(GOBUILD) -o bin/platform-api .

test: browser node ## run all tests (RACE=-race: with the race detector)
	@CGO_ENABLED=$(if $(RACE),1,0) go test $(RACE) -shuffle=on -timeout 30m $(if $(RACE),-skip '^TestConsole') \
		$(if $(RACE),$$(go list ./... | grep -v '/replica$$'),./...)
	@$(if $(RACE),CGO_ENABLED=0 go test -timeout 30m -run '^TestConsole' ./handlers)
	@$(if $(RACE),CGO_ENABLED=0 go test -timeout 30m ./replica)

# Each of these has its short form in make test.
faults: ## run the fault tests at length: kills, full disks, replicas that are away, restarts
	@FAULTS=1 go test -count=1 -timeout 30m -v -run '$(FAULTS)' . ./db ./replica >faults.log 2>&1; status=$$?; \
	grep -E '^ *(---|kill_test|ok|FAIL)' faults.log; [ $$status = 0 ] && rm faults.log; exit $$status

# With the race detector, what runs in the browser runs by itself and without it: there it would only wait. So
# do the replica's tests, whose processes and storms take turns by the clock: "go test -race ./replica" is for
# an idle machine.
# The console's tests need a Chromium. Where it is missing and can be installed, it is.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } >/dev/null 2>&1 || \
			echo "make test: chromium could not be installed" >&2; \
	else \
		echo "make test: no Chromium here, so the browser tests are skipped; install the package chromium" >&2; \
	fi

# One sign-in is tested against a second, certified provider, and OpenFeature's SDKs against the server; both
# run on Node.
NODE := auth/authtest/witness handlers/testdata/openfeature
node:
	@if command -v npm >/dev/null; then \
		for d in $(NODE); do \
			[ $$d/node_modules -nt $$d/package-lock.json ] || \
				{ npm ci --prefix $$d --no-audit --no-fund --loglevel=error >/dev/null && touch $$d/node_modules; } || \
				echo "make test: npm could not install what $$d needs" >&2; \
		done; \
	else \
		echo "make test: no Node here, so the tests with a second identity provider and OpenFeature's SDKs are skipped" >&2; \
	fi

check: RACE = $(RACE_IF_POSSIBLE)
check: lint say-race test ## what CI runs: gofmt, vet, staticcheck, tests with race where there is a C compiler

lint:
	@out=$$("$$(go env GOROOT)/bin/gofmt" -l .) || exit 1; \
	if [ -n "$$out" ]; then echo "not gofmt'd:"; echo "$$out"; exit 1; fi >&2
	@go vet ./...
	@$(STATICCHECK) ./...

say-race:
	@[ -n "$(RACE)" ] || echo "make check: no C compiler here, so the tests run without the race detector" >&2

bench: ## run all benchmarks, and at last a load run beside a bare server
	@go test -run '^$$' -bench . -skip '^BenchmarkLoad$$' -benchmem ./...
	@go test -run '^$$' -bench '^BenchmarkLoad$$' -benchtime 1x .

fuzz: ## run each fuzz test for FUZZTIME (10s)
	@for pkg in $$(go list ./...); do \
		list=$$(go test -list '^Fuzz' "$$pkg") || { echo "$$list"; exit 1; }; \
		for f in $$(echo "$$list" | grep '^Fuzz'); do \
			echo "$$pkg $$f"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$pkg" || exit 1; \
		done; \
	done

screenshots: browser ## make docs/screenshots from the demo registry
	@go test ./handlers -count=1 -run '^TestScreenshots$$' -screenshots "$(CURDIR)/docs/screenshots"

release: ## build dist/ for linux and darwin, amd64 and arm64, with SHA256SUMS
	@rm -rf dist && mkdir dist
	@for p in $(PLATFORMS); do \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(GOBUILD) -o dist/platform-api_$(VERSION)_$${p%/*}_$${p#*/} . || exit 1; \
	done
	@cd dist && if command -v sha256sum >/dev/null; then sha256sum platform-api_*; else shasum -a 256 platform-api_*; fi > SHA256SUMS
	@cat dist/SHA256SUMS

clean: ## remove bin/ and dist/
	@rm -rf bin dist

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r t d; do printf '%-11s %s\n' "$$t" "$$d"; done
