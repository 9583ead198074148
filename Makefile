# `make` alone lists the targets. Each sets up what it needs, in .venv, and is quick when it is there.
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help ready install demo compare report house lint types unit test test-browser test-latex test-ranks test-classes test-slurm test-ray bench faults faults-quick faults-truth faults-input faults-ranks faults-jobs faults-resume illnesses pretrain data tables freeze dashboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/ready: pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed: $(VENV)/ready
	$(PY) -m pip install --quiet --editable ".[dev]"
	$(PY) -m pip install --quiet --no-deps clip-benchmark==1.6.2  # its metric needs torch and tqdm; the rest of its needs are 120 MB
	@touch $@

ready: $(VENV)/ready  ## make .venv with clipbench and what it runs on

install: $(VENV)/installed  ## the same, with what the tests need

demo: ready  ## two sweeps of clip_tiny and resnet_tiny: tables, curves, TensorBoard, a page, in minutes
	$(PY) -m clipbench.run experiment=demo
	$(PY) -m clipbench.run experiment=demo_shots
	$(PY) -m clipbench.report sweep=demo_shots

lint: install  ## ruff: style, docstrings, annotations
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install  ## mypy --strict on the package
	$(VENV)/bin/mypy

unit: install  ## only the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -n auto --dist loadfile

test: lint types unit  ## lint, types, tests

house: install  ## draw the rooms and their imports, into docs/house.svg
	$(PY) -m tests.house

bench: install  ## what is measured against other libraries, into outputs/bench/
	OMP_NUM_THREADS=1 $(PY) -m tests.bench

faults-quick: install  ## kill a sweep ten times; its table must equal that of an undisturbed one
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.campaign 10

faults: install  ## the same with a hundred kills
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.campaign 100

faults-truth: install  ## plant what would silently give a wrong number; each must be found
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.truth

faults-input: install  ## 2,000 folders of images as disks and people leave them: read right or refused
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.input 2000

faults-ranks: install  ## two ranks, one of which raises, dies or hangs wherever it is: 24 cases
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.ranks

faults-jobs: install  ## every way for a job to go wrong, first, in the middle and last
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/sweeps/test_session.py

faults-resume: install  ## kill a run at every step; resumed, it must be equal to the bit
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.resume

illnesses: install  ## run what the doctor is tested on again, into tests/doctor/
	OMP_NUM_THREADS=1 $(PY) -m tests.doctor

test-latex: install  ## every table through pdflatex (apt-get install texlive-latex-recommended)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/reporting/tables/test_latex.py

test-ranks: install  ## splits of every size on two to four ranks, to the last image as on one
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/training/test_evaluation.py tests/training/test_retrieval_run.py

test-classes: install  ## 1,500 classes in 12 GiB of address space: trained, evaluated, reported
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/test_growth.py

test-slurm: install  ## a sweep on this machine's SLURM, one job of it preempted
	$(PY) -m pip install --quiet --editable ".[dev,slurm]"
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/clusters/test_slurm.py

test-ray: install  ## the same sweep on a local Ray
	$(PY) -m pip install --quiet --editable ".[dev,ray]"
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/clusters/test_ray.py

# What is typed reaches a command through its environment: neither make nor a shell reads it again.
override export DATA := $(value DATA)
override export MODELS := $(value MODELS)
override export BUDGET := $(value BUDGET)
override export SWEEP := $(value SWEEP)
override export DATASET := $(value DATASET)

compare: ready  ## your own images, CLIP or ResNet: make compare DATA=folder [MODELS=auto] [BUDGET=minutes]
	$(PY) -m clipbench.compare "data=$$DATA" "models=$${MODELS:-auto}" "budget=$${BUDGET:-30}"

report: ready  ## one page of the latest sweep, or of SWEEP=name
	$(PY) -m clipbench.report $${SWEEP:+"sweep=$$SWEEP"}

test-browser: install  ## report, examples and dashboard in a real Chromium, into outputs/browser/
	$(PY) -m pip install --quiet --editable ".[dev,browser]"
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -m slow tests/browser

pretrain: ready  ## rebuild the weights of clip_tiny and resnet_tiny
	$(PY) -m clipbench.pretrain clip_tiny
	$(PY) -m clipbench.pretrain resnet_tiny

tables: ready  ## every table and figure, from the runs here and those frozen in experiments/results
	$(PY) -m clipbench.tables

freeze: ready  ## save the rows of every experiment run here in experiments/results/
	$(PY) -m clipbench.freeze

data: ready  ## fetch a dataset and check it: make data DATASET=flowers102
	$(PY) -m clipbench.data fetch "dataset=$$DATASET"
	$(PY) -m clipbench.data check "dataset=$$DATASET"

dashboard: ready  ## TensorBoard over outputs/
	$(PY) -m clipbench.dashboard

clean:  ## remove caches (outputs/ and .venv stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	find clipbench tests -name __pycache__ -type d -exec rm -rf {} +
