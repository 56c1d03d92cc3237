# make run    sets up and starts the app on the shipped checkpoints
# make test   sets up and runs the tests, the browser's too
# PYTHON=python3.12 chooses an interpreter; PIP_ARGS is passed to pip: with PIP_ARGS="--extra-index-url
# https://download.pytorch.org/whl/cpu" Linux machines without a GPU need not download CUDA.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: run test lint format clean

run: $(VENV)/.run
	$(PY) app.py $(ARGS)

test: $(VENV)/.test
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV)

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Python 3.10 to 3.13 is needed; choose one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(PY) requirements.txt
	$(PY) -m pip install --quiet $(PIP_ARGS) -r requirements.txt
	touch $@

$(VENV)/.test: $(PY) requirements.txt tests/requirements.txt
	$(PY) -m pip install --quiet $(PIP_ARGS) -r tests/requirements.txt
	touch $@
