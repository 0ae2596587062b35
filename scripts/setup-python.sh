#!/bin/sh
# A Python with the packages that some tests need; prints its path. It lies in target/ and is made once.
#   scripts/setup-python.sh           the real TensorBoard, for tests/tensorboard.rs
#   scripts/setup-python.sh exports   ONNX, QONNX, safetensors and torch, for tests/exports.rs
set -eu
cd "$(dirname "$0")/.."
sudo=$(command -v sudo || true)
system=python3
options=
case ${1:-} in
'')
	folder=${CARGO_TARGET_DIR:-target}/python
	modules=tensorboard
	packages='tensorboard==2.21.*'
	;;
exports)
	folder=${CARGO_TARGET_DIR:-target}/python-exports
	modules='onnx, onnxruntime, qonnx, safetensors, torch'
	packages='onnx==1.23.* onnxruntime==1.32.* qonnx==1.0.* safetensors==0.8.*'
	;;
*)
	echo "usage: $0 [exports]" >&2
	exit 2
	;;
esac
python=$folder/bin/python
if ! "$python" -c "import $modules" >/dev/null 2>&1; then
	if [ "${1:-}" = exports ]; then
		# Debian's torch is a twentieth of the download of PyPI's, which brings CUDA. It wants the numpy that it was built with.
		if command -v apt-get >/dev/null && [ -x /usr/bin/python3 ]; then
			if ! /usr/bin/python3 -c 'import torch, ensurepip' 2>/dev/null; then
				$sudo apt-get update >&2 && $sudo apt-get install -y --no-install-recommends python3-torch python3-venv >&2
			fi
			system=/usr/bin/python3
			options=--system-site-packages
			packages="$packages numpy==$("$system" -c 'import numpy; print(numpy.__version__.split(".")[0])').*"
		else
			packages="$packages torch==2.*"
		fi
	fi
	if ! "$system" -c 'import ensurepip' 2>/dev/null; then
		$sudo apt-get update >&2 && $sudo apt-get install -y python3-venv >&2
	fi
	"$system" -m venv --clear $options "$folder" >&2
	# shellcheck disable=SC2086 # several packages
	"$python" -m pip install --quiet --disable-pip-version-check $packages >&2
	"$python" -c "import $modules" >&2
fi
case $python in /*) echo "$python" ;; *) echo "$PWD/$python" ;; esac
