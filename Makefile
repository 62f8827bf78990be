# make demo    set up .venv and reconstruct the bundled orbit video into demo_out/
# make test    set up .venv and run the tests
# make test-slow  the slow ones
# make check   lint, types and import directions
# make help    this list
#
# PYTHON=python3.12 chooses the interpreter (>= 3.11).

PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml constraints.txt tools/venv.sh

.PHONY: help demo test test-slow check clean

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

.venv/.core: $(SOURCES)
	@PYTHON="$(PYTHON)" sh tools/venv.sh ""
	@touch $@

.venv/.dev: $(SOURCES)
	@PYTHON="$(PYTHON)" sh tools/venv.sh "[dev]"
	@touch .venv/.core $@

demo: .venv/.core
	$(BIN)/meshwright reconstruct examples/demo/orbit.mp4 --out demo_out --turntable

test: .venv/.dev
	$(BIN)/pytest -n 2

test-slow: .venv/.dev
	$(BIN)/pytest -n 2 -m "slow"

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo_out
