# Holdfast. `make` alone prints the targets; every target may be run as root on
# a fresh Debian 12 machine and installs what it lacks.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# A Go that .ci/tools.sh fetched, when the machine has none.
export PATH := $(CURDIR)/.cache/go/bin:$(PATH):/usr/local/go/bin:/usr/sbin:/sbin
export CGO_ENABLED := 0

# The toolchain stamps the version that git tells, where git is willing to tell one.
STAMP   := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)
PREFIX  ?= /usr/local
KERNEL  ?=
RUN     ?=
TIER    ?=
FS      ?=
SUITE   ?=
STATE   ?= /var/lib/holdfast
WATCH   ?= /etc=observe

# Everything go test starts: -count=1 because these tests look at the machine, too. Unit tests
# wait as much as they work: three packages at a time keep two processors busy.
GOTEST  := go test -json -count=1
TALLY   := .cache/bin/tally

##@ Try

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'make vmtest KERNEL=6.1 RUN=block   boots one kernel for one script'
	@echo 'make run WATCH=/srv=restore        watches another tree'

.PHONY: demo
demo: ## a login tampers with files; see who, put back, undo, verify (as root, under three minutes)
	@.ci/tools.sh demo
	@$(MAKE) build
	@demo/demo.sh bin/holdfast

.PHONY: run
run: build ## the daemon in the foreground (as root): STATE=DIR WATCH=PATH=MODE
	bin/holdfast --state $(STATE) run --watch $(WATCH)

##@ Build

.PHONY: build
build: ## bin/holdfast, one static binary
	@.ci/tools.sh build
	go build -trimpath -buildvcs=$(STAMP) -ldflags '-s -w' -o bin/holdfast ./cmd/holdfast

.PHONY: generate
generate: ## compile bpf/*.c and write the Go types of the wire (clang 19)
	@.ci/tools.sh
	go generate ./bpf

.PHONY: install
install: build ## bin/holdfast, the systemd unit and an empty rules directory: PREFIX= DESTDIR=
	install -D -m 0755 bin/holdfast $(DESTDIR)$(PREFIX)/sbin/holdfast
	install -d -m 0700 $(DESTDIR)/etc/holdfast $(DESTDIR)/etc/holdfast/rules.d
	install -d $(DESTDIR)/etc/systemd/system
	sed 's,@PREFIX@,$(PREFIX),' packaging/holdfast.service >$(DESTDIR)/etc/systemd/system/holdfast.service
	@echo 'Next: write /etc/holdfast/holdfast.yaml, then systemctl enable --now holdfast'

##@ Test

.PHONY: test
test: ## everything: check, Go tests, tests on this kernel, tests in VMs; ends with N passed, M failed
	@.ci/tools.sh
	@$(MAKE) $(TALLY) engine
	@$(TALLY) \
		'check=$(MAKE) check' \
		'build=$(MAKE) build' \
		'unit=$(GOTEST) ./...' \
		'live=$(GOTEST) -p 1 -tags live -run "^TestLive" $$(grep -rl --include="*_test.go" "^//go:build live" . | xargs -r dirname | sort -u)' \
		'vm=$(GOTEST) -timeout 60m -tags vm -run "^Test(Scripts|Coverage|Who)$$" ./vmtests'

.PHONY: grafana-check
grafana-check: engine ## the dashboards: their JSON, and every query on a real ClickHouse with a generated fleet in it
	go test -count=1 -v ./schemas/dashboards | grep -v '^=== '

.PHONY: panels
panels: engine ## draw the dashboards over a generated fleet with Grafana's components, in headless Chromium, to docs/dashboards
	schemas/dashboards/draw/draw.sh

.PHONY: check
check: ## formatting, vet, import rules, and: the committed BPF objects are what the sources give
	@.ci/tools.sh
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); [ -z "$$bad" ] || { echo "gofmt -w: $$bad"; exit 1; }
	go vet ./...
	go vet -tags live,vm ./...
	go test -count=1 ./pkg/internal/archtest
	.ci/regenerated.sh

.PHONY: vmtest
vmtest: ## the scripts in VMs: KERNEL=6.1 RUN=block for one
	@.ci/tools.sh
	@$(MAKE) $(TALLY)
	@VM_KERNEL='$(KERNEL)' VM_RUN='$(RUN)' $(TALLY) 'vm=$(GOTEST) -timeout 25m -tags vm -run "^TestScripts$$" ./vmtests'

.PHONY: oracle
oracle: ## random mixed work in a VM, then: records replayed = scan. KERNEL=6.1 TIER=lsm MINUTES=10 SEED=1 FS=xfs
	@.ci/tools.sh
	@VM_KERNEL='$(or $(KERNEL),6.1)' VM_RUN=oracle VM_TIME=$$(($(or $(MINUTES),10) * 8 + 20))m \
		VM_ENV='$(if $(TIER),TIER=$(TIER)) $(if $(FS),FS=$(FS)) MINUTES=$(or $(MINUTES),10) SEED=$(or $(SEED),1)' \
		go test -count=1 -v -timeout 12h -tags vm -run '^TestScripts$$' ./vmtests

.PHONY: kills
kills: engine ## 1,000,000 records shipped while the sender is killed 500 times and the server 50: each row there once (half an hour)
	go test -count=1 -v -timeout 6h -run '^TestKill$$' ./pkg/ship -args -records 1000000 -kills 500 -server-kills 50

.PHONY: coverage
coverage: ## docs/coverage.md from every act on every kernel, tier and file system: KERNEL= TIER= FS= for some
	@.ci/tools.sh
	@$(MAKE) $(TALLY)
	@COVERAGE=write VM_KERNEL='$(KERNEL)' VM_TIER='$(TIER)' VM_FS='$(FS)' $(TALLY) 'vm=$(GOTEST) -timeout 12h -tags vm -run "^TestCoverage$$" ./vmtests'

.PHONY: attribution
attribution: ## docs/attribution.md from every case in each tier, with two versions of OpenSSH: TIER= SUITE= for some
	@.ci/tools.sh
	@$(MAKE) $(TALLY)
	@WHO=write VM_TIER='$(TIER)' VM_SUITE='$(SUITE)' $(TALLY) 'vm=$(GOTEST) -timeout 2h -tags vm -run "^TestWho$$" ./vmtests'

.PHONY: powercut
powercut: ## cut the power of a disk at 200 random points of captures, restores and undos; look at what is left
	@.ci/tools.sh
	go test -count=1 -v -timeout 30m ./rollback -long -run PowerCut

.PHONY: bench
bench: engine ## Go benchmarks, then b3sum on the same kind of files
	@.ci/bench.sh

.PHONY: bench-kernel
bench-kernel: ## what file operations cost, in instructions, beside auditd, in a VM: KERNEL=6.1
	@.ci/tools.sh
	go run ./vmtests/cmd/cost -kernel $(or $(KERNEL),6.1)

##@ Fetch

.PHONY: tools
tools: ## install by apt what this machine lacks
	@.ci/tools.sh

.PHONY: engine
engine: ## the ClickHouse engine that the tests run against
	@pkg/clickhouse/clickhousetest/fetch.sh >/dev/null

.PHONY: kernels
kernels: ## the kernels and the root file system that the VM tests boot
	@.ci/tools.sh
	go run ./vmtests/cmd/vm -prepare
	go run ./vmtests/cmd/vm -kernel 6.1 -people bookworm -prepare

.PHONY: clean
clean: ## remove what was built; .cache keeps what was fetched
	rm -rf bin .cache/bin .cache/logs

$(TALLY): $(wildcard vmtests/cmd/tally/*.go)
	@go build -o $@ ./vmtests/cmd/tally
