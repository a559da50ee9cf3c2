"""What the trained model itself says next, to compare with the engine's answer.

    python logits.py MODEL.pt TEXT ENGINE.json OWN.json
ENGINE.json is what `quartermaster-inference-pod perplexity --greedy` printed of TEXT. Writes the trained model's tokens, what it
says after each, and the logit of that; prints the share of places where both say the same, and how far logits differ.
"""

import json
import sys

import torch

from tokenizer import Tokenizer
from train import load


@torch.no_grad()
def main(model_path, text_path, engine_path, own_path):
    model = load(model_path).cpu().eval()
    # The file that the engine read has its matrices in half precision.
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.copy_(weight.to(torch.float16).to(torch.float32))
    engine = json.loads(open(engine_path).read())
    count = len(engine["tokens"])
    tokens = Tokenizer().encode(open(text_path).read())[:count]
    if tokens != engine["tokens"]:
        sys.exit("the engine's tokens of this text are others than the tokenizer's")
    logits = model(torch.tensor([tokens]))[0]
    own = logits.argmax(-1).tolist()
    with open(own_path, "w") as file:
        said = [round(value, 4) for value in logits.max(-1).values.tolist()]
        json.dump(dict(tokens=tokens, next=own, logits=said), file, separators=(",", ":"))
        file.write("\n")
    same = sum(ours == theirs for ours, theirs in zip(own, engine["next"])) / count
    # Of the engine's choice, which is ours wherever that is clear.
    apart = [abs(logits[at][engine["next"][at]].item() - engine["logits"][at]) for at in range(count)]
    print(json.dumps(dict(same=same, positions=count, apart=max(apart))))


if __name__ == "__main__":
    main(*sys.argv[1:])
