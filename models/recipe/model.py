"""A Llama, small enough to read: RMSNorm, rotary positions, SwiGLU, tied embeddings."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    vocabulary: int
    layers: int
    width: int
    heads: int
    hidden: int
    context: int = 512
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    def as_dict(self):
        return asdict(self)


class Norm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def rotation(shape, positions):
    """Cosines and sines for llama.cpp's `NORM` order: neighbours in a head are one pair."""
    head = shape.width // shape.heads
    frequencies = shape.rope_base ** (-torch.arange(0, head, 2, dtype=torch.float32, device=positions.device) / head)
    angles = positions[:, None].float() * frequencies[None, :]
    return angles.cos(), angles.sin()


def rotate(x, turned):
    """`x` is (batch, heads, tokens, head)."""
    cosine, sine = turned
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = Norm(shape.width, shape.epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = Norm(shape.width, shape.epsilon)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x, turned, cache=None):
        """`cache` is the (keys, values) of earlier tokens, or none; returns the output and the new cache."""
        batch, tokens, width = x.shape
        normed = self.attention_norm(x)
        split = lambda y: y.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)  # noqa: E731
        query, key = rotate(split(self.query(normed)), turned), rotate(split(self.key(normed)), turned)
        value = split(self.value(normed))
        if cache is not None:
            key, value = torch.cat((cache[0], key), dim=2), torch.cat((cache[1], value), dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        normed = self.feed_norm(x)
        x = x + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return x, (key, value)


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.05 if name == "embedding.weight" else 0.02)
            # What is added to the residual stream grows with the depth.
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5)

    def forward(self, tokens):
        turned = rotation(self.shape, torch.arange(tokens.shape[1], device=tokens.device))
        x = self.embedding(tokens)
        for layer in self.layers:
            x, _ = layer(x, turned)
        return F.linear(self.norm(x), self.embedding.weight)

    @torch.no_grad()
    def greedy(self, prompts, most, end):
        """Answers to prompts of one length, up to and without `end`."""
        tokens, at, caches = prompts, 0, [None] * len(self.layers)
        written, open_ = [[] for _ in prompts], torch.ones(len(prompts), dtype=torch.bool, device=prompts.device)
        for _ in range(most):
            turned = rotation(self.shape, torch.arange(at, at + tokens.shape[1], device=tokens.device))
            x = self.embedding(tokens)
            for place, layer in enumerate(self.layers):
                x, caches[place] = layer(x, turned, caches[place])
            at += tokens.shape[1]
            tokens = F.linear(self.norm(x[:, -1:]), self.embedding.weight).argmax(-1)
            open_ &= tokens[:, 0] != end
            if not open_.any():
                break
            for row in open_.nonzero()[:, 0].tolist():
                written[row].append(tokens[row, 0].item())
        return written

    def parameters_count(self):
        return sum(weight.numel() for weight in self.parameters())
