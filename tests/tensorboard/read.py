"""Reads the event files of a folder with TensorBoard's own reader, and prints what they say as JSON."""

import json
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto import event_pb2  # noqa: F401  (fails here where the package is broken)

ALL = {event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0, event_accumulator.TENSORS: 0}

folder = event_accumulator.EventAccumulator(sys.argv[1], size_guidance=ALL)
folder.Reload()
scalars = {tag: [[e.step, e.value] for e in folder.Scalars(tag)] for tag in folder.Tags()["scalars"]}
histograms = {}
for tag in folder.Tags()["histograms"]:
    newest = folder.Histograms(tag)[-1]
    value = newest.histogram_value
    histograms[tag] = {"step": newest.step, "num": value.num, "sum": value.sum, "buckets": list(value.bucket)}
files = {path: len(list(EventFileLoader(path).Load())) for path in sys.argv[2:]}
print(json.dumps({"scalars": scalars, "histograms": histograms, "files": files}))
