# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv and outputs/.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-torture example tutorials bench torture clean

demo: $(VENV)/.ready ## train the quickstart sweep on real digits and show its result
	$(RUN) -m sweep +ablation=quickstart
	$(RUN) -m analysis table outputs/quickstart --rows adapter.rank --columns adapter.init
	$(RUN) -m analysis report outputs/quickstart

test: $(VENV)/.ready-dev ## lint, type check, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTEST) -m "not torture"

test-torture: $(VENV)/.ready-dev ## the other tests: processes, nodes and servers are killed, clusters started
	$(PYTEST) -m torture

example: $(VENV)/.ready-dev ## install examples/plugin, test it, and sweep its init against kaiming and pissa
	$(RUN) -m pip install --quiet --no-deps --upgrade --target outputs/.example examples/plugin
	PYTHONPATH=outputs/.example $(RUN) -m pytest examples/plugin
	PYTHONPATH=outputs/.example $(RUN) -m sweep plugins
	PYTHONPATH=outputs/.example $(RUN) -m sweep -m task=example_task name=example adapter.rank=2 adapter.init=kaiming,pissa,example_init seed=0,1,2
	$(RUN) -m analysis table outputs/example --rows adapter.init
	$(RUN) -m analysis table outputs/example --rows adapter.init --metric eval/stable_rank

# Without a network: make tutorials DIGITS="task.data=embedded task.pretraining.steps=400"
tutorials: tutorial-toy tutorial-mnist tutorial-merge tutorial-attention tutorial-llama ## five tutorials, each claim beside what is measured

tutorial-%: $(VENV)/.ready
	$(RUN) -m sweep +ablation=tutorial_$* $(if $(filter mnist,$*),$(DIGITS))
	$(RUN) -m sweep.tutorials $*

bench: $(VENV)/.ready-dev ## print speed ratios against a careful one-by-one peer
	$(RUN) benchmarks/sweeps.py --quick

torture: $(VENV)/.ready-dev ## kill sweeps, break what they depend on, and print what was observed (docs/reliability.md)
	$(RUN) -m tests.support.torture

clean: ## remove the environment and everything that was trained
	rm -rf $(VENV) outputs/* outputs/.cache

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
