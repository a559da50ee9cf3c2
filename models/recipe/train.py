"""Trains the family: the teacher, students distilled from it, and the teacher with fewer layers.

    python train.py teacher --out DIR
    python train.py answers --teacher DIR/teacher.pt --out DIR
    python train.py student --teacher DIR/teacher.pt --seed 1 --out DIR
    python train.py pruned --teacher DIR/teacher.pt --out DIR

Students and pruned learn what the teacher says, on the recipe's answers and on those that the teacher wrote itself
(`answers`, which they look for beside it). A training saves its state every few minutes and goes on from there when it is
started again, with the examples that would have come next. Same seed, same recipe, same number of steps; threads and versions of
PyTorch may still change the last bits.
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
# Problems that the teacher answers, and their share of the examples once problems grow no more. Its mistakes stay in: they
# are what its distribution is about.
ANSWERED, OWN = 8192, 0.5

# Tokens of one step of training, questions and padding included.
BATCH = 3000
# Examples that are drawn at once, and sorted by length.
POOL = 512
WARMUP = 100

# Batches by which the pruned teacher's layers are chosen.
PROBED = 8

# `rate` is that of the matrices; that of everything else is a sixth.
RECIPES = {
    "teacher": dict(layers=4, width=256, heads=4, hidden=512, steps=3000, rate=6e-3),
    "student": dict(layers=4, width=128, heads=4, hidden=256, steps=2200, rate=6e-3),
    "pruned": dict(drop=2, steps=1000, rate=5e-3),
}


def example(tokenizer, rng, progress, answers):
    """Tokens, and how many of them ask."""
    if answers and progress >= tasks.GROWN_UP and rng.random() < OWN:
        asked, answer = rng.choice(answers)
    else:
        prompt, completion = tasks.training_example(rng, progress)
        asked, answer = tokenizer.chat(prompt), tokenizer.encode(completion)
    return [*asked, *answer, tokenizer.ids[END]], len(asked)


def batches(tokenizer, rng, progress, answers=()):
    """(tokens, targets) of the next examples, those of like length together; what is not to be learned is -100. `progress` is the
    share of the training that is done; `answers` are the teacher's."""
    end = tokenizer.ids[END]
    pool = [example(tokenizer, rng, progress, answers) for _ in range(POOL)]
    pool.sort(key=lambda each: len(each[0]))
    groups = []
    while pool:
        size = max(1, BATCH // len(pool[-1][0]))
        groups.append(pool[-size:])
        del pool[-size:]
    rng.shuffle(groups)
    return [batch(group, end) for group in groups]


def batch(group, end):
    longest = max(len(tokens) for tokens, _ in group)
    inputs = torch.full((len(group), longest - 1), end)
    targets = torch.full((len(group), longest - 1), -100)
    for row, (tokens, asked) in enumerate(group):
        inputs[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        targets[row, asked - 1 : len(tokens) - 1] = torch.tensor(tokens[asked:])
    return inputs.to(DEVICE), targets.to(DEVICE)


@torch.no_grad()
def answer(teacher, tokenizer):
    """What the teacher answers to problems of training: (prompt, answer) in tokens. What it does not end within the problem's
    budget is left out."""
    rng, by_length, found = random.Random("answers"), {}, []
    for _ in range(ANSWERED):
        prompt, _ = tasks.training_example(rng, 1.0)
        tokens = tokenizer.chat(prompt)
        by_length.setdefault(len(tokens), []).append((tokens, tasks.budget_of(prompt)))
    for done, (_, group) in enumerate(sorted(by_length.items())):
        prompts = torch.tensor([tokens for tokens, _ in group], device=DEVICE)
        most = max(budget for _, budget in group)
        answers = teacher.greedy(prompts, most, tokenizer.ids[END])
        found += [(asked, told) for (asked, budget), told in zip(group, answers) if len(told) < budget]
        if done % SAY_STEPS == 0:
            print(f"answered {len(found)} of {ANSWERED}", flush=True)
    return found


def share_at(step, steps):
    """Of the rate: up, then level, then down to zero in the last third."""
    return min(1.0, (step + 1) / WARMUP, 3.0 * (steps - step) / steps)


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


def optimizers_of(model, rate):
    """Muon for the matrices: with AdamW alone none of these models learns to look a step up."""
    matrices = [weight for name, weight in model.layers.named_parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    return (
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([model.embedding.weight, *norms], lr=rate / 6, betas=(0.9, 0.98), weight_decay=0.0),
    )


def train(model, teacher, answers, recipe, grows, tokenizer, seed, path):
    """Trains to the last step of the recipe; `path` holds the state on the way and the model at the end. Problems grow
    with the training where `grows`."""
    steps = recipe["steps"]
    optimizers = optimizers_of(model, recipe["rate"])
    full = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    rng = random.Random(f"train {seed} 0")
    # Examples are drawn some steps ahead: what they are drawn from is kept, so that they can be drawn again.
    drawn_at, drawn_from, ahead = 0, rng.getstate(), []
    state_path, step, before = path.with_suffix(".state"), 0, 0.0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=DEVICE)
        model.load_state_dict(state["model"])
        for optimizer, its in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(its)
        step, before, drawn_at, drawn_from = (state[name] for name in ("step", "seconds", "drawn_at", "drawn_from"))
        rng.setstate(drawn_from)
        ahead = batches(tokenizer, rng, drawn_at / steps if grows else 1.0, answers)[step - drawn_at :]
        print(f"goes on at step {step}", flush=True)
    began = saved = said = time.monotonic()
    seen = losses = count = 0
    seconds = lambda: before + time.monotonic() - began  # noqa: E731
    while step < steps:
        if not ahead:
            drawn_at, drawn_from = step, rng.getstate()
            ahead = batches(tokenizer, rng, step / steps if grows else 1.0, answers)
        inputs, targets = ahead.pop(0)
        for optimizer, rates in zip(optimizers, full):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * share_at(step, steps)
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, teacher, inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        seen += inputs.numel()
        losses += loss.item()
        count += 1
        if step % SAY_STEPS == 0:
            now = time.monotonic()
            print(f"step {step}/{steps} loss {losses / count:.4f} {seen / (now - said):.0f} tok/s", flush=True)
            seen, losses, count, said = 0, 0, 0, now
        if time.monotonic() - saved > SAVE_SECONDS:
            states = [optimizer.state_dict() for optimizer in optimizers]
            drawn = dict(drawn_at=drawn_at, drawn_from=drawn_from)
            save(state_path, dict(model=model.state_dict(), optimizers=states, step=step, seconds=seconds(), **drawn))
            saved = time.monotonic()
    tell(path, seconds(), parameters=model.parameters_count(), steps=steps, seed=seed)
    save(path, dict(model=model.state_dict(), shape=model.shape.as_dict(), recipe=recipe, seed=seed))
    state_path.unlink(missing_ok=True)


def tell(path, seconds, **what):
    """What a training took, beside what it made."""
    told = dict(**what, device=str(DEVICE), threads=torch.get_num_threads(), seconds=round(seconds))
    path.with_suffix(".json").write_text(json.dumps(told) + "\n")


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


def prune(teacher, drop, tokenizer):
    """The teacher without the layers that it misses least, tried one by one."""
    probe = batches(tokenizer, random.Random("prune"), 1.0)[:PROBED]
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
    parser.add_argument("what", choices=[*RECIPES, "answers"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe says")
    args = parser.parse_args()
    if (args.teacher is None) != (args.what == "teacher"):
        parser.error("--teacher is for answers, student and pruned, and for them only")
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer()
    teacher = load(args.teacher).eval() if args.teacher else None
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / (f"student-{args.seed}.pt" if args.what == "student" else f"{args.what}.pt")
    if path.exists():
        print(f"{path} is there already", flush=True)
        return
    if args.what == "answers":
        began, answers = time.monotonic(), answer(teacher, tokenizer)
        tell(path, time.monotonic() - began, answers=len(answers))
        save(path, answers)
        return
    answers = ()
    if teacher:
        beside = args.teacher.with_name("answers.pt")
        if not beside.exists():
            parser.error(f"{beside} is missing: first `train.py answers`")
        answers = torch.load(beside, weights_only=True)
    recipe = {**RECIPES[args.what], **({"steps": args.steps} if args.steps else {})}
    if args.what == "pruned":
        model = prune(load(args.teacher), recipe["drop"], tokenizer)
    else:
        shape = {name: recipe[name] for name in ("layers", "width", "heads", "hidden")}
        model = Llama(Shape(vocabulary=len(tokenizer), **shape)).to(DEVICE)
    print(f"{path.stem} on {DEVICE}: {model.parameters_count():,} parameters, {json.dumps(recipe)}", flush=True)
    train(model, teacher, answers, recipe, args.what != "pruned", tokenizer, args.seed, path)


if __name__ == "__main__":
    main()
