# make demo: pictures of real photographs with their keypoints.  make test: everything CI runs.
# make view: the two sample photographs, matched, in the browser.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo pictures test lint types tests tests-library tests-training test-ray docs view web clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py --output demo-out

test: lint tests

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# Two processes of pytest side by side that take about as long, and mypy beside them. One has all
# tests of training, whose torch shares nothing with the other.
WITH_TRAINING := tests/training tests/evaluation tests/weights tests/hf tests/cli tests/formats tests/export \
	tests/integrations tests/examples tests/service tests/reports tests/tiles
tests: $(VENV)/dev.stamp
	$(MAKE) --jobs=3 --output-sync=target types tests-library tests-training

tests-library: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(WITH_TRAINING:%=--ignore=%)

tests-training: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(WITH_TRAINING)

# Detection on a cluster of two nodes, apart from `test`: Ray takes 240 MB and starts slowly.
test-ray: $(VENV)/dev.stamp
	$(PIP) --editable '.[ray]'
	$(BIN)/python -m pytest tests/batch/test_ray.py

# The pictures of README and docs.
pictures: $(VENV)/dev.stamp
	$(BIN)/python examples/pictures.py

SAMPLES := src/tiepoint/images/samples
view: $(VENV)/view.stamp
	$(BIN)/tiepoint view $(SAMPLES)/coffee_a.jpg $(SAMPLES)/coffee_b.jpg

# The built page of `tiepoint view`, which is part of the repository; needs node and npm.
web: web/node_modules/.package-lock.json
	cd web && npm run --silent check && npm run --silent build

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund

docs: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --strict --site-dir site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("tiepoint needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch --editable '.[dev]'
	touch $@

$(VENV)/view.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[serve]'
	touch $@

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo-out site
