# Each target sets itself up: Python 3.11 or newer, make and git are enough.
#
#   make demo    serve the examples to several users at once and check every line they log
#   make test    the test suite
#   make lint    ruff and mypy --strict
#   make suites  Flask's own test suite, with every application instrumented and without
#   make versions  the tests of Flask and Quart with older and newer versions of them
#   make bench   what it costs, against a floor and against the usual recipes
#   make jaeger loki  the programs that tests/jaeger and tests/grafana are run with, from their source
#   make dashboards  grafana/dashboards anew, from its Python

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint suites versions bench jaeger loki dashboards clean

demo: $(VENV)/.installed
	$(BIN)/python examples/shop/demo.py
	$(BIN)/python examples/flask_shop/demo.py
	$(BIN)/python examples/quart_chat/demo.py
	$(BIN)/python examples/bugs/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suites: $(VENV)/.installed
	$(BIN)/python -m tests.suites

versions: $(VENV)/.installed
	$(BIN)/python -m tests.versions

bench: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks

jaeger loki: $(VENV)/.installed
	$(BIN)/python -m tests.outside $@

dashboards: $(VENV)/.installed
	$(BIN)/python -m grafana.generate

clean:
	rm -rf .venv* dist build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "asok_trace needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
