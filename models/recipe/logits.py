"""What the trained model itself says next, to compare with the engine's answer.

    python logits.py MODEL.pt TOKENS.json
TOKENS.json is what `quartermaster-inference-pod perplexity --greedy` printed; prints the share of places where both say
the same, and the largest lead that a token had where they do not.
"""

import json
import sys

import torch

from train import load


@torch.no_grad()
def main(model_path, tokens_path):
    model = load(model_path).cpu().eval()
    # The file that the engine read has its matrices in half precision.
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.copy_(weight.to(torch.float16).to(torch.float32))
    engine = json.loads(open(tokens_path).read())
    tokens = torch.tensor([engine["tokens"]])
    logits = model(tokens)[0]
    own = logits.argmax(-1).tolist()
    same = [ours == theirs for ours, theirs in zip(own, engine["next"])]
    leads = [(logits[at].max() - logits[at][engine["next"][at]]).item() for at in range(len(own)) if not same[at]]
    print(json.dumps(dict(same=sum(same) / len(same), positions=len(same), largest_lead=max(leads, default=0.0))))


if __name__ == "__main__":
    main(*sys.argv[1:])
