VENV ?= .venv
AUDIT ?= .venv-audit
PYTHON := $(VENV)/bin/python
# Each worker begins with files of its own, which makes the runs that their tests share once; one
# that has finished takes over tests of the others.
PYTEST := $(PYTHON) -m pytest -n auto --dist worksteal
# One worker more than cores, for long tests, of which many wait for a kill or a limit of time.
LONG := -n $(shell expr `getconf _NPROCESSORS_ONLN` + 1)
BASE_PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help install benchmark test test-all test-coverage certify weekly lint format readme mutants wheel bench cost coverage fuzz kills audit published reference site scale

help:
	@echo "make benchmark  install if needed and run the variance suite"
	@echo "make test       the tests that are quick"
	@echo "make certify    the tests that take long: the battery on every estimator, long runs"
	@echo "                (PART=2/7: and the second of seven parts of the weekly tests)"
	@echo "make weekly     mutants, long statistics and fuzzing"
	@echo "make test-all   all tests"
	@echo "make test-coverage  lines and branches of gradest/ that the quick and the slow tests reach"
	@echo "make lint       ruff format and lint, changing nothing"
	@echo "make format     let ruff format and mend"
	@echo "make readme     write the README's catalogue anew"
	@echo "make mutants    wrong estimators, and the check that rejects each"
	@echo "make bench      speed, as ratios measured in one run"
	@echo "make cost       evaluations and time of each estimator against leave-one-out"
	@echo "make scale      seconds and memory of run, resume, report and dry run as the cells grow; CELLS=\"300 1000\""
	@echo "make coverage   how often intervals cover and verdicts are right, on known answers"
	@echo "make fuzz       odd suite files, journals, command lines and costs, and how each ends"
	@echo "make kills      kills of runs, workers and schedulers on a cluster, and whether the rows survive"
	@echo "make audit      estimators of published packages, judged; writes docs/audit.md"
	@echo "make published  runs the suites of papers; writes the claims into docs/published.md"
	@echo "make reference  measures the reference results that are not up to date; SUITE=variance: one; FORCE=1: all"
	@echo "make site       the docs, and a page for each estimator and task; writes site/index.html"
	@echo "make wheel      build dist/*.whl"

install: $(VENV)/.installed

# Compiled by all cores at once, where pip uses one.  Without it every start of Python would compile
# what it imports where PYTHONDONTWRITEBYTECODE is set, as images of containers have it.
$(VENV)/.installed: requirements.txt pyproject.toml
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --no-compile --requirement requirements.txt
	$(PYTHON) -m pip install --quiet --no-deps --editable .
	$(PYTHON) -m compileall -qq -j 0 -x '/tests/|/testing/_internal/' $(VENV)/lib gradest estimators tasks
	touch $@

benchmark: install
	$(PYTHON) benchmark.py --suite variance

test: install
	$(PYTEST) -m "not slow and not weekly"

certify: install
	$(PYTEST) $(LONG) -m $(if $(PART),"slow or weekly" --part $(PART),slow)

weekly: install
	$(PYTEST) $(LONG) -m weekly

test-all: install
	$(PYTEST) $(LONG)

test-coverage: install
	$(PYTEST) -m "not weekly" --cov=gradest --cov-branch --cov-report=term-missing:skip-covered

lint: install
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

format: install
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

readme: install
	$(PYTHON) -m tools.readme

mutants: install
	$(PYTHON) -m tools.mutants

bench: install
	$(PYTHON) -m tools.bench

cost: install
	$(PYTHON) -m tools.cost

scale: install
	$(PYTHON) -m tools.scale $(CELLS)

coverage: install
	$(PYTHON) -m tools.interval_coverage

fuzz: install
	$(PYTHON) -m tools.fuzz all

kills: install
	$(PYTHON) -m tools.kills

# The audited packages are in an environment of their own, which sees that of gradest beneath it.
$(AUDIT)/.installed: $(VENV)/.installed examples/audit/requirements.txt
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(PYTHON) -c "import site; print('import site; site.addsitedir(%r)' % site.getsitepackages()[0])" \
		> `$(AUDIT)/bin/python -c "import site; print(site.getsitepackages()[0])"`/gradest.pth
	$(AUDIT)/bin/python -m pip install --quiet --no-deps --requirement examples/audit/requirements.txt
	touch $@

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/python -W ignore -m tools.audit --write docs/audit.md

published: install
	$(PYTHON) benchmark.py --suite published --fresh --quiet
	$(PYTHON) -m tools.published --write docs/published.md

reference: install
	$(PYTHON) -m tools.reference $(SUITE) $(if $(FORCE),--force)

# Sphinx and what it needs, which nobody who measures has to install.
$(VENV)/.site: $(VENV)/.installed tools/site/requirements.txt
	$(PYTHON) -m pip install --quiet --requirement tools/site/requirements.txt
	touch $@

site: $(VENV)/.site
	$(PYTHON) -m tools.site

wheel: install
	rm -rf dist build
	$(PYTHON) -m build --wheel
