#!/bin/sh
# A Python that has the real TensorBoard, for tests/tensorboard.rs; prints its path. It lies in target/ and is made once.
set -eu
cd "$(dirname "$0")/.."
folder=${CARGO_TARGET_DIR:-target}/python
python=$folder/bin/python
if ! "$python" -c 'import tensorboard' 2>/dev/null; then
	if ! python3 -c 'import ensurepip' 2>/dev/null; then
		sudo=$(command -v sudo || true)
		$sudo apt-get update >&2 && $sudo apt-get install -y python3-venv >&2
	fi
	python3 -m venv --clear "$folder" >&2
	"$python" -m pip install --quiet --disable-pip-version-check 'tensorboard==2.21.*' >&2
fi
case $python in /*) echo "$python" ;; *) echo "$PWD/$python" ;; esac
