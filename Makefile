# Every target makes what it needs; only Python 3.11+, make and git have to be there.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: test browser check slow demo up format clean

test: $(READY) browser    ## all tests but the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS) \
		|| { echo "Some tests take times: what failed beside others must pass alone."; \
			$(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

# The journeys run in a real browser; a run without one would pass for the wrong reason.
browser:
	@command -v chromium >/dev/null \
		|| (apt-get update && apt-get install -y chromium) >/dev/null 2>&1 \
		|| { echo "The tests need the program chromium and could not install it; as root: apt-get install chromium"; exit 1; }

slow: $(READY)            ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

demo: $(READY)            ## everything started, the sample compressed with several recipes; ARGS=--exit ends then
	$(BIN)/paredown demo $(ARGS)

up: $(READY)              ## dashboard, worker and broker; Ctrl-C ends them
	$(BIN)/paredown up $(ARGS)

check: $(READY)           ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .paredown

# pip, not uv: the project promises to need nothing that Python does not bring along.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $(READY)
