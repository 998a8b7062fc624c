"""Squares the numbers that it is given; where a test wants it, slowly, late or not at all."""

from __future__ import annotations

import argparse
import os
import time

import orchestrate_kit as kit


def main() -> None:
    """Do every group, one sample after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.01)
    parser.add_argument("--slow", default="")
    parser.add_argument("--late", default="")
    parser.add_argument("--models", default="")
    parser.add_argument("--refuse", type=int, default=-1)
    asked = parser.parse_args()
    node = os.environ.get("ORCHESTRATE_NODE", "")
    slower = dict(entry.split("=") for entry in asked.slow.split(",") if entry)
    late = dict(entry.split("=") for entry in asked.late.split(",") if entry)
    model = dict(entry.split("=") for entry in asked.models.split(",") if entry).get(node, "")
    time.sleep(float(late.get(node, "0")))
    pause_s = asked.pause * float(slower.get(node, "1"))
    for group in kit.groups(asked.samples, asked.batch, asked.dataset, model):
        for sample in group:
            time.sleep(pause_s)
            if sample.index == asked.refuse:
                kit.fail(sample, "it was to be refused")
                continue
            number = sample.index if sample.data is None else sample.data
            square = number * number
            kit.complete(sample, {"square": square}, pause_s, digits=len(str(square)))


if __name__ == "__main__":
    main()
