"""Tasks whose answers are exact: a state, k steps that change it, and the state at the end.

A worked answer writes steps down: each with what it does and the state after it, or, with fewer tokens, only the state after
every g steps, and does those between in its head. That is the length control, "think N": the most that fits in N tokens,
the final answer and the end included. Everything is drawn from a seed; train, validation and test differ by the content of
the problem.
"""

import hashlib
import math
import random
import re
from dataclasses import dataclass

KINDS = ("sum", "story", "list", "hop")
# Most tokens of an answer: the lengths that the models know. Into the least every answer alone fits.
BUDGETS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Steps between two states that are written down.
STRIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24)
# Most steps of a problem, by kind.
STEPS_MAX = {"sum": 24, "story": 20, "list": 20, "hop": 24}

# Fewest and most places that hops lead between.
PLACES = (4, 10)
# A training begins with problems of so many steps at most, and with answers that write every step, ...
SHORT = 3
# ... for this share of it; at that share problems have become as long as they get.
HELD, GROWN = 0.10, 0.40
# Levels come one after another, from these shares on: arithmetic is learnt on small numbers first, or not at all.
LEVELS_FROM = {1: 0.0, 2: 0.30, 3: 0.50}
# From here on problems are of all sorts.
GROWN_UP = max(GROWN, *LEVELS_FROM.values())
# Arithmetic takes longest to learn and is drawn more often.
DRAWN = KINDS + KINDS + ("sum", "story")
# Share of the answers that may write every step.
WHOLE = 0.75

# Names of the steps: a state is written behind the name of the step that led to it.
NAMES_OF_STEPS = "abcdefghijklmnopqrstuvwxyzABCDEF"
# What is one token of an answer: a word, a name of a step or a digit with the space before it, or any sign alone.
SYMBOLS = re.compile(r" [a-z]+| .|.")
COUNTS = {2: "two", 3: "three"}
PEOPLE = ("Ann", "Bo", "Cleo", "Dan", "Eve", "Finn")
GAINS = ("earns", "finds", "gets", "wins")
LOSSES = ("spends", "loses", "gives", "pays")
# What each word does to a list.
MOVES = {
    "flip": lambda items: items[::-1],
    "left": lambda items: items[1:] + items[:1],
    "right": lambda items: items[-1:] + items[:-1],
    "front": lambda items: items[1] + items[0] + items[2:],
    "back": lambda items: items[:-2] + items[-1] + items[-2],
    "ends": lambda items: items[-1] + items[1:-1] + items[0],
    "halves": lambda items: items[len(items) // 2 :] + items[: len(items) // 2],
}
# How large the numbers and lists of a level are: digits of a number, of what is added to it, items of a list.
LEVELS = (1, 2, 3)
DIGITS = {1: (2, 1), 2: (2, 2), 3: (3, 3)}
ITEMS = {1: 4, 2: 6, 3: 8}


@dataclass(frozen=True)
class Problem:
    """A question, what of it matters, the state at the start, and of each step its name, what it does, and the state
    after it."""

    kind: str
    question: str
    content: str
    start: str
    names: str
    deeds: tuple
    states: tuple

    @property
    def answer(self):
        return self.states[-1]

    def split(self):
        """Where it belongs: 1 % of all contents is for validation, 1 % for the test, whatever names and words are about
        them."""
        place = hashlib.sha256(f"{self.kind} {self.content}".encode()).digest()[0:4]
        share = int.from_bytes(place, "big") % 100
        return {0: "validation", 1: "test"}.get(share, "train")


def draw(kind, steps, level, rng):
    """A problem of so many steps, on numbers and lists of this level. Hops are the same on all of them."""
    return {"sum": _sum, "story": _story, "list": _list, "hop": _hop}[kind](steps, level, rng)


def _by(level, rng):
    digits = DIGITS[level][1]
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _sum(steps, level, rng):
    digits = DIGITS[level][0]
    names, value = _names(steps, rng), rng.randrange(10**digits)
    start, deeds, states = f"{value:0{digits}}", [], []
    for _ in range(steps):
        by = rng.choice((-1, 1)) * _by(level, rng)
        value = (value + by) % 10**digits
        deeds.append(f" {by:+}:")
        states.append(f"{value:0{digits}}")
    question = f"last {COUNTS[digits]} digits of @{start}{_lines(names, deeds)}"
    return Problem("sum", question, start + "".join(deeds), start, names, tuple(deeds), tuple(states))


def _story(steps, level, rng):
    digits = DIGITS[level][0]
    names, value = _names(steps, rng), rng.randrange(10**digits)
    start, deeds, states = f"{value:0{digits}}", [], []
    content = start
    for _ in range(steps):
        # Nobody owes, and no count has more digits.
        ways = []
        while not ways:
            by = _by(level, rng)
            ways = [way for way in (by, -by) if 0 <= value + way < 10**digits]
        way = rng.choice(ways)
        value += way
        content += f" {way:+}"
        deeds.append(f" {rng.choice(GAINS if way > 0 else LOSSES)} ${by}:")
        states.append(f"{value:0{digits}}")
    question = f"{rng.choice(PEOPLE)} has @{start} dollars{_lines(names, deeds)}. How many?"
    return Problem("story", question, content, start, names, tuple(deeds), tuple(states))


def _list(steps, level, rng):
    names = _names(steps, rng)
    start = value = "".join(rng.sample("12345678", ITEMS[level]))
    deeds, states = [], []
    for _ in range(steps):
        move = rng.choice(tuple(MOVES))
        value = MOVES[move](value)
        deeds.append(f" {move}:")
        states.append(value)
    question = f"order of @{start}{_lines(names, deeds)}"
    return Problem("list", question, start + "".join(deeds), start, names, tuple(deeds), tuple(states))


def _hop(steps, _, rng):
    # One way through all places: shorter circles would give the answer away.
    places = rng.randint(*PLACES)
    way = rng.sample(range(places), places)
    leads = dict(zip(way, way[1:] + way[:1]))
    at = start = rng.randrange(places)
    deeds, states = [], []
    for _ in range(steps):
        deeds.append(f" {at}")
        at = leads[at]
        states.append(f"{at}")
    ways = " ".join(f"{place}{leads[place]}" for place in range(places))
    question = f"hops to {NAMES_OF_STEPS[steps - 1]} from @{start} by {ways}"
    return Problem("hop", question, question, f"{start}", NAMES_OF_STEPS[:steps], tuple(deeds), tuple(states))


def _names(steps, rng):
    """From any letter on: a step is found by its name, not by its place."""
    first = rng.randint(0, len(NAMES_OF_STEPS) - steps)
    return NAMES_OF_STEPS[first : first + steps]


def _lines(names, deeds):
    """Steps as a question gives them: name and deed."""
    return "".join(f" {name}{deed.rstrip(':')}" for name, deed in zip(names, deeds))


def completion(problem, stride):
    """The answer that writes every step down, or the state after every so many steps."""
    named = list(zip(problem.names, problem.deeds, problem.states))
    if stride == 1:
        thought = f"@{problem.start}" + "".join(f" {name}{deed}{state}" for name, deed, state in named)
    else:
        thought = "".join(f" {name}:{state}" for name, _, state in named[stride - 1 : len(named) - 1 : stride])
    return f"{thought}={problem.answer}"


def tokens(problem, stride):
    """Tokens of that answer and its end: each symbol is one, and so is a word."""
    return len(SYMBOLS.findall(completion(problem, stride))) + 1


def stride_for(problem, budget):
    """The one that writes the most and fits; the last one, which writes the answer alone, where none does."""
    return next((stride for stride in STRIDES if tokens(problem, stride) <= budget), STRIDES[-1])


def prompt(problem, budget):
    return f"think {budget} of {len(problem.states)}: {problem.question}"


def budget_of(prompt):
    """Tokens that a prompt allows for its answer."""
    return int(prompt.split(" ", 2)[1])


def training_example(rng, progress):
    """Prompt and completion at this share of the training, in [0, 1]. Steps are drawn evenly in their logarithm. Most
    answers may write every step; the others have any smaller budget."""
    held = progress < HELD
    grown = max(0.0, progress - HELD) / (GROWN - HELD)
    while True:
        kind = rng.choice(DRAWN)
        longest = STEPS_MAX[kind]
        most = min(longest, SHORT * (longest / SHORT) ** grown)
        steps = min(longest, int(math.exp(rng.uniform(0, math.log(most + 1)))))
        level = rng.choice([level for level, since in LEVELS_FROM.items() if progress >= since])
        problem = draw(kind, steps, level, rng)
        if problem.split() != "train":
            continue
        whole = tokens(problem, 1)
        enough = [budget for budget in BUDGETS if budget >= whole]
        less = [budget for budget in BUDGETS if budget < whole]
        budget = rng.choice(enough if held or not less or rng.random() < WHOLE else less)
        return prompt(problem, budget), completion(problem, stride_for(problem, budget))
