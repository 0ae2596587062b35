"""Times an exported graph (--format onnx) in onnxruntime: onnx_graph.py MODEL [BATCH [THREADS]]

Beside it, the same network in float (quantizers taken out, weights as floats), and the quantized one with biases inside the convolutions,
which onnxruntime then runs in 8 bits with biases rounded to whole accumulators. Milliseconds a batch, median of five."""

import statistics
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def rewire(graph, replaced):
    """Reads go to what replaces a name."""
    for node in graph.node:
        for at, name in enumerate(node.input):
            while name in replaced:
                name = replaced[name]
            node.input[at] = name


def in_float(model):
    values, graph, replaced, kept = constants(model), model.graph, {}, []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            codes, scale = values[node.input[0]], values[node.input[1]]
            weights = codes * scale.reshape(-1, *[1] * (codes.ndim - 1))
            graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
        elif node.op_type == "DequantizeLinear" and node.output[0] == "input":
            node.op_type = "Cast"
            del node.input[1:]
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
            kept.append(node)
        elif node.op_type in ("QuantizeLinear", "Clip", "DequantizeLinear"):
            replaced[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    rewire(graph, replaced)
    return model


def with_biases_inside(model):
    values, graph, replaced = constants(model), model.graph, {}
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    for node in list(graph.node):
        if node.op_type == "Add" and node.input[0] in convolutions and node.input[1] in values:
            flat = f"{node.input[1]}.flat"
            graph.initializer.append(numpy_helper.from_array(values[node.input[1]].reshape(-1), flat))
            convolutions[node.input[0]].input.append(flat)
            replaced[node.output[0]] = node.input[0]
            graph.node.remove(node)
    rewire(graph, replaced)
    return model


def milliseconds(model, images, threads):
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, {"image": images})
    run()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


path, batch, threads = sys.argv[1], *(int(n) for n in (sys.argv[2:] + ["64", "2"][len(sys.argv) - 2 :]))
images = np.random.default_rng(0).integers(0, 256, (batch, 3, 32, 32), np.uint8)
print(f"onnxruntime {onnxruntime.__version__}, batch {batch}, {threads} threads, milliseconds a batch")
for name, change in [
    ("quantized, as exported", lambda model: model),
    ("quantized, biases inside", with_biases_inside),
    ("float", in_float),
]:
    print(f"{name:26} {milliseconds(change(onnx.load(path)), images, threads):8.2f}")
