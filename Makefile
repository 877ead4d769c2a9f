# Every recipe is one line: what a person types is what CI runs.
.PHONY: demo cluster test bench release ci fmt

demo: ## see real forecasts change in a database and arrive at an API
	cargo run --quiet -p smartpulse -- demo

cluster: ## three instances on a real Redis, a real Pulsar and a stand-in for SQL Server; gets what it may
	bash pipeline/testing/prepare.sh cargo run --release --quiet -p smartpulse --features full -- dev cluster

test: ## all tests; gets Redis, protoc and Pulsar where it may, and says what it skips
	bash pipeline/testing/prepare.sh cargo test --workspace --features smartpulse/full

bench: ## measure, on one processor; YEAR=<csv.gz> uses the year of real data
	taskset -c 0 cargo bench -p smartpulse-benches

release: ## the binary with everything: target/release/smartpulse
	cargo build --release -p smartpulse --features full

ci: ## what CI runs
	bash .ci/run

fmt: ## format
	cargo fmt --all
