# `make demo` and `make test` need nothing but Python 3.11 and a package index; see README.md.
PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
GPU_CHECK_ARGS ?=
GPU_PYTHON ?= 3.12
DEMO ?= demo
BIN := .venv/bin

.PHONY: help setup demo demo-steps clean-demo test test-slow lint format lock bench-loader gpu-check gpu-wheels clean

help:
	@echo "make demo    make clips, build a dataset from them, train on it for a minute"
	@echo "make clean-demo   remove what the demo made"
	@echo "make test    run the tests (PYTEST_ARGS='--clips DIR' adds real clips)"
	@echo "make test-slow   run those that take longer: builds and trainings that are killed, and the like"
	@echo "make setup   set up .venv with the locked dependencies"
	@echo "make bench-loader   the stream beside other loaders (BENCH_ARGS='--root MFHQ')"
	@echo "make gpu-check    everything that needs a GPU, in under 9 minutes (GPU_CHECK_ARGS='--device cpu --tiny' without one)"
	@echo "make gpu-wheels   download the wheels that gpu-check needs on a machine without a network (docs/gpu-check.md)"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make lock    resolve the dependencies of pyproject.toml anew"

setup: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock scripts/install_system_packages
	scripts/install_system_packages
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9; }
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# Made once, because a build knows a video by its time of change: the same files are finished videos to it.
$(DEMO)/clips/truth.json: $(wildcard pipeline/demo/*.py) | setup
	$(BIN)/mfhq demo-clips $(DEMO)/clips

# What an earlier demo has done is not done again, whether it came to its end or was stopped.
demo: setup $(DEMO)/clips/truth.json
	@$(MAKE) --no-print-directory demo-steps || { \
		echo "if $(DEMO) holds what another version made, \`make clean-demo demo\` starts anew" >&2; exit 1; }

demo-steps:
	$(BIN)/python pipeline/build_mfhq.py workflows/curate_demo.yaml source.path=$(DEMO)/clips output=$(DEMO)/mfhq
	$(BIN)/omniid train workflows/train_mtd_tiny.yaml data.root=$(DEMO)/mfhq output=$(DEMO)/run
	$(BIN)/omniid train workflows/train_flow_tiny.yaml data.root=$(DEMO)/mfhq output=$(DEMO)/flow steps=20 \
		representation.weights=$(DEMO)/run/encoder

clean-demo:
	rm -rf $(DEMO)

test: setup
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Parts of the lock, for nodes that curate or train: x86-64 Linux alone, in the versions of the whole.
IMAGE_LOCK := pip compile --quiet --python-platform linux --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-header --constraints requirements.lock

# Hashes but no addresses: every site uses its own index.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --extra pipeline --extra training --extra tracking --extra embedded --extra dev \
		pyproject.toml --output-file requirements.lock
	$(BIN)/uv $(IMAGE_LOCK) --extra pipeline --extra embedded pyproject.toml --output-file workflows/curate/requirements.lock
	$(BIN)/uv $(IMAGE_LOCK) --extra pipeline --extra embedded --overrides workflows/curate/gpu-overrides.in \
		pyproject.toml workflows/curate/gpu-requirements.in --output-file workflows/curate/requirements-gpu.lock
	$(BIN)/uv $(IMAGE_LOCK) --extra training --extra faces pyproject.toml --output-file workflows/train/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --extra training --overrides benchmarks/loader-overrides.in \
		pyproject.toml benchmarks/loader-requirements.in --output-file benchmarks/loader-requirements.lock

# The loaders that ours is compared with pin other versions: an environment of their own, under its own lock.
.venv-loader/.installed: benchmarks/loader-requirements.lock | setup
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-loader
	$(BIN)/uv pip sync --quiet --python .venv-loader/bin/python --require-hashes benchmarks/loader-requirements.lock
	touch $@

bench-loader: .venv-loader/.installed
	PYTHONPATH=. .venv-loader/bin/python benchmarks/loader.py $(BENCH_ARGS)

gpu-check: setup
	$(BIN)/python benchmarks/gpu_check.py $(GPU_CHECK_ARGS)

gpu-wheels: setup
	PIP=$(BIN)/pip scripts/gpu_wheels dist/gpu-wheels $(GPU_PYTHON)

clean:
	rm -rf .venv .venv-loader $(DEMO)
