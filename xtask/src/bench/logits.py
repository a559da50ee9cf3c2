"""What the reference says next: the model of a GGUF file in transformers, on float32 weights.

Reads {"tokens": [...]} on stdin, prints {"next": [...]}: the likeliest token after each of them."""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM

folder, name = os.path.split(os.path.abspath(sys.argv[1]))
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
tokens = torch.tensor([json.load(sys.stdin)["tokens"]])
with torch.no_grad():
    logits = model(tokens).logits[0]
print(json.dumps({"next": logits.argmax(dim=-1).tolist()}))
