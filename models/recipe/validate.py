"""How good a trained model is on validation problems, by kind, level, steps and budget: what the difficulties are set by.

    python validate.py MODEL.pt [PROBLEMS]
"""

import itertools
import random
import sys

import torch

import tasks
from tokenizer import END, Tokenizer
from train import load

STEPS = (1, 2, 4, 8, 16, 20, 24)
BUDGETS = (12, 16, 32, 64, 128, 256)


def problems(kind, level, steps, count):
    rng = random.Random(f"validate {kind} {level} {steps}")
    found = []
    while len(found) < count:
        problem = tasks.draw(kind, steps, level, rng)
        if problem.split() == "validation":
            found.append(problem)
    return found


def accuracy(model, tokenizer, asked, budget):
    """Share of right answers; what does not end within the budget is wrong."""
    by_length = {}
    for problem in asked:
        tokens = tokenizer.chat(tasks.prompt(problem, budget))
        by_length.setdefault(len(tokens), []).append((problem, tokens))
    right = 0
    for group in by_length.values():
        prompts = torch.tensor([tokens for _, tokens in group])
        for (problem, _), answer in zip(group, model.greedy(prompts, budget, tokenizer.ids[END])):
            wanted = tokenizer.encode(f"={problem.answer}")
            right += len(answer) < budget and answer[-len(wanted) :] == wanted
    return right / len(asked)


def main(path, count="50"):
    model, tokenizer = load(path).cpu().eval(), Tokenizer()
    print("kind  level steps " + " ".join(f"{budget:>5}" for budget in BUDGETS))
    for kind, level in itertools.product(tasks.KINDS, tasks.LEVELS):
        for steps in STEPS:
            if steps > tasks.STEPS_MAX[kind] or (kind == "hop" and level > 1):
                continue
            asked = problems(kind, level, steps, int(count))
            shares = [accuracy(model, tokenizer, asked, budget) for budget in BUDGETS]
            print(f"{kind:5} {level:5} {steps:5} " + " ".join(f"{share:5.2f}" for share in shares), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
