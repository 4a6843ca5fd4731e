# What a contributor runs. `make run` needs a Rust toolchain and a C compiler; `make test` also Python 3.11 and Node 20.

.DEFAULT_GOAL := help
.PHONY: help run test bench compare dist lint fmt docs chart

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## vecho on port 7861 with made-up vectors: no key, no network after the build; ARGS="--listen 127.0.0.1:8080" adds flags
	@cargo build --locked --release
	@echo
	@echo "vecho will listen on http://127.0.0.1:7861, its ops port on http://127.0.0.1:7862. Try, twice:"
	@echo
	@echo "  curl -i http://127.0.0.1:7861/v1/embeddings -H 'content-type: application/json' \\"
	@echo "    -d '{\"model\":\"text-embedding-3-small\",\"dimensions\":8,\"input\":[\"hello\",\"world\"]}'"
	@echo
	@echo "or with Python, after \`pip install openai\`; Ctrl-C ends vecho:"
	@echo
	@echo "  OPENAI_BASE_URL=http://127.0.0.1:7861/v1 OPENAI_API_KEY=any python3 -c 'import openai;" \
		"print(openai.OpenAI().embeddings.create(model=\"text-embedding-3-small\", input=\"hello\").usage)'"
	@echo
	@exec cargo run --locked --release --quiet -- --upstream mock: --set disk.enabled=false $(ARGS)

test: ## everything that must hold: formatting, lints, documentation, tests
	@bash scripts/test

bench: ## the load scenarios, against reference servers
	@cargo bench --locked --profile dist --bench load

compare: ## vecho beside nginx, Varnish, LiteLLM and Portkey's gateway, which it installs first; ARGS="--quick" is a short run
	@bash scripts/setup-compare
	@cargo bench --locked --profile dist --bench compare -- $(ARGS)

dist: ## the packages of a release, in target/dist-packages; BINARY=path packs a program that is built already
	@bash scripts/dist

lint: ## formatting, lints and documentation, without the tests
	@bash scripts/lint

fmt: ## formats the code
	@cargo fmt

chart: ## the chart's schema and table of values, from config/vecho.toml and values.yaml
	@test -x target/test-env/chart/bin/python || { echo "this needs scripts/setup-tests to have run first" >&2; exit 1; }
	@target/test-env/chart/bin/python scripts/chart

docs: ## the crate's documentation, in target/doc
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
