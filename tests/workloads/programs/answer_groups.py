"""Answers groups of generated prompts in the order asked for; prints for each group its answers and
a digest of every logit that led to them, which shows also what argmax forgives.

    answer_groups.py FOLDER_OF_WORKLOADS CACHE GROUP...
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any


def answer_groups(engine: Any, groups: Iterable[int]) -> dict[str, Any]:
    """Group number -> [digest of the logits, texts and tokens]."""
    from mlperf.prompts import generate_prompt

    found = {}
    steps = engine.engine._steps
    choose = steps._choose
    for group in groups:
        digest = hashlib.sha256()

        def note(logits: Any, slots: Any, digest: Any = digest, **how: Any) -> Any:
            digest.update(logits.float().cpu().numpy().tobytes())
            return choose(logits, slots, **how)

        steps._choose = note
        prompts = [generate_prompt(index, seed=0, words=48) for index in range(group, group + 4)]
        answers = [[answer.text, list(answer.tokens)] for answer in engine.generate(prompts)]
        found[str(group)] = [digest.hexdigest(), answers]
    steps._choose = choose
    return found


def main() -> None:
    """As a process of its own, that sets torch up as a rank does."""
    sys.path.append(sys.argv[1])  # the folder of the workloads and the kit
    import orchestrate_kit as kit
    from mlperf.parameters import Parameters
    from mlperf.serving_engine import ServingEngine

    engine = ServingEngine(kit.parse(Parameters, [f"--cache-dir={sys.argv[2]}"]), 0)
    sys.stdout.write(json.dumps(answer_groups(engine, map(int, sys.argv[3:]))))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
