# make demo | test | check: each sets itself up first. make help lists everything.

PYTHON ?= python3
BIN := .venv/bin
EXPORTS := .venv-exports/bin
INDEX := .demo/index

# OpenMP threads that spin at every barrier make a command many times slower as soon as another
# process takes one of the cores; see docs/models.md.
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 1000
endif

.PHONY: help setup demo test check format lint types layers bench bundled systems tasks exports clean

help:  ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: .venv/.installed  ## make .venv with everything in it, the weights too

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/openrag weights install
	@touch $@

demo: setup  ## index the example documents and ask three questions
	$(BIN)/openrag index examples/documents --index $(INDEX)
	$(BIN)/openrag ask "Who opened the Velora Bridge?" --index $(INDEX)
	$(BIN)/openrag ask "Who was the last keeper of the Keth Lighthouse?" --index $(INDEX)
	$(BIN)/openrag ask "How much water does the water tower hold?" --index $(INDEX) --explain

test: setup  ## run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: format lint types layers test  ## everything that must be green before a change lands

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports --no-cache --no-logo

bench: setup  ## measure; some need $OPENRAG_TEST_DATA (three hours)
	$(BIN)/python benchmarks/experts.py
	$(BIN)/python benchmarks/mixture.py
	$(BIN)/python benchmarks/passages.py
	$(BIN)/python benchmarks/busy.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/drafts.py
	$(BIN)/python benchmarks/relevance.py
	$(BIN)/python benchmarks/ranking.py untrained
	$(BIN)/python benchmarks/ranking.py trained
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/ingestion.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/multihop.py
	$(BIN)/python benchmarks/conversations.py
	$(BIN)/python benchmarks/routing.py docs/images/routing.png

bundled: setup  ## train the bundled model anew into runs/; needs $OPENRAG_TEST_DATA (six hours)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh recipes/bundled.sh

systems: setup  ## train what the bundled model is compared with, measure all; after `bundled`
	$(BIN)/python benchmarks/systems.py plain runs/data/first/plain_rows.jsonl \
		runs/data/first/single_rows.jsonl runs/data/first/chains_rows.jsonl
	cp recipes/dense-reading.yaml recipes/dense-reflection.yaml runs/data/first/
	for name in dense-reading dense-reflection; do \
		[ -d runs/$$name/model ] || $(BIN)/openrag train runs/data/first/$$name.yaml runs/$$name \
			$$([ ! -d runs/$$name/checkpoints ] || echo --resume) || exit; \
	done
	$(BIN)/python benchmarks/systems.py measure dense bundled
	$(BIN)/python benchmarks/systems.py measure reading runs/dense-reading/model
	$(BIN)/python benchmarks/systems.py measure reflection runs/dense-reflection/model
	$(BIN)/python benchmarks/systems.py measure mixture runs/first/model
	$(BIN)/python benchmarks/systems.py measure mean runs/mean
	$(BIN)/python benchmarks/systems.py measure fourth runs/fourth/model
	$(BIN)/python benchmarks/systems.py measure bundled bundled
	$(BIN)/python benchmarks/systems.py table

tasks: setup  ## the bundled model on every task; needs $OPENRAG_TEST_DATA (hours)
	$(BIN)/python benchmarks/tasks.py runs/tasks 300
	$(BIN)/openrag calibrate runs/tasks/nq runs/tasks/popqa -o runs/tasks/gate.json
	$(BIN)/openrag report runs/tasks/nq runs/tasks/popqa -o runs/tasks/report.html

exports: .venv-exports/.installed  ## the exports, with DeepEval and Ragas themselves
	$(EXPORTS)/python -m pytest --noconftest tests/core/evaluation/test_exports.py

# DeepEval and transformers ask for versions of click that exclude each other.
.venv-exports/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-exports
	$(EXPORTS)/python -m pip install --quiet --editable '.[deepeval,ragas]'
	@touch $@

clean:  ## remove what the targets made
	rm -rf .venv .venv-exports .demo .openrag dist
