# Two commands on a fresh machine: `make run` and `make test`. They need only Python 3.11 to 3.13 and make.
PY := .venv/bin/python
READY := .venv/.ready
# `make run PYTHON=python3.13` wants that Python: a .venv of another one is made anew. Without it any .venv will do.
# Half-made (no pip in it) or with an interpreter that went away, it is made anew too; moved, it is installed into once more:
# the paths in it are those of the folder it was made in, which .ready holds.
ifdef PYTHON
NEW := $(shell test "$$($(PY) -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" && $(PY) -c 'import pip' 2>/dev/null || echo yes)
else
NEW := $(shell $(PY) -c 'import pip' 2>/dev/null || echo yes)
endif
MOVED := $(shell test "$$(cat .venv/.ready 2>/dev/null)" = '$(CURDIR)' || echo yes)
PYTHON ?= python3
EXTRAS := [dev,eval]
# Compiling all 20,000 files takes longer than the rest; Python compiles those it imports.
PIP := $(PY) -m pip install -q --disable-pip-version-check --no-compile
# $(call needs,MODULES,EXTRA): install the extra, unless its modules are there.
needs = $(PY) -c 'import importlib.util as i, sys; sys.exit(not all(map(i.find_spec, "$1".split())))' || $(PIP) -e .[$2]
# `make run WHEELHOUSE=folder` on a machine without network: wheels from there, everything else (torch) the machine's own.
ifdef WHEELHOUSE
# A .pth file: --system-site-packages would not see the packages of a PYTHON that is itself a virtual environment's.
# Python 3.11 puts an old setuptools into a new one, which would hide the machine's.
SITE := $(PY) -m pip uninstall -q -y setuptools && $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo .venv/lib/python*/site-packages)/machine.pth
PIP += --no-index --no-build-isolation --find-links $(WHEELHOUSE) -c $(WHEELHOUSE)/constraints.txt
else
CONSTRAINTS ?= -c constraints.txt
PIP += $(CONSTRAINTS)
endif
# Two-core machines are faster when each process keeps to one thread.
export OMP_NUM_THREADS ?= 1
LONGEST := --durations=15 --durations-min=5
NBVAL := --nbval-lax --nbval-current-env --nbval-sanitize-with tests/notebooks/sanitize.cfg --nbval-cell-timeout 300
export TOKENIZERS_PARALLELISM ?= false
# Many containers set it. The environment is installed uncompiled (PIP above), so that each of a hundred processes would then
# compile 2,000 modules anew: 8 s instead of 4 for transformers and papermill.
unexport PYTHONDONTWRITEBYTECODE

# What mypy checks.
TYPED := kernels/sparse24 kernels/tokenstats labkit

# What runs on a GPU; needs torch, Triton, numpy, pytest and hypothesis, no installed labkit: PY=python3 will do.
GPU_TESTS := $(wildcard tests/test_sparse24*.py tests/test_tokenstats*.py) tests/test_kernel_operators.py \
  tests/test_kernels_gpu.py \
  tests/test_selfcheck.py tests/test_planted_faults.py tests/test_soar_beam_compiled.py \
  tests/test_soar_beam_kernel.py tests/test_soar_caches.py tests/test_cpu_cuda.py
GPU_JOBS ?= 8
SANITIZER ?= compute-sanitizer

# Which lines the unit tests reach. sys.monitoring (Python 3.12) counts them in 0 to 6 % more time; the tracer of 3.11 takes
# 20 to 80 % more, so there nothing is counted unless COVERAGE='--cov --cov-report=' asks for it. Below `fail_under` in
# pyproject.toml pytest fails.
COVERAGE = $(shell $(PY) -c 'import sys; print("--cov --cov-report=" if sys.version_info >= (3, 12) else "")')

.PHONY: another-python setup run test unit types coverage test-browser pictures lint-js test-gpu sanitize-gpu lab app bench mutants wheelhouse docs site clean
setup: $(READY)  ## the environment alone

run: $(READY)  ## execute every notebook with the smoke preset, write runs/latest/report.html; JOBS=2: two at a time
	$(PY) -m labkit run --preset smoke $(if $(JOBS),--jobs $(JOBS))

test: unit  ## style, types, unit tests, notebooks under nbval; SLOW=yes: those marked slow too
	LABKIT_HEADLESS=1 $(PY) -m pytest -q -n 2 --dist loadfile $(NBVAL) notebooks

# worksteal: with whole files the last one, of few and slow tests, keeps one process waiting for the other.
# nbval reads notebooks alone, and takes a second of each process.
unit: types  ## `make test` without the notebooks
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
	$(PY) -m pytest -q -n 2 --dist worksteal -p no:nbval $(LONGEST) $(if $(SLOW),,-m "not slow") $(COVERAGE) --ignore=tests/browser tests
	$(if $(COVERAGE),@printf 'coverage of the unit tests: %s %%\n' "$$($(PY) -m coverage report --format=total)")

types: $(READY)  ## what mypy finds
	$(PY) -m mypy $(TYPED)

coverage: $(READY)  ## the lines that the last `make test` did not reach, by file
	$(PY) -m coverage report --skip-covered --show-missing --sort=cover

test-browser: $(READY)  ## the notebooks in JupyterLab in Chromium, screenshots to runs/browser (needs chromium)
	$(PY) -m pytest -q -n 2 --dist worksteal $(LONGEST) --require-chromium tests/browser

pictures: $(READY)  ## README's pictures, from real traces and the instruments as they are (needs chromium)
	$(PY) tests/pictures.py

lint-js:  ## style, types and unit tests of the instruments' scripts (needs Node.js 20 or newer and npm)
	npm ci --prefix tests/js --no-audit --no-fund --silent
	npm run --prefix tests/js --silent lint
	npm test --prefix tests/js --silent

lab: $(READY)  ## open JupyterLab on the first notebook
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb

app: $(READY)  ## serve the first notebook as an app, code hidden (Voila)
	$(call needs,voila,app)
	$(PY) -m voila notebooks/00_start_here.ipynb

bench: $(READY)  ## check, then time the kernels (needs a CUDA device)
	$(PY) -m sparse24.bench && $(PY) -m tokenstats.bench

test-gpu: $(if $(filter .venv/%,$(PY)),$(READY))  ## every compiled kernel against its reference (needs a CUDA device)
	@$(PY) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'test-gpu: no CUDA device here')"
	PYTHONPATH=.:kernels $(PY) -m pytest -q -n $(GPU_JOBS) --dist worksteal --durations=5 $(GPU_TESTS)

sanitize-gpu: $(if $(filter .venv/%,$(PY)),$(READY))  ## memory errors and races in a small case of every kernel
	for tool in memcheck racecheck; do PYTHONPATH=.:kernels PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
	  $(SANITIZER) --tool $$tool --error-exitcode 1 $(PY) tests/specialisations.py || exit 1; done

docs: $(READY)  ## API pages and the kernels' derivations as a site, runs/docs/index.html; warnings are errors
	$(call needs,furo myst_parser sphinx,docs)
	rm -rf docs/api && $(PY) -m sphinx -W --keep-going -q -d runs/docs/.doctrees docs runs/docs

site: docs $(if $(RUN),,run)  ## the notebooks executed, findings, live instruments and API pages: runs/site; RUN=runs/latest: of that run
	$(PY) -m labkit site $(RUN)

mutants: $(READY)  ## plant known faults one by one in a copy: the tests must catch each
	$(PY) tests/mutants.py $(MUTANTS)

wheelhouse:  ## what another machine lacks, into WHEELHOUSE=wheels: EXTRAS=[dev,eval] HAS=freeze.txt FOR="--platform ..."
	$(PYTHON) .ci/wheelhouse.py $(or $(WHEELHOUSE),wheels) --extras '$(EXTRAS)' $(if $(HAS),--has $(HAS)) --for='$(FOR)'

clean:  ## remove the environment and everything that was generated
	rm -rf .venv runs build docs/api *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt $(if $(NEW)$(MOVED),another-python)
	$(if $(NEW),$(PYTHON) -m venv --clear .venv)
	$(if $(WHEELHOUSE),$(SITE) && $(PIP) setuptools)
	$(PIP) -e .$(EXTRAS)
	echo '$(CURDIR)' > $@
