# Two commands do everything: `make demo` and `make test`. Both set up .venv first, unattended.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: demo test test-llama-index test-seeds check format bench soak clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("agent_meter needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)  ## a metered LangChain agent, no key, no network
	$(BIN)/python examples/quickstart_langchain.py

test: $(STAMP)  ## all tests (under 10 minutes); ARGS choose among those of .venv
	$(BIN)/python -m pytest $(ARGS)
	$(if $(ARGS),,$(BIN)/python environments/test.py llama_index selectools mamba)

test-llama-index: $(STAMP)  ## tests in an environment of their own: LlamaIndex's integrations
	$(BIN)/python environments/test.py llama_index -- $(ARGS)

test-seeds: $(STAMP)  ## tests in environments of their own: selectools, mamba-agents
	$(BIN)/python environments/test.py selectools mamba -- $(ARGS)

check: $(STAMP)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## the figures of docs/explanation/
	$(BIN)/python -m benchmarks

soak: $(STAMP)  ## the long runs: bounds at full size
	$(BIN)/python -m pytest -m soak --timeout 1800 $(ARGS)

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
