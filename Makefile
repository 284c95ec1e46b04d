# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := out/reviews.parquet

.PHONY: demo test test-all check bench serve clean

demo: .venv/ready  ## 500 reviews through the embedded emulator
	$(BIN)/batchwerk run data/reviews.parquet $(DEMO) --job data/jobs/reviews_de.yaml --provider local
	$(BIN)/batchwerk report $(DEMO)
	$(BIN)/python data/show.py $(DEMO)

test: .venv/ready  ## the test suite, some ten minutes on two cores
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow"

test-all: .venv/ready  ## the long suites as well
	$(BIN)/pytest -n 2 --dist loadgroup

check: .venv/ready  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready  ## time, CPU, memory and money beside a bare loop and peers, for hours; BENCH="--quick" for minutes
	$(BIN)/python -m tests.bench $(BENCH)

serve: .venv/ready  ## Prefect's server and UI on http://127.0.0.1:4200
	$(BIN)/prefect server start

clean:
	rm -rf .venv out

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sdks]'
	touch $@
