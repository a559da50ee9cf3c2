"""Writes the task sets: python write_tasks.py FOLDER, one file of JSON lines for each difficulty."""

import json
import math
import random
import sys
from pathlib import Path

import tasks

COUNT = 500
SEED = 1
# Level, and fewest and most steps of each difficulty, by kind. Steps are drawn evenly in their logarithm.
TIERS = {
    "easy": {"sum": (1, 1, 4), "story": (1, 1, 4), "list": (1, 1, 4), "hop": (1, 1, 4)},
    "medium": {"sum": (2, 2, 24), "story": (2, 2, 20), "list": (2, 2, 20), "hop": (2, 2, 24)},
    "hard": {"sum": (3, 3, 24), "story": (3, 3, 20), "list": (3, 3, 20), "hop": (3, 3, 24)},
}


def steps_between(low, high, rng):
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def items(tier, seen):
    """A task set: as many problems of every kind, in turn, and none that was seen before."""
    rng = random.Random(f"test {tier} {SEED}")
    found = []
    while len(found) < COUNT:
        kind = tasks.KINDS[len(found) % len(tasks.KINDS)]
        level, low, high = TIERS[tier][kind]
        problem = tasks.draw(kind, steps_between(low, high, rng), level, rng)
        if problem.split() == "test" and problem.question not in seen:
            seen.add(problem.question)
            found.append(problem)
    return found


def main(folder):
    seen = set()
    for tier in TIERS:
        lines = []
        for number, problem in enumerate(items(tier, seen)):
            item = dict(
                id=f"{tier}-{number:03}",
                kind=problem.kind,
                difficulty=tier,
                steps=len(problem.states),
                question=problem.question,
                answer=problem.answer,
            )
            lines.append(json.dumps(item, separators=(",", ":")))
        Path(folder, f"{tier}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
