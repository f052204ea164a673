# `make demo` installs and shows the main result; `make test` installs the tools and runs the tests.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PY := .venv/bin/python
BIN := .venv/bin
WANT := import sys; sys.exit(sys.version_info < (3, 10))
PIP := $(PY) -m pip --disable-pip-version-check --quiet
SHOWN := $(PY) -m pip --disable-pip-version-check
BUILD := import sys, setuptools; sys.exit(int(setuptools.__version__.split('.')[0]) < 77)
SETUP := settings.ini setup.py pyproject.toml constraints-dev.txt Makefile
WORKERS ?= 2
OUT ?= _artifacts/assignments

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.made:
	@python=; for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	  if command -v $$p >/dev/null && $$p -c '$(WANT)' 2>/dev/null; then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then echo "proc-nb needs Python 3.10 or newer, and none was found on the PATH."; exit 1; fi; \
	echo "==> making .venv with $$($$python --version)"; \
	$$python -m venv .venv || { echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt-get install python3-venv"; rm -rf .venv; exit 1; }
	@touch $@

# A torch without CUDA where there is no GPU and such a build can be had; otherwise the pinned version as the index gives it.
.venv/.torch: .venv/.made constraints-dev.txt
	@$(PY) -c 'import torch' 2>/dev/null || { echo "==> installing torch (the largest download: 200 MB, with CUDA 3 GB)"; \
	  want=$$(grep '^torch==' constraints-dev.txt); \
	  { [ "$$(uname -s)" = Linux ] && ! nvidia-smi >/dev/null 2>&1 && \
	    $(SHOWN) --retries 0 --timeout 5 install $$want --index-url https://download.pytorch.org/whl/cpu 2>/dev/null; } || $(SHOWN) install $$want; }
	@touch $@

# Without build isolation, so that a clone that is installed needs no network when settings.ini has been touched.
.venv/.base: .venv/.torch $(SETUP)
	@echo "==> installing proc-nb and what it needs"
	@$(PY) -c "$(BUILD)" 2>/dev/null || $(PIP) install 'setuptools>=77'
	@$(PIP) install --no-build-isolation -c constraints-dev.txt -e '.[fast]'
	@$(PY) -c 'from proc_nb.train.fused import compiled; compiled()' # once, so that the first run does not wait for it
	@touch $@

.venv/.dev: .venv/.base
	@echo "==> installing the development tools (some 500 MB)"
	@$(SHOWN) install --no-build-isolation -c constraints-dev.txt -e '.[dev]'
	@$(PIP) install -c constraints-dev.txt --no-deps kronfluence # it asks for torchvision, which it never imports
	@touch $@

demo: .venv/.base ## install, then show the main result (about a minute on 2 CPU cores once installed)
	@$(BIN)/proc-nb-demo

test: .venv/.dev ## install the tools, then run every test that fits in minutes
	@WORKERS=$(WORKERS) bash tests/run.sh

test-full: .venv/.dev ## everything, the long runs included
	@WORKERS=$(WORKERS) bash tests/run.sh full

lab: .venv/.dev ## open JupyterLab on the live lab
	@$(BIN)/proc-nb-lab

docs-check: .venv/.dev ## stage the site and check pages, links, anchors, pictures and sizes (no Quarto needed)
	@$(PY) tests/docs_check.py

gallery: .venv/.dev ## make the page of results again from what is stored
	@$(BIN)/nbdev-test nbs/explain/gallery.ipynb --save && $(BIN)/nbdev-clean

assignments: .venv/.base ## student notebooks and autograder bundles in OUT (SECRET=words draws fresh hidden tests)
	@$(PIP) install --no-build-isolation -c constraints-dev.txt -e '.[course]'
	@$(PY) tutorials/assignments/make.py make --secret "$${SECRET:-}" --out $(OUT)

readme: .venv/.dev ## write README.md from nbs/index.ipynb
	@$(PY) tests/readme.py --write

bump: ## raise the patch version in settings.ini
	@awk -F '[ .=]+' '/^version/ {$$0 = "version = " $$2 "." $$3 "." $$4 + 1} {print}' settings.ini > settings.tmp && mv settings.tmp settings.ini && grep '^version' settings.ini
	@sed -i.old "s/^version: .*/version: $$(awk -F ' = ' '/^version/ {print $$2}' settings.ini)/" CITATION.cff && rm CITATION.cff.old

.PHONY: help demo test test-full lab docs-check gallery assignments readme bump
