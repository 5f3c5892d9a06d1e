# Needs git, make and Python 3.11 or newer; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
STAMP := $(VENV)/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# uv and pip change this environment and refuse to touch any other.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_REQUIRE_VIRTUALENV := 1
unexport UV_SYSTEM_PYTHON UV_PYTHON

.DEFAULT_GOAL := help
.PHONY: help env repro verify-results prune store store-verify store-prune check-remote test lint audit format docs lock clean clean-env rebuild

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

# --- environment ---

# The stamp is written last and removed first: no stamp means no environment that can be trusted, and
# it is built from scratch. It holds the folder it was made in, since scripts in .venv/bin and the
# editable install carry absolute paths and a copied environment would run the original's code.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
BUILD := rebuild
endif

define CHECK_PYTHON
import sys
found = "%d.%d.%d" % sys.version_info[:3]
if sys.version_info < (3, 11):
    sys.exit("error: Python 3.11 or newer is needed, found %s at %s;"
             " name a newer one with `make PYTHON=python3.12 ...`." % (found, sys.executable))
endef
export CHECK_PYTHON

env: $(STAMP) ## install the locked environment into .venv
	@:

# Without bytecode the first import of torch takes more than twice as long. `--offline` first: where
# everything is installed or in uv's cache, set-up needs no network.
SYNC := $(BIN)/uv pip sync --require-hashes --compile-bytecode

$(STAMP): $(LOCK) pyproject.toml $(BUILD)
ifdef BUILD
	@command -v "$(PYTHON)" >/dev/null || \
	    { echo 'error: no `$(PYTHON)` found; name a Python with `make PYTHON=...`.' >&2; exit 1; }
	@"$(PYTHON)" -c "$$CHECK_PYTHON"
	@rm -f $@ && rm -rf $(VENV)
	"$(PYTHON)" -m venv $(VENV)
	@sed -n '/^uv==/,/# via/p' $(LOCK) >$(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
endif
	@rm -f $@
	@$(SYNC) --offline $(LOCK) 2>/dev/null || $(SYNC) $(LOCK)
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@printf '%s\n' '$(CURDIR)' >$@

# Remotes that no test reaches (gs, azure) are left to those who use them.
EXTRAS := pipeline benchmarks dask dev s3 ssh

# `make lock LOCK_FLAGS=--upgrade` takes the newest versions; else pins that still fit are kept.
lock: ## recompile requirements.lock from pyproject.toml
	@test -x $(BIN)/uv || $(MAKE) env
	$(BIN)/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	    --custom-compile-command 'make lock' --output-file $(LOCK) $(LOCK_FLAGS)

# --- pipeline ---

define SUMMARY
import pandas
columns = ["budget", "method", "seed", "bops_ratio", "size_bytes", "test_score", "baseline_score"]
table = pandas.read_csv("results/tradeoff.csv")[columns]
print("", table.to_string(index=False, float_format="{:.4f}".format), "", sep="\n")
print("report   results/report/index.html")
print("table    results/tradeoff.csv")
endef
export SUMMARY

# `make repro JOBS=2` runs the stages of two budgets at once.
repro: env ## run what changed in the pipeline, then show the trade-off
	@$(BIN)/python stages/ready.py
	@$(if $(JOBS),$(BIN)/python stages/parallel.py $(JOBS),$(BIN)/dvc repro)
	@$(BIN)/python -c "$$SUMMARY"

verify-results: env ## score the networks below docs/results again
	@$(BIN)/python benchmarks/verify_results.py

prune: env ## remove what budgets that are no longer in params.yaml left behind
	@$(BIN)/python stages/prune.py

store: env ## list the measurements that are kept
	@$(BIN)/python stages/store.py

store-verify: env ## read every measurement that is kept
	@$(BIN)/python stages/store.py verify

# `make store-prune REMOVE=1` removes them, for all clones that share the store.
store-prune: env ## count the measurements that params.yaml cannot reuse
	@$(BIN)/python stages/store.py prune $(if $(filter 1,$(REMOVE)),--remove)

# `make check-remote REPAIR=1` uploads anew what this clone has of it; `REMOTE=name` for another one.
check-remote: env ## see that the remote holds every output whole
	@$(BIN)/python stages/remote.py $(if $(filter 1,$(REPAIR)),--repair) $(REMOTE)

# --- checks ---

# Two processes, a thread in each; the pipeline tests of a file share a workspace.
test: env lint ## all checks, and all tests but those marked slow
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not pipeline and not slow' -n 2
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'pipeline and not slow' -n 2 --dist loadfile --durations 15

lint: env ## formatting, lint rules, types, import layers, licences
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pip-licenses >/dev/null && echo 'Licences: all allowed.'

# Apart from `lint`: it asks a service for each package, which no copy of its data could replace.
audit: env ## look up known vulnerabilities of the locked packages; needs network
	@$(BIN)/pip-audit --requirement $(LOCK) --require-hashes --disable-pip --strict \
	    --progress-spinner off 2>$(VENV)/audit.log && { cat $(VENV)/audit.log; exit; }; tail -n 3 $(VENV)/audit.log >&2; \
	    grep -q '^Found ' $(VENV)/audit.log || echo 'error: NOTHING WAS AUDITED: the service cannot' \
	    'be reached, or failed, as said above; run `make audit` where there is a network.' >&2; exit 1

format: env ## rewrite the sources as `make lint` wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: env ## write docs/parameters.md anew, from the schema
	@$(BIN)/python docs/parameters.py

# --- cleaning ---

# Measurements (.store, data/evaluations), raw data, downloads and DVC's cache stay. Of the pipeline's
# outputs only what git ignores goes; `dvc checkout` or `make repro` bring it back.
clean: ## remove caches and pipeline outputs, never measurements
	@git clean -fdXq -- data/prepared models results ':!results/timings.csv*'
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . \( -path ./.git -o -path ./$(VENV) -o -path ./.store \) -prune -o \
	    -name __pycache__ -prune -exec rm -rf {} +

clean-env: ## remove the environment
	@rm -f $(STAMP) && rm -rf $(VENV)
