"""What the trained model itself says next, to compare with the engine's answer.

    python logits.py text TEXT
writes validation problems with their worked answers, as the chat template puts them.
    python logits.py compare MODEL.pt TEXT ENGINE.json OWN.json
takes what `quartermaster-inference-pod perplexity --greedy` printed of TEXT. Writes the trained model's tokens, what it says after
each, and the logit of that; prints the share of places where both say the same with a logit that is hardly another, and how
far logits differ at most.
"""

import json
import random
import re
import sys

import torch

import tasks
from tokenizer import END, SPECIAL, Tokenizer
from train import load

# Logits that are no further apart are hardly others: the engine rounds activations to half precision.
NEAR = 0.1
# Letters of the text: more than enough for the tokens that are compared.
TEXT = 4000


def write(text_path):
    rng, text = random.Random("logits"), ""
    while len(text) < TEXT:
        kind, level = rng.choice(tasks.KINDS), rng.choice(tasks.LEVELS)
        problem = tasks.draw(kind, rng.randint(1, 8), level, rng)
        if problem.split() == "validation":
            budget = rng.choice(tasks.BUDGETS)
            answer = tasks.completion(problem, tasks.stride_for(problem, budget))
            text += f"<|user|>{tasks.prompt(problem, budget)}{END}<|assistant|>{answer}{END}"
    with open(text_path, "w") as file:
        file.write(text)


def tokens_of(text):
    tokenizer = Tokenizer()
    found = []
    for part in re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text):
        found.extend([tokenizer.ids[part]] if part in SPECIAL else tokenizer.encode(part))
    return found


@torch.no_grad()
def compare(model_path, text_path, engine_path, own_path):
    model = load(model_path).cpu().eval()
    # The file that the engine read has its matrices in half precision.
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.copy_(weight.to(torch.float16).to(torch.float32))
    engine = json.loads(open(engine_path).read())
    count = len(engine["tokens"])
    tokens = tokens_of(open(text_path).read())[:count]
    if tokens != engine["tokens"]:
        sys.exit("the engine's tokens of this text are others than the tokenizer's")
    logits = model(torch.tensor([tokens]))[0]
    own = logits.argmax(-1).tolist()
    with open(own_path, "w") as file:
        said = [round(value, 4) for value in logits.max(-1).values.tolist()]
        json.dump(dict(tokens=tokens, next=own, logits=said), file, separators=(",", ":"))
        file.write("\n")
    # Of the engine's choice, which is ours wherever that is clear.
    apart = [abs(logits[at][engine["next"][at]].item() - engine["logits"][at]) for at in range(count)]
    same = sum(own[at] == engine["next"][at] and apart[at] <= NEAR for at in range(count)) / count
    print(json.dumps(dict(same=same, positions=count, apart=max(apart))))


if __name__ == "__main__":
    {"text": write, "compare": compare}[sys.argv[1]](*sys.argv[2:])
