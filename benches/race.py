#!/usr/bin/env python3
"""Race the training step of `cqat` against other programs: all in turn, several rounds, medians and ratios.

    benches/race.py --rounds 3 --width 16,64 --batch 32 \\
        "cqat=target/release/cqat bench cqat --set network.width={width} --set train.batch={batch} --steps 3 --json" \\
        "torch fake-quant=python3 bench.py --width {width} --batch {batch} --mode fq --cl"

A competitor is NAME=COMMAND. Its command prints a JSON object with `images_per_second` and perhaps `first_step_seconds`, or lines `NAME METRIC
VALUE UNIT`: one with images/s, perhaps one `first_step`. The first competitor is the one that the others are compared with: it
over them in images/s, they over it in seconds and in memory. A program that fails ends the race.

`--cold` gives every run a home and a shader cache with nothing in them, for the first step's sake.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile


def printed(output):
    """(images/s, seconds to the first step or None) of what a program printed."""
    speed, first = None, None
    for line in output.splitlines():
        if line.startswith("{"):
            result = json.loads(line)
            return result["images_per_second"], result.get("first_step_seconds")
        words = line.split()
        if "images/s" in words and speed is None:
            speed = float(words[words.index("images/s") - 1])
        if "first_step" in words:
            first = float(words[words.index("first_step") + 1])
    if speed is None:
        raise ValueError("no line with images/s")
    return speed, first


def run(name, command, cold):
    """(images/s, seconds to the first step or None, MiB of resident memory at most)."""
    with tempfile.TemporaryDirectory() as empty:
        new = {"HOME": empty, "XDG_CACHE_HOME": f"{empty}/cache", "MESA_SHADER_CACHE_DIR": f"{empty}/mesa"} if cold else {}
        out, err = open(f"{empty}/out", "w+"), open(f"{empty}/err", "w+")
        process = subprocess.Popen(shlex.split(command), stdout=out, stderr=err, env={**os.environ, **new})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output, errors = (f.seek(0) or f.read() for f in (out, err))
    try:
        if process.returncode != 0:
            raise ValueError(f"exit code {process.returncode}")
        return *printed(output), usage.ru_maxrss / 1024
    except (ValueError, KeyError) as e:
        sys.exit(f"error: {name}: {e}\n{output}{errors}hint: run it by itself: {command}")


def table(competitors, results, rounds):
    """Prints what the rounds gave, a list of results a competitor."""
    for what, unit, k, ours_over in [("images/s", "", 0, True), ("first step", " s", 1, False), ("memory", " MiB", 2, False)]:
        if any(r[k] is None for rs in results.values() for r in rs):
            continue
        print(f" {what}, median of {rounds} rounds (each); ratio, median of the rounds'")
        first = [r[k] for r in results[competitors[0][0]]]
        for name, _ in competitors:
            values = [r[k] for r in results[name]]
            ratios = [a / b if ours_over else b / a for a, b in zip(first, values)]
            each = ", ".join(f"{v:.1f}" for v in values)
            print(f"  {name:24} {statistics.median(values):8.1f}{unit}  ({each})  {statistics.median(ratios):.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--width", type=numbers, default=[16, 64], help="such as 16,64")
    parser.add_argument("--batch", type=numbers, default=[32], help="such as 8,32")
    parser.add_argument("--cold", action="store_true", help="with nothing in any cache")
    parser.add_argument("competitors", nargs="+", metavar="NAME=COMMAND")
    a = parser.parse_args()
    if a.rounds < 1 or any("=" not in c for c in a.competitors):
        parser.error("expected --rounds of 1 or more, and competitors as NAME=COMMAND")
    competitors = [c.split("=", 1) for c in a.competitors]
    for width in a.width:
        for batch in a.batch:
            results = {name: [] for name, _ in competitors}
            for _ in range(a.rounds):
                for name, command in competitors:
                    results[name].append(run(name, command.format(width=width, batch=batch), a.cold))
            print(f"width {width}, batch {batch}")
            table(competitors, results, a.rounds)


if __name__ == "__main__":
    main()
