# One environment, five verbs. `make demo` and `make test` each work first on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench fuzz sanitize clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   simulator -> daemon -> results on this machine's CPU, with a picture"
	@echo "make test   lint, types and the whole test suite"
	@echo "make lint   ruff, mypy --strict, import-linter"
	@echo "make bench  what a frame costs on this machine, stage by stage"
	@echo "make fuzz   broken inputs for SECONDS=60; what they break is kept in fuzz-findings"
	@echo "make sanitize  the C code's tests and SECONDS of fuzzing under ASan and UBSan"

.venv/ready: pyproject.toml setup.py constraints.txt $(wildcard stream/*.[ch] models/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: .venv/ready
	$(BIN)/python -m hitfinder.workers.demo

test: .venv/ready lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not system"
	$(BIN)/python -m pytest -m system

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/hitfinder-stream bench

SECONDS ?= 60
fuzz: .venv/ready
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# Python is not built with ASan, so the library comes before it; what Python leaks is not ours.
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g
UNDER := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=src
C_TESTS := $(addprefix tests/stream/test_,kernels.py bslz4.py reduction.py pooling.py packed.py ring.py) \
	$(addprefix tests/models/test_,image.py cells.py scan.py places.py beside.py spots.py frontend.py host_gate.py)
sanitize: .venv/ready
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	git ls-files -z | tar --null --files-from=- --create | tar --extract --directory $(SANITIZED)
	cd $(SANITIZED) && CC=gcc CFLAGS="$(SANITIZE)" ../../$(BIN)/python setup.py --quiet build_ext --inplace
	cd $(SANITIZED) && $(UNDER) ../../$(BIN)/python -m pytest --timeout 600 $(C_TESTS)
	cd $(SANITIZED) && $(UNDER) ../../$(BIN)/python -m tests.fuzz --seconds $(SECONDS) \
		--target v1 --target v2 --target blobs

clean:
	rm -rf .venv build *.egg-info src/*.egg-info stream/*.so models/*.so
