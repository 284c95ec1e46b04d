# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := out/reviews.parquet
# Python keeps what it has compiled, also where the environment says otherwise: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all check bench serve clean

demo: .venv/ready  ## enrich 500 reviews with the embedded emulator
	$(BIN)/batchwerk run data/reviews.parquet $(DEMO) --job data/jobs/reviews_de.yaml --provider local
	$(BIN)/batchwerk report $(DEMO)
	$(BIN)/python data/show.py $(DEMO)

test: .venv/ready  ## run the tests except slow ones: about five minutes on two cores
	$(BIN)/pytest -n 4 --dist loadgroup -m "not slow"

test-all: .venv/ready  ## run all tests, including slow ones
	$(BIN)/pytest -n 4 --dist loadgroup

check: .venv/ready  ## run the linter and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready  ## compare time, CPU, memory and cost with a bare loop and peers; takes hours, BENCH="--quick" minutes
	$(BIN)/python -m tests.bench $(BENCH)

serve: .venv/ready  ## run Prefect's server and UI on http://127.0.0.1:4200
	$(BIN)/prefect server start

clean:
	rm -rf .venv out

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,sdks,tokens]'
	touch $@
