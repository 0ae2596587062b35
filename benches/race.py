#!/usr/bin/env python3
"""Race the training step of `cqat` against other programs: all in turn, several rounds, medians and ratios.

    benches/race.py --rounds 3 --width 16,64 --batch 32 \\
        "cqat=target/release/cqat bench cqat --set network.width={width} --set train.batch={batch} --steps 3 --json" \\
        "torch fake-quant=python3 bench.py --width {width} --batch {batch} --mode fq --cl"

A competitor is NAME=COMMAND. Its command prints a JSON object with `images_per_second`, or a line `NAME METRIC VALUE images/s`. The
first competitor is the one that the others are compared with. A program that fails ends the race.
"""
import argparse
import json
import shlex
import statistics
import subprocess
import sys


def images_per_second(output):
    """The speed in what a program printed."""
    for line in output.splitlines():
        if line.startswith("{"):
            return json.loads(line)["images_per_second"]
        words = line.split()
        if "images/s" in words:
            return float(words[words.index("images/s") - 1])
    raise ValueError("no line with images/s")


def run(name, command):
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    try:
        if done.returncode != 0:
            raise ValueError(f"exit code {done.returncode}")
        return images_per_second(done.stdout)
    except (ValueError, KeyError) as e:
        sys.exit(f"error: {name}: {e}\n{done.stdout}{done.stderr}hint: run it by itself: {command}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--width", type=numbers, default=[16, 64], help="such as 16,64")
    parser.add_argument("--batch", type=numbers, default=[32], help="such as 8,32")
    parser.add_argument("competitors", nargs="+", metavar="NAME=COMMAND")
    a = parser.parse_args()
    if a.rounds < 1 or any("=" not in c for c in a.competitors):
        parser.error("expected --rounds of 1 or more, and competitors as NAME=COMMAND")
    competitors = [c.split("=", 1) for c in a.competitors]
    for width in a.width:
        for batch in a.batch:
            speeds = {name: [] for name, _ in competitors}
            for _ in range(a.rounds):
                for name, command in competitors:
                    speeds[name].append(run(name, command.format(width=width, batch=batch)))
            print(f"width {width}, batch {batch}: images/s, median of {a.rounds} rounds; {competitors[0][0]} over it, median of the rounds' ratios")
            first = speeds[competitors[0][0]]
            for name, values in speeds.items():
                ratio = statistics.median(ours / theirs for ours, theirs in zip(first, values))
                each = ", ".join(f"{v:.1f}" for v in values)
                print(f"  {name:24} {statistics.median(values):8.1f}  ({each})  {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
