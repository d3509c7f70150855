# make install    a .venv with everything for development
# make demo       the whole game on the bundled players; resumes where a killed one stopped
# make test       the tests, without the slow ones      make lint   style, types, import rules
# make docs       the documentation site, in build/site
# make bench      every benchmark that needs no GPU      make clean  what was built, not .venv and not runs/

PYTHON ?= python3
SEED ?= 0
OUT ?= runs/demo
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test slow lint docs bench clean

install: $(STAMP)

# Plain pip, not a lock file: with the upper bound of torch in pyproject.toml it takes the CPU build on a machine without GPU.
$(STAMP): pyproject.toml arena/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --editable ./arena
	touch $@

demo: install
	@if [ -f "$(OUT)/recipe.yaml" ]; then \
		$(BIN)/sparring run --resume "$(OUT)"; \
	else \
		$(BIN)/sparring run arena --out "$(OUT)" --seed $(SEED); \
	fi
	@echo "Open $(OUT)/report.html in a browser; the figures are in $(OUT)/summary.json."

# One torch thread a worker: more would only fight over the cores.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --durations=10 $(COVERAGE)

slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --durations=25 -v

lint: install
	$(BIN)/ruff check src tests benchmarks arena docs conftest.py
	$(BIN)/ruff format --check src tests benchmarks arena docs conftest.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --clean --strict
	@echo "Open build/site/index.html in a browser."

# gpu.py measures on a GPU, and here only shows that it runs; attack_progress.py trains for hours, seeds.py reads games.
bench: install
	@for script in $$(find benchmarks -name '*.py' ! -name 'gpu*' ! -name '_*' ! -name attack_progress.py ! -name seeds.py | sort); do \
		echo "== $$script"; PYTHONPATH=arena:arena/src $(BIN)/python "$$script" || exit 1; \
	done
	$(BIN)/python benchmarks/gpu.py --tiny

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
