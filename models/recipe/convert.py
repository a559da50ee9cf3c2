"""Writes a trained model as GGUF, with tokenizer and chat template: python convert.py MODEL.pt MODEL.gguf"""

import os
import sys
from pathlib import Path

import gguf
import torch

from tokenizer import CHAT_TEMPLATE, END, SPECIAL, Tokenizer
from train import load

LAYER = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def tensor_name(name):
    """llama.cpp's name of one of our weights."""
    if name == "embedding.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, number, part, _ = name.split(".")
    return f"blk.{number}.{LAYER[part]}.weight"


def convert(source, target):
    model, tokenizer = load(source).cpu(), Tokenizer()
    shape = model.shape
    # Whole or not at all: a file that was cut off would be taken for one that is done.
    beside = f"{target}.partial"
    writer = gguf.GGUFWriter(beside, "llama")
    writer.add_name(f"quartermaster-steps-{Path(source).stem}")
    writer.add_license("apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(len(tokenizer))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL else normal for token in tokenizer.tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_eos_token_id(tokenizer.ids[END])
    writer.add_bos_token_id(tokenizer.ids[END])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weight in model.state_dict().items():
        # Vectors stay as they are, as llama.cpp has them.
        kept = weight.to(torch.float16) if weight.dim() == 2 else weight.to(torch.float32)
        writer.add_tensor(tensor_name(name), kept.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(beside, target)


if __name__ == "__main__":
    convert(*sys.argv[1:])
