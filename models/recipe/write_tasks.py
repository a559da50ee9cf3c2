"""Writes the task sets: python write_tasks.py FOLDER, one file of JSON lines for each difficulty."""

import json
import math
import random
import sys
from pathlib import Path

import tasks
from tokenizer import Tokenizer

COUNT = 500
SEED = 1
# Levels, and fewest and most steps of each difficulty; of a kind with shorter problems, no more than those have. Steps are
# drawn evenly in their logarithm.
TIERS = {"easy": ((1,), 1, 4), "medium": ((2, 3), 1, 24), "hard": ((3,), 2, 24)}


def steps_between(low, high, rng):
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def items(tier, seen):
    """A task set: as many problems of every kind, in turn, and none whose content was seen before."""
    rng = random.Random(f"test {tier} {SEED}")
    found = []
    while len(found) < COUNT:
        kind = tasks.KINDS[len(found) % len(tasks.KINDS)]
        levels, low, high = TIERS[tier]
        steps = steps_between(low, min(high, tasks.STEPS_MAX[kind]), rng)
        problem = tasks.draw(kind, steps, rng.choice(levels), rng)
        content = (kind, problem.content)
        if problem.split() == "test" and content not in seen:
            seen.add(content)
            found.append(problem)
    return found


def check(problem, tokenizer):
    """Answers are cut to budgets by counting symbols, and trained on tokens: both must be the same number."""
    for stride in tasks.STRIDES:
        counted = len(tokenizer.encode(tasks.completion(problem, stride))) + 1
        if counted != tasks.tokens(problem, stride):
            raise SystemExit(f"{counted} tokens, counted as {tasks.tokens(problem, stride)}: {problem.question}")


def main(folder):
    seen, tokenizer = set(), Tokenizer()
    for tier in TIERS:
        lines = []
        for number, problem in enumerate(items(tier, seen)):
            check(problem, tokenizer)
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
