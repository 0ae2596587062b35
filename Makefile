# Two commands: `make demo` shows the program, `make test` proves it. Both install a Vulkan device where there is none.
.PHONY: demo test test-without-gpu test-exports setup

# Drivers look for a desktop session and complain where there is none.
export XDG_RUNTIME_DIR ?= /tmp

# A driver may be installed and still find no device.
demo: setup
	cargo build --release --locked
	cargo run --release --locked --quiet -- devices >/dev/null 2>&1 || scripts/setup-vulkan.sh --software
	cargo run --release --locked --quiet -- demo

# The tests run on the software adapter, wherever they run; CQAT_TEST_DEVICE=gpu runs them on a real one.
test:
	scripts/setup-vulkan.sh --software
	python=$$(scripts/setup-python.sh) && CQAT_PYTHON=$$python CQAT_REQUIRE_PYTHON=1 cargo test --locked

# Those of them that need no device.
test-without-gpu:
	cargo test --locked --lib --test batches --test config --test cost --test data --test data_forms --test fetch --test formulas --test gradcheck \
		--test fuzz_seeds --test integer --test learned_scales --test methods --test planner --test quantizer --test shaders -- --skip this_adapter
	cargo test --locked --test pictures broken::

# Exports, opened by the tools that they are for, which this installs.
test-exports:
	scripts/setup-vulkan.sh --software
	scripts/setup-hdl.sh
	python=$$(scripts/setup-python.sh exports) && CQAT_PYTHON=$$python cargo test --locked --test exports -- --ignored

setup:
	scripts/setup-vulkan.sh
