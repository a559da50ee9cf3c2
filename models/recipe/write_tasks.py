"""Writes the task sets: python write_tasks.py FOLDER, one file of JSON lines for each difficulty."""

import json
import sys
from pathlib import Path

import tasks

COUNT = 500
SEED = 1


def main(folder):
    for tier in tasks.TIERS:
        lines = []
        for number, problem in enumerate(tasks.items("test", tier, COUNT, SEED)):
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
