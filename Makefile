# Every task of this project. `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard native/*.toml native/*.txt native/src/*.* native/src/edvac_native/*.py)
READY := $(VENV)/.ready-$(shell cat requirements/lock.txt pyproject.toml $(NATIVE) | cksum | cut -d' ' -f1)

.PHONY: help setup run test wheel check lint types lock crash ray fuzz soak bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make the environment: the lock, torch by version, edvac itself, its compiled kernels

$(READY): requirements/lock.txt pyproject.toml $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing locked packages (about 150 MB), then torch (about 200 MB on CPU builds)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@if command -v c++ >/dev/null; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall ./native \
	  || echo "the compiled kernels could not be built: edvac works, but writes answers more slowly"; \
	else echo "no C++ compiler: edvac works, but writes answers more slowly (native/README.md)"; fi
	@rm -f $(VENV)/.ready-*
	@touch $@

run: setup  ## the main job on the sample inbox, with the embedded model
	@$(BIN)/edvac model pull --yes --prepare
	@$(BIN)/python examples/run_inbox.py

test: setup  ## the default test suite (under 10 minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

wheel: setup  ## build both wheels and use them in a clean environment without a compiler
	@rm -rf dist
	@$(BIN)/python -m hatchling build -t wheel -d dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist ./native
	@$(PYTHON) .ci/try_wheel.py dist/edvac-*.whl dist/edvac_native-*.whl

check: lint types  ## style and types

lint: setup
	@$(BIN)/ruff check src tests examples
	@$(BIN)/ruff format --check src tests examples

types: setup
	@$(BIN)/mypy

crash: setup  ## the long crash harness: 500 kills, 20,000 crash images, 3 hosts (about 20 minutes)
	@EDVAC_SCALE=2000 EDVAC_KILLS=500 EDVAC_CRASH_IMAGES=20000 EDVAC_CUT_EVERY=1 EDVAC_RESTARTS=20 EDVAC_LIVES=3000 \
	  $(BIN)/python -m pytest -s tests/crash tests/store/test_crash_images.py tests/store/test_store_postgresql_loss.py \
	  tests/fleet/test_scale_out.py tests/machine/test_machine_simulation.py --timeout 3600

ray:  ## workers placed by Ray, in an environment of its own (about 350 MB, a minute)
	@test -x .venv-ray/bin/ray || { $(PYTHON) -m venv .venv-ray && \
	  .venv-ray/bin/python -m pip install --quiet --disable-pip-version-check -e '.[ray]' pytest pytest-timeout; }
	@.venv-ray/bin/python -m pytest -s tests/fleet/test_ray_placing.py -p no:cacheprovider

soak: setup  ## ten thousand mixed requests with aborts to one engine, more swaps, every KV type (about 12 minutes)
	@EDVAC_SOAK=10000 $(BIN)/python -m pytest -s tests/engine/test_soak.py tests/engine/test_kv.py tests/serve/test_swap.py --timeout 3000

fuzz: setup  ## broken model and adapter files, 20,000 of them (about 15 minutes)
	@$(BIN)/python -m tests.engine.fuzz --cases 20000

bench: setup  ## measure edvac beside its peers; results go to docs/benchmarks
	@$(BIN)/edvac bench run

lock: setup  ## renew requirements/lock.txt
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet pyproject.toml requirements/torch-needs.in --extra engine --extra documents --extra serve --extra check --extra langgraph --extra scale --group dev \
	  --override requirements/without-torch.txt --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate -o requirements/lock.txt

clean:  ## remove the environment and caches
	@rm -rf $(VENV) .venv-ray .pytest_cache .mypy_cache .ruff_cache .hypothesis
