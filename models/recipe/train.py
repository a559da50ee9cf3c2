"""Trains the family: the teacher, students distilled from it, and the teacher with fewer layers.

    python train.py teacher --out DIR
    python train.py student --teacher DIR/teacher.pt --seed 1 --out DIR
    python train.py pruned --teacher DIR/teacher.pt --out DIR

Each saves its state every few minutes and goes on from there when it is started again. Same seed, same recipe, same
number of steps; threads and versions of PyTorch may still change the last bits.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import tasks
from model import Llama, Shape
from tokenizer import END, Tokenizer

SAVE_SECONDS = 120
SAY_STEPS = 50
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Share of the loss that is the teacher's distribution, where there is a teacher.
SOFT = 0.7

RECIPES = {
    "teacher": dict(layers=6, width=256, heads=4, hidden=512, steps=3400, batch=48, rate=2e-3, warmup=150),
    "student": dict(layers=4, width=160, heads=5, hidden=416, steps=2000, batch=48, rate=2e-3, warmup=100),
    "pruned": dict(drop=2, steps=600, batch=48, rate=5e-4, warmup=50),
}


def batches(tokenizer, rng, size):
    """Endless (tokens, targets): examples of like length together, what is not to be learned is -100."""
    end = tokenizer.ids[END]
    while True:
        pool = []
        for _ in range(size * 16):
            prompt, completion = tasks.training_example(rng)
            asked = tokenizer.chat(prompt)
            said = [*tokenizer.encode(completion), end]
            pool.append((asked + said, len(asked)))
        pool.sort(key=lambda example: len(example[0]))
        groups = [pool[at : at + size] for at in range(0, len(pool), size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(tokens) for tokens, _ in group)
            inputs = torch.full((len(group), longest - 1), end)
            targets = torch.full((len(group), longest - 1), -100)
            for row, (tokens, asked) in enumerate(group):
                inputs[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
                targets[row, asked - 1 : len(tokens) - 1] = torch.tensor(tokens[asked:])
            yield inputs.to(DEVICE), targets.to(DEVICE)


def rate_at(step, recipe):
    """Up, then level, then down to zero in the last third."""
    up = min(1.0, (step + 1) / recipe["warmup"])
    down = min(1.0, 3.0 * (recipe["steps"] - step) / recipe["steps"])
    return recipe["rate"] * up * down


def loss_of(model, teacher, inputs, targets):
    logits = model(inputs)
    wanted = targets != -100
    hard = F.cross_entropy(logits[wanted], targets[wanted])
    if teacher is None:
        return hard
    with torch.no_grad():
        soft_targets = F.log_softmax(teacher(inputs)[wanted], -1)
    soft = F.kl_div(F.log_softmax(logits[wanted], -1), soft_targets, log_target=True, reduction="batchmean")
    return SOFT * soft + (1 - SOFT) * hard


def optimizer_of(model, recipe):
    plain = [weight for weight in model.parameters() if weight.dim() < 2]
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    groups = [dict(params=matrices, weight_decay=0.1), dict(params=plain, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=recipe["rate"], betas=(0.9, 0.98))


def train(model, teacher, recipe, tokenizer, seed, path):
    """Trains to the last step of the recipe; `path` holds the state on the way and the model at the end."""
    optimizer = optimizer_of(model, recipe)
    state_path, step = path.with_suffix(".state"), 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=DEVICE)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        print(f"goes on at step {step}", flush=True)
    # Data depend on the step at which it goes on, so that nothing is seen twice.
    stream = batches(tokenizer, random.Random(f"train {seed} {step}"), recipe["batch"])
    saved = said = time.monotonic()
    seen = losses = 0
    while step < recipe["steps"]:
        inputs, targets = next(stream)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        loss = loss_of(model, teacher, inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += inputs.numel()
        losses += loss.item()
        if step % SAY_STEPS == 0:
            now = time.monotonic()
            print(f"step {step}/{recipe['steps']} loss {losses / SAY_STEPS:.4f} {seen / (now - said):.0f} tok/s", flush=True)
            seen, losses, said = 0, 0, now
        if time.monotonic() - saved > SAVE_SECONDS:
            save(state_path, dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=step))
            saved = time.monotonic()
    save(path, dict(model=model.state_dict(), shape=model.shape.as_dict(), recipe=recipe, seed=seed))
    state_path.unlink(missing_ok=True)


def save(path, what):
    """Whole or not at all."""
    beside = path.with_suffix(".partial")
    torch.save(what, beside)
    os.replace(beside, path)


def load(path):
    saved = torch.load(path, weights_only=True, map_location="cpu")
    model = Llama(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model.to(DEVICE)


def accuracy(model, tokenizer, tier, budget, count, split="validation"):
    """Share of right answers, by kind."""
    model.eval()
    end = tokenizer.ids[END]
    right = {kind: [] for kind in tasks.KINDS}
    by_length = {}
    for problem in tasks.items(split, tier, count, 0):
        asked = tokenizer.chat(tasks.prompt(problem, budget))
        by_length.setdefault(len(asked), []).append((problem, asked))
    for group in by_length.values():
        answers = model.greedy(torch.tensor([asked for _, asked in group], device=DEVICE), budget + 8, end)
        for (problem, _), answer in zip(group, answers):
            wanted = tokenizer.encode(f"={problem.answer}")
            right[problem.kind].append(answer[-len(wanted) :] == wanted)
    model.train()
    return {kind: sum(each) / len(each) for kind, each in right.items()}


def prune(teacher, drop, tokenizer):
    """The teacher without the layers that it misses least, tried one by one."""
    stream = batches(tokenizer, random.Random("prune"), 48)
    probe = [next(stream) for _ in range(8)]
    layers = list(teacher.layers)
    for _ in range(drop):
        scored = []
        for place in range(len(layers)):
            teacher.layers = torch.nn.ModuleList(layers[:place] + layers[place + 1 :])
            with torch.no_grad():
                scored.append((sum(loss_of(teacher, None, *each).item() for each in probe), place))
        loss, place = min(scored)
        print(f"without layer {place}: loss {loss / len(probe):.4f}", flush=True)
        layers.pop(place)
    shape = Shape(**{**teacher.shape.as_dict(), "layers": len(layers)})
    model = Llama(shape)
    teacher.layers = torch.nn.ModuleList(layers)
    model.load_state_dict(teacher.state_dict())
    return model.to(DEVICE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe says")
    parser.add_argument("--items", type=int, default=200, help="validation items of each difficulty at the end")
    args = parser.parse_args()
    if (args.teacher is None) != (args.what == "teacher"):
        parser.error("--teacher is for student and pruned, and for them only")
    recipe = {**RECIPES[args.what], **({"steps": args.steps} if args.steps else {})}
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer()
    teacher = load(args.teacher).eval() if args.teacher else None
    if args.what == "pruned":
        model = prune(load(args.teacher), recipe["drop"], tokenizer)
    else:
        shape = {name: recipe[name] for name in ("layers", "width", "heads", "hidden")}
        model = Llama(Shape(vocabulary=len(tokenizer), **shape)).to(DEVICE)
    name = args.what if args.what != "student" else f"student-{args.seed}"
    path = args.out / f"{name}.pt"
    args.out.mkdir(parents=True, exist_ok=True)
    if path.exists():
        print(f"{path} is there already", flush=True)
        model = load(path)
    else:
        print(f"{name} on {DEVICE}: {model.parameters_count():,} parameters, {json.dumps(recipe)}", flush=True)
        train(model, teacher, recipe, tokenizer, args.seed, path)
    for tier in tasks.TIERS:
        for budget in (0, 8, 32, 128) if args.items else ():
            by_kind = accuracy(model, tokenizer, tier, budget, args.items)
            mean = sum(by_kind.values()) / len(by_kind)
            shown = " ".join(f"{kind} {share:.2f}" for kind, share in by_kind.items())
            print(f"{tier} think {budget}: {mean:.3f} ({shown})", flush=True)


if __name__ == "__main__":
    main()
