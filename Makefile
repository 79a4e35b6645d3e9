# make demo    the main job, as a client does it: two minutes from a fresh machine
# make test    all tests
# make clients seven clients with scripted models, in their environments: some minutes; make clients-quick: two
# make check   style, types and the rules of who may import whom
# make conformance   the protocol's official suite and the Inspector: two minutes; needs npm
# make bench   every figure beside its goal and its peers: three to seven minutes; make bench-quick: about one
# make package what is published, built, and tried outside of this tree; make bundle: for desktop clients
# make soak    ten minutes of many rude clients, and what must hold then; make soak SOAK='--duration 60 --seed 7'
# make clean   remove what these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := .node
# Compiled at once: contexts, which import the same files, may write none.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
MCPB := @anthropic-ai/mcpb@2.1.2

# Said in one line before anything is tried.
PROBLEM := $(shell \
    if [ "$$(uname -s)" != Linux ]; then echo "this needs Linux: contexts are isolated by its own means"; \
    elif ! command -v "$(PYTHON)" >/dev/null; then echo "there is no $(PYTHON): apt-get install python3 python3-venv"; \
    elif ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
        echo "$(PYTHON) is older than 3.11: install a newer one and name it, as in make PYTHON=python3.12"; \
    elif ! "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then \
        echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv"; \
    fi)

ifneq ($(PROBLEM),)
    ifneq ($(MAKECMDGOALS),clean)
        $(error $(PROBLEM))
    endif
endif

.PHONY: demo test check conformance clients clients-quick package bundle bench bench-quick soak clean

demo: $(VENV)/.data
	@$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 3 --dist loadfile

clients: $(VENV)/.test .venvs/clients/.made .venvs/clients-mcp1/.made tests/clients/node_modules/.made
	@$(BIN)/python -m tests.clients

# Those that need no environment of their own.
clients-quick: $(VENV)/.test tests/clients/node_modules/.made
	@$(BIN)/python -m tests.clients $(VENV)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

conformance: $(NODE)/.installed $(VENV)/.test
	$(BIN)/python -m pytest tests/conformance -m conformance

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks --save

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick

package: $(VENV)/.package
	$(BIN)/python tools/package.py

bundle: | $(BIN)/python
	$(BIN)/python tools/bundle.py
	@if command -v npx >/dev/null; then npx --yes $(MCPB) validate packaging/mcpb/manifest.json; \
	else echo "Not validated: $(MCPB) needs npx (Node.js)."; fi

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak $(SOAK)

clean:
	rm -rf dist $(VENV) $(NODE) .venvs tests/clients/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@echo "Making $(VENV) …"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# A stamp for each set of extras: made anew when what is asked for changes.
$(VENV)/.data: pyproject.toml | $(BIN)/python
	@echo "Installing …"
	@$(INSTALL) --editable '.[data]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing …"
	@$(INSTALL) --editable '.[data,test]'
	@touch $@ $(VENV)/.data

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing …"
	@$(INSTALL) --editable '.[data,bench]'
	@touch $@ $(VENV)/.data

$(VENV)/.package: pyproject.toml | $(BIN)/python
	@echo "Installing …"
	@$(INSTALL) --editable '.[package]'
	@touch $@

$(VENV)/.check: pyproject.toml | $(BIN)/python
	@echo "Installing …"
	@$(INSTALL) --editable '.[data,test,bench,check]'
	@touch $@ $(VENV)/.test $(VENV)/.bench $(VENV)/.data

# Pinned in tests/conformance/node; nothing is written outside of $(NODE) but npm's own cache.
$(NODE)/.installed: tests/conformance/node/package.json tests/conformance/node/.npmrc
	@command -v npm >/dev/null || { echo "make conformance needs npm: apt-get install npm"; exit 1; }
	@echo "Installing the conformance suite …"
	@mkdir -p $(NODE)
	@cp $^ $(NODE)
	@cd $(NODE) && npm install
	@touch $@

# Clients that bring their own versions of mcp, each set in an environment of its own.
.venvs/clients/.made: tests/clients/requirements.txt
.venvs/clients-mcp1/.made: tests/clients/requirements-mcp1.txt

.venvs/%/.made:
	@echo "Installing $< …"
	@"$(PYTHON)" -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

tests/clients/node_modules/.made: tests/clients/package.json
	@echo "Installing $< …"
	@npm install --silent --no-package-lock --prefix tests/clients
	@touch $@
