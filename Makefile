# One way to run everything. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OUT ?= demo-out
# Each has all tests of a file; what they wait for is mostly servers.
TEST_PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: autoscale scale help demo test check format audit mutants bench load chaos proof repairs screenshots soak tiny-model clean

help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@echo "Setting up .venv: PyTorch, Ray, diffusers and the embedded servers (a few minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local,dev]'
	@touch $(READY)
	@echo "Set up."

demo: $(READY) ## render 64 pictures of 16 prompts on two Ray actors into demo-out/
	@test "$(OUT)" != demo-out || rm -rf demo-out
	@$(BIN)/fewstep render examples/prompts.txt --out $(OUT) --repeats 4 --seed 7 --renderers 2 --name demo
	@echo "Your own prompts, in a browser: $(BIN)/fewstep up, then open http://127.0.0.1:8700"

test: $(READY) ## every test, against real Redis, S3, Ray and weights
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, format, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## write the code as the formatter wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

scale: $(READY) ## the queue and the scheduler under 1,000 simulated renderers (PARTS=cycles,loop; QUICK=1)
	@$(BIN)/python -m benchmarks.scale $(if $(PARTS),--parts $(PARTS)) $(if $(QUICK),--quick)

mutants: $(READY) ## take each guard out of the queue's script: some test must fail (half an hour)
	@$(BIN)/python -m tests.mutants

repairs: $(READY) ## a hundred sequences of retries, extensions, drops and undos: what is left must agree (five minutes)
	@FEWSTEP_TEST_SEQUENCES=100 $(BIN)/python -m pytest -q tests/jobs/test_drop.py -k sequence

proof: $(READY) ## 20,000 pictures through filters, faults, an extension and a retry, into docs/dataset-proof.md (ten minutes)
	@$(BIN)/python -m tests.proof

audit: $(READY) ## list what is installed (build/sbom.json) and ask what is known against it
	@$(BIN)/python .ci/audit.py

bench: $(READY) ## fewstep beside its peers on this machine (ROWS=codecs,engine; QUICK=1)
	@$(BIN)/python -m benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick)

load: $(READY) ## 50 clients, 200 event streams and a file of a million rows against one API (five minutes)
	@$(BIN)/python -m benchmarks.load

chaos: $(READY) ## strike every fault, and write docs/fault-table.md (twenty minutes; as root, with redis-server, nftables, libfaketime, iproute2)
	@$(BIN)/python -m tests.chaos --jobs 2

autoscale: $(READY) ## nodes from none to many and back by Ray's own autoscaler, into docs/scale.md (ten minutes; as root, with iproute2)
	@$(BIN)/python -m tests.autoscaler

screenshots: $(READY) ## every page of a real stack into docs/images/page-*.png (two minutes; wants chromium)
	@$(BIN)/python -m tests.browser.screenshots

soak: $(READY) ## jobs and faults at random for MINUTES=30 (SEED=n plans the same again)
	@$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

tiny-model: $(READY) ## make the embedded model and its adapters again, from nothing (hours)
	@$(BIN)/python -m workers.tiny all

clean: ## remove what was built and rendered here
	rm -rf .venv demo-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
