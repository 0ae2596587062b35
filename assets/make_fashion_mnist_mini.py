#!/usr/bin/env python3
"""Makes fashion-mnist-mini.bin.gz: 1,200 training and 800 test pictures of Fashion-MNIST, balanced over its 10 classes.

Usage: make_fashion_mnist_mini.py FOLDER [OUTPUT]

FOLDER holds the four published files (train-images-idx3-ubyte.gz and so on), for example
/usr/share/datasets/fashion-mnist of Debian's package dataset-fashion-mnist. OUTPUT is by default
fashion-mnist-mini.bin.gz beside this script. Python's standard library is enough.

The choice is the first 120 (train) and 80 (t10k) pictures of each class, kept in the order of the published files.
The format is described in README.md of this folder. The gzip header carries no name and no time, so the same zlib
gives the same bytes; another zlib may compress differently, but the SHA-256 of the content, printed here and
recorded in README.md, stays the same.
"""

import gzip
import hashlib
import io
import pathlib
import struct
import sys

MAGIC = b"FMMI"
VERSION = 1
CLASSES = 10
SIDE = 28
TRAIN_PER_CLASS = 120
TEST_PER_CLASS = 80


def read_idx(path, dimensions):
    """The sizes and the payload of an idx file of unsigned bytes with that many dimensions."""
    raw = gzip.decompress(path.read_bytes())
    magic, *sizes = struct.unpack_from(f">{1 + dimensions}I", raw)
    if magic != 0x0800 + dimensions:
        sys.exit(f"{path}: idx magic is {magic:#010x}, expected {0x0800 + dimensions:#010x}")
    payload = raw[4 * (1 + dimensions) :]
    expected = 1
    for size in sizes:
        expected *= size
    if len(payload) != expected:
        sys.exit(f"{path}: {len(payload)} bytes of data, expected {expected} for the sizes {sizes}")
    return sizes, payload


def choose(folder, prefix, per_class):
    """Labels and pictures of the first `per_class` records of every class, in file order."""
    (count,), labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
    sizes, pictures = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
    if sizes != [count, SIDE, SIDE]:
        sys.exit(f"{prefix}: pictures have the sizes {sizes}, expected {[count, SIDE, SIDE]}")
    taken = [0] * CLASSES
    chosen_labels, chosen_pictures = bytearray(), bytearray()
    for i, label in enumerate(labels):
        if taken[label] < per_class:
            taken[label] += 1
            chosen_labels.append(label)
            chosen_pictures += pictures[i * SIDE * SIDE : (i + 1) * SIDE * SIDE]
    if taken != [per_class] * CLASSES:
        sys.exit(f"{prefix}: found {taken} pictures per class, expected {per_class} of each")
    return bytes(chosen_labels), bytes(chosen_pictures)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    output = pathlib.Path(__file__).with_name("fashion-mnist-mini.bin.gz")
    if len(sys.argv) == 3:
        output = pathlib.Path(sys.argv[2])
    train_labels, train_pictures = choose(folder, "train", TRAIN_PER_CLASS)
    test_labels, test_pictures = choose(folder, "t10k", TEST_PER_CLASS)
    header = struct.pack("<4sHHHHII", MAGIC, VERSION, CLASSES, SIDE, SIDE, len(train_labels), len(test_labels))
    content = header + train_labels + test_labels + train_pictures + test_pictures
    compressed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=compressed, mtime=0) as stream:
        stream.write(content)
    output.write_bytes(compressed.getvalue())
    print(f"{output}: {len(content)} bytes of content in {len(compressed.getvalue())} bytes")
    print(f"sha256 of the content: {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
