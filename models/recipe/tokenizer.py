"""A byte-level BPE tokenizer: every digit and symbol is a token of its own, every word of the tasks is one, and what stands after a
space is another token than without."""

import random
import re

import tasks

SPECIAL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# How GPT-2 cuts text before it merges, which llama.cpp knows under the same name. Our texts are ASCII.
PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def _visible():
    """GPT-2's names of the 256 bytes."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in own}
    for place, byte in enumerate(byte for byte in range(256) if byte not in names):
        names[byte] = chr(256 + place)
    return names


VISIBLE = _visible()


def _words():
    """Every word of the tasks and every symbol after a space."""
    rng = random.Random(0)
    found = {f" {symbol}" for symbol in (*tasks.NAMES_OF_STEPS, *"0123456789@+-$")}
    for kind in tasks.KINDS:
        for _ in range(400):
            text = tasks.prompt(tasks.draw(kind, tasks.STEPS_MAX[kind], rng.choice(tasks.LEVELS), rng), 0)
            found.update(piece for piece in PIECES.findall(text) if piece.strip().isalpha() and len(piece.strip()) > 1)
    return sorted(found)


class Tokenizer:
    """Tokens are numbered: bytes, then merges in their order, then the special ones."""

    def __init__(self):
        self.tokens = [VISIBLE[byte] for byte in range(256)]
        self.merges = []
        known = set(self.tokens)
        for word in _words():
            parts = [VISIBLE[byte] for byte in word.encode()]
            # From the left, one symbol at a time.
            while len(parts) > 1:
                if parts[0] + parts[1] not in known:
                    self.merges.append((parts[0], parts[1]))
                    known.add(parts[0] + parts[1])
                    self.tokens.append(parts[0] + parts[1])
                parts[:2] = [parts[0] + parts[1]]
        self.tokens.extend(SPECIAL)
        self.ids = {token: place for place, token in enumerate(self.tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.cache = {}

    def __len__(self):
        return len(self.tokens)

    def encode(self, text):
        """Of text without special tokens."""
        return [token for piece in PIECES.findall(text) for token in self._piece(piece)]

    def _piece(self, piece):
        if piece not in self.cache:
            parts = [VISIBLE[byte] for byte in piece.encode()]
            while len(parts) > 1:
                ranked = [(self.ranks.get(pair, len(self.ranks)), place) for place, pair in enumerate(zip(parts, parts[1:]))]
                rank, place = min(ranked)
                if rank == len(self.ranks):
                    break
                parts[place : place + 2] = [parts[place] + parts[place + 1]]
            self.cache[piece] = [self.ids[part] for part in parts]
        return self.cache[piece]

    def chat(self, prompt):
        """What the chat template makes of one question."""
        user, assistant, end = (self.ids[name] for name in ("<|user|>", "<|assistant|>", END))
        return [user, *self.encode(prompt), end, assistant]
