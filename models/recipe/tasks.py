"""Tasks whose answers are exact: a state, k steps that change it, and the state at the end.

A worked answer writes down the state after every g steps and then the last one. The fewer tokens it may spend, the larger
its g: it skips steps and does them in its head. That is the length control, "think N": the smallest g whose written states
fit in N tokens. Everything is drawn from a seed; train, validation and test differ by the content of the problem.
"""

import hashlib
import math
import random
from dataclasses import dataclass

KINDS = ("sum", "story", "list", "hop")
# Steps between two states that are written down.
STRIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# Most steps of a problem, by kind.
STEPS_MAX = {"sum": 32, "story": 20, "list": 24, "hop": 32}
# Steps of each difficulty, by kind.
TIERS = {
    "easy": {"sum": (2, 4), "story": (2, 4), "list": (2, 3), "hop": (2, 4)},
    "medium": {"sum": (8, 14), "story": (7, 12), "list": (6, 10), "hop": (8, 14)},
    "hard": {"sum": (20, 32), "story": (14, 20), "list": (14, 24), "hop": (20, 32)},
}

# Names of the steps: a state is written behind the name of the step that led to it.
NAMES_OF_STEPS = "abcdefghijklmnopqrstuvwxyzABCDEF"
PEOPLE = ("Ann", "Bo", "Cleo", "Dan", "Eve", "Finn")
THINGS = ("pears", "coins", "books", "shells", "stamps", "cards")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("sells", "loses", "gives", "drops")
# What each word does to a list: the places that the new list takes from the old one.
MOVES = {
    "flip": (3, 2, 1, 0),
    "left": (1, 2, 3, 0),
    "right": (3, 0, 1, 2),
    "front": (1, 0, 2, 3),
    "back": (0, 1, 3, 2),
    "ends": (3, 1, 2, 0),
    "halves": (2, 3, 0, 1),
}


@dataclass(frozen=True)
class Problem:
    """A question, and the states after each step. Every state of a kind has the same number of tokens."""

    kind: str
    question: str
    states: tuple

    @property
    def answer(self):
        return self.states[-1]

    def split(self):
        """Where it belongs: 1 % of all problems is for validation, 1 % for the test."""
        place = hashlib.sha256(self.question.encode()).digest()[0:2]
        share = int.from_bytes(place, "big") % 100
        return {0: "validation", 1: "test"}.get(share, "train")


def draw(kind, steps, rng):
    """A problem of so many steps."""
    return {"sum": _sum, "story": _story, "list": _list, "hop": _hop}[kind](steps, rng)


def _sum(steps, rng):
    value = rng.randrange(100)
    text, states = f"{value:02}", []
    for name in NAMES_OF_STEPS[:steps]:
        by = rng.randrange(1, 100)
        plus = rng.random() < 0.5
        value = (value + by if plus else value - by) % 100
        text += f"{name}{'+' if plus else '-'}{by:02}"
        states.append(f"{value:02}")
    return Problem("sum", f"last two digits of {text}", tuple(states))


def _story(steps, rng):
    value = rng.randrange(10, 90)
    text, states = f"{rng.choice(PEOPLE)} has {value:02} {rng.choice(THINGS)}.", []
    for name in NAMES_OF_STEPS[:steps]:
        gain = value < 20 or (value <= 79 and rng.random() < 0.5)
        by = rng.randrange(1, 20)
        value += by if gain else -by
        text += f"\n{name}: {rng.choice(GAINS if gain else LOSSES)} {by:02}"
        states.append(f"{value:02}")
    return Problem("story", f"{text}\nHow many?", tuple(states))


def _list(steps, rng):
    value = "".join(rng.sample("12345678", 4))
    text, states = value, []
    for name in NAMES_OF_STEPS[:steps]:
        move = rng.choice(tuple(MOVES))
        value = "".join(value[place] for place in MOVES[move])
        text += f"\n{name}: {move}"
        states.append(value)
    return Problem("list", f"order of {text}", tuple(states))


def _hop(steps, rng):
    # One way through all ten places: shorter circles would give the answer away.
    way = rng.sample(range(10), 10)
    leads = [0] * 10
    for place, to in zip(way, way[1:] + way[:1]):
        leads[place] = to
    at = rng.randrange(10)
    text = ",".join(f"{place}>{to}" for place, to in enumerate(leads))
    start, states = at, []
    for _ in range(steps):
        at = leads[at]
        states.append(f"{at}")
    return Problem("hop", f"hops to {NAMES_OF_STEPS[steps - 1]} from {start}: {text}", tuple(states))


def written(problem, stride):
    """Names and states of the steps that an answer with this stride writes down before the last one."""
    named = list(zip(NAMES_OF_STEPS, problem.states))
    return named[stride - 1 : len(named) - 1 : stride]


def thinking_tokens(problem, stride):
    """Tokens of those states: each symbol is one, and so is the name of the step."""
    return sum(len(state) + 1 for _, state in written(problem, stride))


def stride_for(problem, budget):
    """The smallest stride whose written states fit; the whole problem at once where none does."""
    for stride in STRIDES:
        if thinking_tokens(problem, stride) <= budget:
            return stride
    return len(problem.states)


def prompt(problem, budget):
    return f"think {budget} of {len(problem.states)}: {problem.question}"


def completion(problem, stride):
    return "".join(name + state for name, state in written(problem, stride)) + f"={problem.answer}"


def training_example(rng):
    """Prompt and completion. Steps are drawn evenly in their logarithm. Half of all answers may write every state; of the
    others the budget is drawn evenly in its logarithm up to that."""
    while True:
        kind = rng.choice(KINDS)
        most = STEPS_MAX[kind]
        steps = min(most, int(math.exp(rng.uniform(math.log(2), math.log(most + 1)))))
        problem = draw(kind, steps, rng)
        if problem.split() != "train":
            continue
        whole = thinking_tokens(problem, 1)
        if rng.random() < 0.5:
            budget = rng.randint(whole, 2 * whole + 16)
        else:
            budget = int(math.exp(rng.uniform(math.log(1.5), math.log(whole + 1.5))))
        return prompt(problem, budget), completion(problem, stride_for(problem, budget))


def items(split, tier, count, seed):
    """A task set: as many problems of every kind, in turn."""
    rng = random.Random(f"{split} {tier} {seed}")
    found, seen = [], set()
    while len(found) < count:
        kind = KINDS[len(found) % len(KINDS)]
        low, high = TIERS[tier][kind]
        problem = draw(kind, rng.randint(low, high), rng)
        if problem.split() == split and problem.question not in seen:
            seen.add(problem.question)
            found.append(problem)
    return found
