# make demo   sets up, then runs the four scripts on a drawn sample (or DATA=photos/ WEIGHTS=file.h5)
# make dogs   the same on real photos of ten breeds, fetched once (fast.ai's Imagewoof, 88 MB)
# make app    sets up, then serves the newest model in the browser, on this machine (Ctrl-C ends it)
# make lint   sets up, then ruff, mypy for every Python that is promised, and what documents and imports say
# make check  lint and the fast tests, in a good minute: what to run while working
# make test   lint and the test suite: six minutes of tests on two Zen 3 cores
# make thorough  the rest: all kills, fuzzing, a Ray cluster, more of Keras's networks; on a quiet machine
# make fuzz   changes real files at random and reads them: decode, store, model, csv, SECONDS=600 each;
#             then kills extraction a hundred times at random moments
# make screenshots  the demo, then the README's pictures of its pages
# make docs   sets up, then makes docs/_build/index.html of docs/; a warning or a broken link is an error
# make setup  only sets up: .venv from requirements.txt, what a user needs
PYTHON ?= python3
READY := .venv/.ready
APP_READY := .venv/.ready-app
TEST_READY := .venv/.ready-test
DOCS_READY := .venv/.ready-docs
# Two processes, whatever the machine: each runs programs that use all cores. In the order of tests/conftest.py:
# what takes much memory comes before the processes have grown.
PYTEST := .venv/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: app demo docs dogs fuzz screenshots check test thorough lint setup clean
demo: $(READY)
	@.venv/bin/python -m breeds.sample.demo $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")

app: $(APP_READY)
	@.venv/bin/python -m breeds.app

dogs: $(READY)
	@.venv/bin/python -m breeds.sample.demo --dogs

docs: $(DOCS_READY)
	@.venv/bin/python -m sphinx --quiet --nitpicky --fail-on-warning --builder html docs docs/_build
	@.venv/bin/python docs/check.py docs/_build

screenshots: $(TEST_READY) demo
	@.venv/bin/python docs/screenshots.py

check: lint
	$(PYTEST) -m "not slow and not thorough"

test: lint
	$(PYTEST) -m "not thorough"

thorough: lint
	$(PYTEST) -m thorough

SECONDS ?= 600
fuzz: $(TEST_READY)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris || \
		echo "There is no atheris for this Python; Hypothesis changes the files, and sees less."
	for target in decode store model csv; do .venv/bin/python tests/fuzz.py $$target $(SECONDS) || exit 1; done
	KILLS=100 .venv/bin/python -m pytest -n 1 -k killed_at_random tests/hostile/test_faults.py

lint: $(APP_READY) $(DOCS_READY) $(TEST_READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	for version in 3.11 3.12 3.13; do .venv/bin/mypy --python-version $$version || exit 1; done
	.venv/bin/python tests/lint/check.py

setup: $(READY)

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Breeds needs Python 3.11, 3.12 or 3.13 (TensorFlow has no other); name one: make PYTHON=python3.11"; exit 2; }
	@echo "Setting up .venv (once; TensorFlow is a large download) ..."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

$(APP_READY): $(READY) requirements-app.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	@touch $(APP_READY)

$(TEST_READY): $(READY) requirements-test.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $(TEST_READY)

$(DOCS_READY): $(READY) requirements-docs.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $(DOCS_READY)

clean:
	rm -rf .venv demo dogs fuzz docs/_build
