"""Runs an exported graph and compares its logits: run_graph.py onnx|qonnx MODEL IMAGES LOGITS

IMAGES are bytes (N, 3, H, W), LOGITS the floats (N, classes) that are expected. Prints a JSON object."""

import json
import sys

import numpy as np
import onnx


def with_onnxruntime(path, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Without it some processors add pairs of 8-bit products in 16 bits, which saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {"image": images[at : at + 100]})[0] for at in range(0, len(images), 100)]
    return np.concatenate(parts)


def with_qonnx(path, images):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(path)
    return np.concatenate([execute_onnx(model, {"image": picture[None]})["logits"] for picture in images])


runner, path, images, logits = sys.argv[1:]
onnx.checker.check_model(onnx.load(path), full_check=runner == "onnx")
width = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[3].dim_value
images = np.fromfile(images, np.uint8).reshape(-1, 3, width, width)
want = np.fromfile(logits, np.float32).reshape(len(images), -1)
got = {"onnx": with_onnxruntime, "qonnx": with_qonnx}[runner](path, images)
assert got.shape == want.shape and got.dtype == np.float32, (got.shape, got.dtype)
error = np.abs(got - want)
result = {
    "pictures": len(images),
    "same_top1": int((got.argmax(1) == want.argmax(1)).sum()),
    "equal": int((error.max(1) < 1e-4).sum()),
    "worst": float(error.max()),
    "mean": float(error.mean()),
    "largest": float(np.abs(want).max()),
}
print(json.dumps(result))
