# Two commands do everything on a fresh machine with Python 3.10 or newer and make:
#   make lab     installs into .venv and opens JupyterLab at the first notebook
#   make test    installs, then runs every test and every notebook
#
# Some tests drive JupyterLab in Chromium. Where neither Chromium nor Chrome is found, make test installs Debian's
# chromium, if it runs as root and there is an apt-get; else it says so in a line, and those tests are skipped.
#
# To choose yourself: make PYTHON=python3.12 …      which Python .venv is made with
#                     make TORCH=torch==2.9.1 …     which torch (else: a CPU build where there is no NVIDIA GPU)
#                     make lab LAB_ARGS=--no-browser
#                     make test TESTS=tests/test_readme.py, make notebooks ONLY=notebooks/02_ocr.ipynb

PYTHON   ?= python3
VENV     ?= .venv
TORCH    ?=
LAB_ARGS ?=
TESTS    ?= tests notebooks
JOBS     ?= 2
ONLY     ?=
TRAIN_ARGS ?=
BENCH_ARGS ?=

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

# On Linux the default build of torch brings gigabytes of CUDA packages: not wanted without an NVIDIA GPU.
CPU_ONLY = $(if $(TORCH),,$(shell [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1 && echo yes))
# PyTorch's own index of CPU builds, as its site documents it; asked first, since a mirror may not reach it.
CPU_INDEX := https://download.pytorch.org/whl/cpu
REACHABLE := import urllib.request as r; r.urlopen('$(CPU_INDEX)/torch/', timeout=5)

.PHONY: help install lab browser test test-oldest messages demo bench train notebooks screenshots clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## /make \1   /p' Makefile

install: $(VENV)/.installed  ## make .venv, with everything in it

lab: install  ## open JupyterLab at the first notebook
	$(PY) -m jupyterlab $(LAB_ARGS) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	  --ServerApp.tornado_settings="{'websocket_max_message_size': 209715200}"

BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

browser:  ## get a Chromium for the tests that drive JupyterLab, where apt-get can
	@for name in $(BROWSERS); do if command -v $$name >/dev/null 2>&1; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing chromium for the tests in a browser."; apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0; \
	fi; \
	echo "The tests in a browser will be skipped: install Chromium or Chrome (Debian: apt-get install chromium)."

test: install browser  ## run every test and every notebook
	PYTHONPATH=tests $(PY) -m pytest -p nbimages --nbval -n $(JOBS) --dist loadfile $(TESTS)

OLDEST := transformers==5.0.0  # the oldest that pyproject.toml admits

test-oldest:  ## run the tests of the package on the oldest transformers, in an environment of its own
	$(MAKE) install VENV=.venv-oldest
	.venv-oldest/bin/python -m pip install -q "$(OLDEST)"
	PYTHONPATH=tests .venv-oldest/bin/python -m pytest -n $(JOBS) --dist loadfile \
	  $(wildcard tests/test_model_*.py) tests/test_loading.py tests/test_vision.py tests/test_reuse.py tests/test_batches.py \
	  tests/test_upload.py

messages: install browser  ## run the tests, and list every error message that they met, or did not
	rm -f .messages
	-MESSAGES=$(CURDIR)/.messages PYTHONPATH=tests $(PY) -m pytest -q -p nbimages -p messages -n $(JOBS) --dist loadfile tests
	$(PY) tests/messages.py .messages

demo: install  ## ask the three questions of the lessons in the terminal
	@$(PY) -m phi3v_helpers demo

bench: install  ## measure against the published way on this machine; keeps table and picture in benchmarks/results
	$(PY) -m benchmarks --suite cpu --json benchmarks/results/cpu.json --plot benchmarks/results/cpu.png $(BENCH_ARGS)

train: install  ## train the tiny model from nothing; goes on where it was stopped
	nice -n 19 $(PY) -m training $(TRAIN_ARGS)

notebooks: install  ## run the notebooks, keep their outputs, renew their bars and the README's table
	$(PY) tests/nbtools.py $(ONLY)

screenshots: install browser  ## take the README's pictures of the forms anew
	PYTHONPATH=tests $(PY) tests/screenshots.py

clean:  ## remove .venv, and that of test-oldest
	rm -rf $(VENV) .venv-oldest

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed and '$(PYTHON)' is not that. Name one: make PYTHON=python3.12 install"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp says that .venv fits these three files; after a change in one of them, pip adds what is missing.
$(VENV)/.installed: pyproject.toml requirements.txt constraints.txt | $(PY)
	$(if $(TORCH),$(PIP) install "$(TORCH)")
	$(if $(CPU_ONLY),$(install_cpu_torch))
	$(PIP) install $(if $(CPU_ONLY),-c constraints.txt) -r requirements.txt -e .
	@touch $@

define install_cpu_torch
@echo "No NVIDIA GPU was found: installing the CPU build of torch."; \
from=; if $(PY) -c "$(REACHABLE)" 2>/dev/null; then from="--index-url $(CPU_INDEX)"; fi; \
$(PIP) install $$from -r constraints.txt || { \
  echo; \
  echo "No CPU build of torch for this Python could be reached (constraints.txt names the one looked for)."; \
  echo "Use another Python: make clean, then make PYTHON=python3.11 install"; \
  echo "Or take any build, with several GB of CUDA packages on Linux: make TORCH='torch>=2.6,<3' install"; \
  exit 1; }
endef
