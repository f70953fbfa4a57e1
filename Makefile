# Everything here works on a fresh clone with only Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test test-slow lint proto bench lock clean help

help: ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# A stamp for each lock: installing again only when the lock or the project's metadata changed.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# hnswlib, the peer of the index tests, is compiled from source: without a C++ compiler those
	@# tests are skipped, and say so.
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peer.lock \
		|| echo "hnswlib could not be built (it needs a C++ compiler): its tests will be skipped"
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime ## Serve, ingest, search and answer, on real text; downloads what it needs
	$(RUN)/vecdb demo

# Kernels run as Python show an index that is out of bounds, which compiled they do not look at.
test: $(VENV)/.dev ## Run the tests, models included
	$(RUN)/python -m pytest
	NUMBA_DISABLE_JIT=1 $(RUN)/python -m pytest tests/index/test_kernels.py tests/index/test_exact.py \
		tests/index/test_rotation.py

test-slow: $(VENV)/.dev ## Run the long sweeps too: crashes, fuzzing, large recall
	$(RUN)/python -m pytest -m "slow or not slow"
	NUMBA_DISABLE_JIT=1 $(RUN)/python -m pytest tests/index

lint: $(VENV)/.dev ## Style, types and layers
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

proto: $(VENV)/.dev ## Generate the protocol's stubs
	$(RUN)/python proto/generate.py

bench: $(VENV)/.dev ## Compare the indexes with hnswlib; needs ../shared/data
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	$(RUN)/python -m bench.datasets minilm --out bench/data
	$(RUN)/python -m bench.ann --base bench/data/base.npy --queries bench/data/queries.npy --k 10 \
		--engines vecdb-hnsw,vecdb-hnsw-rabitq,vecdb-ivf-rabitq,vecdb-flat,hnswlib --out bench/data/ann.json

lock: ## Pin every dependency by hash; needs uv
	sh requirements.sh

clean: ## Remove what make has made
	rm -rf $(VENV) build dist *.egg-info demo-data bench/data
