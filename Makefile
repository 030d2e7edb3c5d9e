# Every target works alone in a fresh clone: it makes the virtual environment first, and is quick when nothing changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
WORKERS ?= 2
# As a variable and not as -c, so that what a package is built with is pinned too.
PIP := PIP_CONSTRAINT=configs/constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The object stores that tests start, in an environment of their own; what runs at providers in another, on top of ours.
SERVERS := .servers
CLOUDS := .clouds
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
CEPH_PROGRAMS := radosgw ceph-osd ceph-mon
CEPH_INSTALL := apt-get install --yes --no-install-recommends $(CEPH_PROGRAMS)

.PHONY: demo test servers soak corpus check bench docs builtin-model clean help
.DEFAULT_GOAL := help

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 20

demo: $(READY) ## Teach one subject from five photographs on the built-in model, and draw it.
	@$(BIN)/dreamctl demo build/demo

test: check ## Formatting, types, architecture and all tests.
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not soak" tests

check: $(READY) ## Formatting, lint and types.
	@$(BIN)/ruff format --check --quiet dreamctl tests
	@$(BIN)/ruff check --quiet dreamctl tests
	@$(BIN)/mypy --no-error-summary

servers: $(SERVERS)/ready $(CLOUDS)/ready ## Install the object stores and the providers' own code that tests start.
	@for program in $(CEPH_PROGRAMS); do command -v $$program >/dev/null || missing=1; done; \
	if [ -z "$$missing" ]; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update --quiet=2 && $(CEPH_INSTALL) --quiet=2 >/dev/null; \
	else \
		echo "The tests of S3 also need $(CEPH_PROGRAMS); on Debian and Ubuntu: sudo $(CEPH_INSTALL)"; \
	fi

$(SERVERS)/ready: configs/servers.txt
	@test -x $(SERVERS)/bin/python || $(PYTHON) -m venv $(SERVERS)
	@$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check -r configs/servers.txt
	@touch $@

# What is in our environment is seen after its own packages, and not installed a second time.
$(CLOUDS)/ready: configs/clouds.txt configs/constraints.txt | $(READY)
	@test -x $(CLOUDS)/bin/python || $(PYTHON) -m venv $(CLOUDS)
	@printf '%s\n' "$$($(BIN)/python $(SITE))" "$(CURDIR)" >"$$($(CLOUDS)/bin/python $(SITE))/dreamctl.pth"
	@PIP_CONSTRAINT=configs/constraints.txt $(CLOUDS)/bin/python -m pip install --quiet --disable-pip-version-check \
		-r configs/clouds.txt
	@touch $@

soak: $(READY) ## The long repetitions, such as kill -9 at many random moments.
	@$(BIN)/python -m pytest -q -m soak --timeout 3600 tests

corpus: $(READY) ## Prepare Pillow's own thousand test pictures (fetches 47 MB once).
	@$(BIN)/python -m tests.corpus
	@$(BIN)/python -m pytest -q -m soak tests/cli/test_corpus.py

bench: $(READY) ## Benchmarks; one of them with BENCH=name.
	@$(BIN)/python -m tests.benchmarks $(BENCH)

docs: $(READY) ## Write the README's generated parts (help, tree, settings).
	@$(BIN)/python -m tests.readme --write

builtin-model: $(READY) ## Train the built-in model from scratch (hours; resumable).
	@$(BIN)/python -m dreamctl.builtin.training --work build/builtin-model

# torch first and alone: with its pin satisfied nothing else may choose another build of it.
$(READY): pyproject.toml configs/constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$$(grep '^torch==' configs/constraints.txt)"
	@$(PIP) -e ".[local,wd14,s3,gcs,keyring,heic,cutout,dev]"
	@touch $(READY)

clean: ## Remove everything that was made.
	rm -rf $(VENV) $(SERVERS) $(CLOUDS) build dist .mypy_cache .ruff_cache .pytest_cache
