# One environment, five verbs. `make demo` and `make test` each work first on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   simulator -> daemon -> results on this machine's CPU, with a picture"
	@echo "make test   lint, types and the whole test suite"
	@echo "make lint   ruff, mypy --strict, import-linter"
	@echo "make bench  what a frame costs on this machine, stage by stage"

.venv/ready: pyproject.toml setup.py constraints.txt $(wildcard stream/*.[ch] models/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: .venv/ready
	$(BIN)/python -m hitfinder.workers.demo

test: .venv/ready lint
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/hitfinder-stream bench

clean:
	rm -rf .venv build *.egg-info src/*.egg-info stream/*.so models/*.so
