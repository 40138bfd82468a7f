# make run    install into .venv, start the daemon, ask both demo models a question
# make test   install what the tests need and run them all
# make test-clients  every real client of the HTTP gateway, the large ones too
# make lint   ruff, mypy, import-linter, and whether the blocking SDK is what its source makes
# make test-newest  the engines' tests with the newest libraries of the index, in .venv-newest
# make test-oldest  the same with the lower bounds of pyproject.toml, in .venv-oldest
# make fuzz   200,000 bent headers into the inspection, 5,000 broken HTTP connections; some minutes
# make soak   downloads and malformed files in a live daemon's directory; some minutes
# make clean  remove .venv and caches

# A GPU build of llama.cpp:        make run LLAMA_CMAKE_ARGS=-DGGML_CUDA=on   (or -DGGML_VULKAN=on,
#                                  -DGGML_HIP=on)
# Another torch for test-newest:     make test-newest TORCH="torch==2.13.0"
# More arguments for torch's pip:  make run TORCH_PIP_ARGS="..."   (see README, "GPU or CPU")
PYTHON ?=
LLAMA_CMAKE_ARGS ?=
TORCH_PIP_ARGS ?=
PYTEST_ARGS ?=
TORCH ?=
VENV ?= .venv
CLIENTS ?= .venv-clients

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c requirements.lock
STAMP := $(VENV)/.hybridd

# What a user's libraries decide. A library's deprecations end a test with the lock's versions alone:
# with others they are shown.
ENGINE_TESTS := tests/backends tests/e2e/test_huggingface.py tests/e2e/test_demo_answers.py \
	tests/e2e/test_adapters.py tests/e2e/test_draft_model.py tests/e2e/test_embedding.py
SHOW_DEPRECATIONS := -W default::FutureWarning -W default::DeprecationWarning
# bitsandbytes 0.46 says at each int8 product of another type than float16 that it is cast.
SHOW_DEPRECATIONS += -W "default:MatMul8bitLt:UserWarning"

.PHONY: run test test-clients test-newest test-oldest lint bench fuzz soak clean

run: $(STAMP)-run
	@BIN=$(BIN) sh etc/make/run.sh

test: $(STAMP)-test $(CLIENTS)/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-clients: $(STAMP)-test $(CLIENTS)/.installed
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/clients/python/large.lock
	$(BIN)/python -m pytest tests/e2e/test_clients.py $(PYTEST_ARGS)

# The clients' own versions: none of them is in the daemon's environment.
$(CLIENTS)/.installed: tests/clients/python/requirements.lock tests/clients/node/package-lock.json
	@PYTHON="$(PYTHON)" VENV="$(CLIENTS)" sh etc/make/check.sh
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/clients/python/requirements.lock
	if command -v npm >/dev/null; then cd tests/clients/node && npm ci --silent --no-audit --no-fund; fi
	@touch $@

test-newest test-oldest: test-%:
	@PYTHON="$(PYTHON)" VENV=$(VENV)-$* sh etc/make/check.sh
	VENV=$(VENV)-$* TORCH_PIP_ARGS="$(TORCH_PIP_ARGS)" TORCH="$(TORCH)" sh etc/make/bounds.sh $*
	$(VENV)-$*/bin/python -m pytest $(SHOW_DEPRECATIONS) $(ENGINE_TESTS) $(PYTEST_ARGS)

lint: $(STAMP)-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python etc/make/unasync.py --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)-test
	$(BIN)/python tests/bench/daemon.py
	$(BIN)/python tests/bench/cli_startup.py

fuzz: $(STAMP)-test
	$(BIN)/python -m tests.fuzz.headers
	$(BIN)/python -m tests.fuzz.http

soak: $(STAMP)-test
	$(BIN)/python -m tests.soak.catalog

$(STAMP)-run: pyproject.toml requirements.lock
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh etc/make/check.sh
	$(PIP) --upgrade pip
	$(PIP) $(TORCH_PIP_ARGS) torch
	@echo "Installing; llama.cpp is compiled once, which takes some minutes."
	PYTHONWARNINGS=ignore CMAKE_ARGS="$(LLAMA_CMAKE_ARGS)" $(PIP) --config-settings editable_mode=compat -e '.[all]'
	@touch $@

$(STAMP)-test: $(STAMP)-run
	$(PIP) $$($(BIN)/python etc/make/groups.py lint test)
	$(PIP) --no-deps $$($(BIN)/python etc/make/groups.py test-models)
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-oldest $(CLIENTS) tests/clients/node/node_modules .run build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
