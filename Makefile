# softlabels: every command that a person or CI needs. `make help` lists them.
#
#   make train-student ARGS="--temperature=8 --alpha=0.9"
#   make teacher-logits CONFIG=my.yaml STORE=stores/mine
#   make mnist SOURCE=./mnist          from a local folder instead of the hub

PYTHON ?= python3
CONFIG ?= digits
STORE  ?= stores/$(basename $(notdir $(CONFIG)))
ARGS   ?=
SOURCE ?=

BIN := .venv/bin
SOFTLABELS := $(BIN)/softlabels
FROM := $(if $(SOURCE),--transfer_set.$(if $(filter detect letter% graph%,$(CONFIG)),factory.init_args.)source=$(SOURCE))
# The root of a finished store holds one of these; teacher-logits finishes an unfinished one.
STORE_IS_THERE := $(wildcard $(STORE)/manifest.json $(STORE)/zarr.json $(STORE)/dataset_dict.json)

# Tests start hundreds of processes: compile each file once, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help mnist ag-news lm speech speech-take speech-frames train-student teacher-logits plan train-teacher install dev lint format types test slow faults ray lightning wandb bench bench-peers docs check clean detect clone diffuse graph graph-inductive chunker letter forest prune edge
.DEFAULT_GOAL := help

help: ## list the targets
	@echo "make TARGET [CONFIG=digits] [STORE=stores/digits] [SOURCE=./data] [ARGS='--key=value ...'] [PYTHON=python3]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

train-student: install $(if $(STORE_IS_THERE),,teacher-logits) ## train students from STORE, and make STORE first where it is not there
	$(SOFTLABELS) train-student --config=$(CONFIG) --store=$(STORE) $(FROM) $(ARGS)

teacher-logits: train-teacher ## run the teacher of CONFIG over its transfer set and write STORE
	$(SOFTLABELS) teacher-logits --config=$(CONFIG) --store=$(STORE) $(FROM) $(if $(filter teacher-logits,$(MAKECMDGOALS)),$(ARGS))

plan: train-teacher ## go or no-go: a pilot of the teacher of CONFIG says what its pass would take and give
	$(SOFTLABELS) plan --config=$(CONFIG) --store=$(STORE) $(FROM) $(if $(filter plan,$(MAKECMDGOALS)),$(ARGS))

train-teacher: install ## train those teachers of CONFIG whose weights are not there yet
	$(SOFTLABELS) train-teacher --config=$(CONFIG) $(FROM) $(if $(filter train-teacher,$(MAKECMDGOALS)),$(ARGS))

mnist: install ## MNIST as in Hinton et al. 2015, from the hub or SOURCE: one and a half hours of one core
	$(MAKE) train-student CONFIG=mnist

ag-news: .venv/hf ## news topics with transformers, from the hub or SOURCE: about five minutes of one core
	$(MAKE) train-student CONFIG=ag_news

lm: .venv/hf ## language models on WikiText-2, from the hub or SOURCE: half an hour of one core for the teacher alone
	$(MAKE) train-student CONFIG=lm

speech: .venv/audio ## spoken digits, clip by clip, from the folder SOURCE: two minutes of one core
	$(MAKE) train-student CONFIG=speech

speech-take: .venv/audio ## the same, judged by other takes of the same speakers
	$(MAKE) train-student CONFIG=speech_take

speech-frames: .venv/audio ## the same as speech, frame by frame, with its teachers
	$(SOFTLABELS) train-teacher --config=speech $(FROM)
	$(MAKE) train-student CONFIG=speech_frames FROM=$(if $(SOURCE),--transfer_set.factory.init_args.source=$(SOURCE))

forest: .venv/tables ## digits with wrong labels, by forests that did not see them, and by those that did: two minutes of one core
	$(MAKE) train-student CONFIG=forest ARGS="--out=runs/forest"
	$(SOFTLABELS) teacher-logits --config=forest --store=stores/forest_inside --teacher.folds=null
	$(SOFTLABELS) train-student --config=forest --store=stores/forest_inside --temperature=2 --baseline=false --out=runs/forest_inside
	$(SOFTLABELS) train-student --config=forest --store=stores/forest --members=2 --baseline=false --out=runs/near
	$(SOFTLABELS) train-student --config=forest --store=stores/forest_inside --members=2 --baseline=false --out=runs/near_inside
	$(BIN)/python -m benchmarks.forest runs/forest runs/forest_inside runs/near runs/near_inside

detect: install ## blood cells in images, a class and a box each, from the hub or SOURCE: about five minutes of one core
	$(MAKE) train-student CONFIG=detect
	$(BIN)/python -m softlabels.recipes.detect_score $$(ls -td runs/detect-* | head -n 1)

clone: install ## a controller of a simulated pendulum, cloned from its stored actions: two minutes of one core
	$(MAKE) train-student CONFIG=clone ARGS="--out=runs/clone"
	$(BIN)/python -m benchmarks.clone runs/clone

diffuse: install ## one-step students of diffusion samplers, and progressive halving: six minutes of one core
	$(MAKE) train-student CONFIG=diffuse_2d ARGS="--out=runs/diffuse_2d"
	$(BIN)/python -m benchmarks.diffuse --run=runs/diffuse_2d
	$(SOFTLABELS) train-teacher --config=denoise
	$(MAKE) train-student CONFIG=diffuse ARGS="--out=runs/diffuse"
	$(BIN)/python -m benchmarks.diffuse --run=runs/diffuse --halve=runs/halved

prune: install ## Optimal Brain Damage: 5,000 digits of MNIST, from the hub or SOURCE: fifteen minutes of one core
	$(MAKE) train-student CONFIG=prune ARGS="--out=runs/prune"
	$(SOFTLABELS) prune runs/prune --keep=0.16 --epochs=5 --out=runs/prune-saliency
	$(SOFTLABELS) prune runs/prune --keep=0.16 --epochs=5 --rule=magnitude --out=runs/prune-magnitude
	$(SOFTLABELS) prune runs/prune --keep=0.9996 --epochs=5 --out=runs/prune-whole
	$(MAKE) train-student CONFIG=prune ARGS="--student.class_path=softlabels.models.MLP --student.init_args.inputs=784 --student.init_args.hidden=[100,100] --student.init_args.classes=10 --optimizer.init_args.lr=3e-3 --scheduler.init_args.max_lr=3e-3 --out=runs/prune-mlp"
	$(SOFTLABELS) prune runs/prune-mlp --keep=0.4 --rounds=2 --epochs=5 --saliency_rows=200 --out=runs/prune-mlp-saliency
	$(SOFTLABELS) prune runs/prune-mlp --keep=0.9999 --rounds=2 --epochs=5 --saliency_rows=20 --out=runs/prune-mlp-whole

edge: .venv/export ## ONNX of the digits' student in 32 and in eight bits, measured beside its teacher
	$(MAKE) train-student ARGS="--out=runs/digits"
	$(SOFTLABELS) export runs/digits/distilled-seed0 --formats=onnx,int8 --latency --against_teacher=digits $(ARGS)

letter: .venv/tables ## one network for an ensemble, by pseudo-data, from the folder SOURCE: under twenty minutes of one core
	$(MAKE) train-student CONFIG=letter ARGS="--out=runs/letter"
	$(SOFTLABELS) train-student --config=letter --store=stores/letter --loss=logit_mse --epochs=100 --out=runs/letter-logits
	$(MAKE) train-student CONFIG=letter_p2 ARGS="--out=runs/letter_p2"
	$(SOFTLABELS) train-student --config=letter_p2 --store=stores/letter_p2 --loss=logit_mse --epochs=100 --out=runs/letter_p2-logits
	$(BIN)/python -m benchmarks.letter runs/letter runs/letter-logits runs/letter_p2 runs/letter_p2-logits

graph: install ## papers of a citation graph by their own words, from the folder SOURCE: three minutes of one core
	$(MAKE) train-student CONFIG=graph

graph-inductive: install ## the same, judged by papers that nobody has seen
	$(MAKE) train-student CONFIG=graph_inductive

chunker: install ## a recurrent network taught a chunker's states, over gaps of 52 steps and more: four minutes of one core
	$(MAKE) train-student CONFIG=chunker ARGS="--out=runs/chunker"
	$(BIN)/python -m benchmarks.chunker runs/chunker

install: .venv/installed ## set up .venv with what running takes

dev: .venv/dev ## set up .venv with what tests and checks take as well

.venv/installed: pyproject.toml constraints.txt
	@echo "setting up .venv: the first time this fetches some packages and takes a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report]'
	@touch $@

.venv/hf .venv/audio .venv/tables .venv/export: .venv/%: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report,$*]'
	@touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/hf .venv/audio .venv/tables .venv/export

lint: dev ## ruff: mistakes, import order, layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: dev ## let ruff lay out the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: dev ## mypy --strict over library, commands and benchmarks
	$(BIN)/mypy -n 2

test: dev ## the tests, those of the documentation among them, but for slow ones; ARGS go to pytest
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow" $(ARGS)

slow: dev ## the tests marked slow: the same trials, many more times, with new random numbers
	$(BIN)/python -m pytest -n 2 -m slow --rng-seed=fresh $(ARGS)

faults: dev ## the fault campaign in full, as root on Linux; writes the table of docs/reliability.md
	$(BIN)/python -m tests.faults --output docs/reliability.md $(ARGS)

ray: dev ## the tests of --engine=ray, in an environment of their own, which takes 280 MB; as root on Linux also with a network cut
	$(PYTHON) -m venv .venv/ray
	printf '%s\n' $(CURDIR)/pipeline $(CURDIR)/stages "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > "$$(.venv/ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	.venv/ray/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'ray[data]>=2.50'
	.venv/ray/bin/python -m pytest -n 0 tests/jobs/test_on_ray.py tests/jobs/test_ray_cut_off.py $(ARGS)

lightning: dev ## the example of docs/loops.md for Lightning, in an environment of its own
	$(PYTHON) -m venv .venv/lightning
	printf '%s\n' $(CURDIR)/pipeline $(CURDIR)/stages "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > "$$(.venv/lightning/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	.venv/lightning/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'lightning>=2.5'
	.venv/lightning/bin/python -m pytest -n 0 tests/docs/test_loops.py -k lightning -m slow $(ARGS)

wandb: dev ## the tracker of docs/training.md, in an environment of its own
	$(PYTHON) -m venv .venv/wandb
	printf '%s\n' $(CURDIR)/pipeline $(CURDIR)/stages "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > "$$(.venv/wandb/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	.venv/wandb/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'wandb>=0.20'
	.venv/wandb/bin/python -m pytest -n 0 tests/docs/test_trackers.py -m slow $(ARGS)

bench-peers: dev ## an environment of its own for each peer of the benchmarks, under .venv/peers; what does not install is named
	$(BIN)/python -m benchmarks.peers.environments $(ARGS)

bench: dev ## readers, resuming, writing, offline against online, beside their peers: pages in benchmarks/results, pictures in docs
	$(BIN)/python -m benchmarks.loader --output=benchmarks/results/loader.md $(ARGS)
	$(BIN)/python -m benchmarks.loops --output=benchmarks/results/loops.md
	$(BIN)/python -m benchmarks.resume --output=benchmarks/results/resume.md
	$(BIN)/python -m benchmarks.write_path --output=benchmarks/results/write_path.md
	$(BIN)/python -m benchmarks.offline_online --output=benchmarks/results/offline_online.md
	$(BIN)/python -m benchmarks.performance

docs: dev ## the documentation as a site, with docstrings and the tutorial's cells run: build/site/index.html
	$(BIN)/python -m sphinx -b html -E -W --keep-going -n -q -c docs -d build/doctrees -D nb_execution_mode=force . build/site
	@echo "$(CURDIR)/build/site/index.html"

check: lint types test ## lint, types and test: what CI runs

clean: ## remove caches (never stores/ or runs/: they hold work)
	rm -rf build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find pipeline stages tests benchmarks data -name __pycache__ -type d -prune -exec rm -rf {} +
