# make demo         set up .venv and reconstruct the bundled orbit video into demo_out/
# make test         set up .venv and run the tests
# make test-slow    the slow ones
# make train-demo   teach one object to a tiny model in both stages, evaluate it (train_demo/; TRAIN_STEPS=240)
# make check        lint, types, import directions and their drawing
# make test-docs    run the code that README and docs show
# make test-python  PYTHON=python3.12: the tests with another Python, in an environment of its own
# make test-lowest  the tests with the oldest versions of the libraries that pyproject.toml allows
# make test-wheel   build the wheel, install it into an empty environment, run the demo from there
# make mutants      change lines one at a time and see whether the tests notice; MODULES="losses cameras" chooses
# make help         this list
#
# PYTHON=python3.12 chooses the interpreter (>= 3.11).

PYTHON ?= python3
TRAIN_STEPS ?= 240
EVALUATE = $(BIN)/meshwright evaluate train_demo/held_out --inputs 4 --truth examples/train/objects --refine off \
	--colors model --vertex-colors
BIN := .venv/bin
SOURCES := pyproject.toml constraints.txt tools/venv.sh
OTHER = .venvs/$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

.PHONY: help demo train-demo test test-slow test-docs test-python test-lowest test-wheel mutants check clean

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

test-docs: .venv/.dev
	$(BIN)/pytest -m "slow or not slow" tests/test_docs.py

test-python:
	@mkdir -p .venvs
	@VENV="$(OTHER)" PYTHON="$(PYTHON)" sh tools/venv.sh "[dev]"
	$(OTHER)/bin/python --version
	$(OTHER)/bin/pytest -n 2

test-lowest:
	@mkdir -p .venvs
	@VENV=.venvs/lowest LOWEST=1 PYTHON="$(PYTHON)" sh tools/venv.sh "[dev]"
	.venvs/lowest/bin/pytest -n 2

test-wheel:
	@PYTHON="$(PYTHON)" sh tools/test_wheel.sh

mutants: .venv/.dev
	$(BIN)/python tools/mutants.py $(MODULES)

train-demo: .venv/.dev
	$(BIN)/meshwright curate render examples/train/objects/knight.glb --out train_demo/data --size 160 \
		--view-set random --views 48 --distance 4 4 --fov 30 30 --elevation -30 75
	$(BIN)/meshwright curate render examples/train/objects/knight.glb --out train_demo/held_out --size 160 --view-set circle
	$(BIN)/meshwright train tiny_stage1 --data train_demo/data --held-out train_demo/held_out --out train_demo/stage1 \
		--steps $(TRAIN_STEPS)
	$(BIN)/meshwright train tiny_stage2 --data train_demo/data --held-out train_demo/held_out --out train_demo/stage2 \
		--steps 40 --start train_demo/stage1
	$(EVALUATE) --model train_demo/stage1 --out train_demo/evaluation1
	$(EVALUATE) --model train_demo/stage2 --out train_demo/evaluation2 --compare train_demo/evaluation1
	@echo "Truth, the model's mesh and its bare shape side by side: train_demo/evaluation2/report.html"

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/draw_imports.py --check

clean:
	rm -rf .venv .venvs demo_out train_demo
