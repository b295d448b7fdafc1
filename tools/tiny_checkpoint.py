#!/usr/bin/env python3
"""A tiny random checkpoint of any text family with the official logits: the first thing to make when a family is added.

    tools/tiny_checkpoint.py CONFIG.json OUT [--set KEY=JSON ...] [--dtype F32|F16|BF16] [--tokens N] [--seed N]

CONFIG.json is any published config; --set changes keys of it (of its text_config, where it has one):
    --set hidden_size=96 --set num_hidden_layers=3 --set vocab_size=311
OUT gets config.json, model.safetensors (values from the integer generator of tools/fixtures/rng.py), ids.npy and logits.npy (float32, transformers,
eager attention). Compare with
    ffai inspect -m OUT --token-ids-file OUT/ids.npy --logits got.npy          or          tools/first_drift.py OUT
Needs torch, transformers 5 and numpy."""
import argparse, json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures"))
import numpy as np

import auto, ckpt, reference
from make_tiny import ids_of, text_config
from rng import fnv1a


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("config")
    ap.add_argument("out")
    ap.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    ap.add_argument("--dtype", default="F32", choices=["F32", "F16", "BF16"])
    ap.add_argument("--tokens", type=int, default=40)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--norm-base", type=float, default=1.0, help="0 for families whose norms multiply by 1 + w")
    args = ap.parse_args()
    with open(args.config) as f:
        config = json.load(f)
    for s in args.set:
        key, value = s.split("=", 1)
        text_config(config)[key] = json.loads(value)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    name = os.path.basename(os.path.abspath(args.out))
    fx = {"format": "safetensors", "seed": (fnv1a(name) ^ args.seed) >> 12, "tensors": auto.tensors(config, args.dtype, norm_base=args.norm_base)}
    ckpt.write_weights(fx, args.out)
    m = reference.load(args.out)
    ids = ids_of(f"{name}/{args.seed}", args.tokens, text_config(config)["vocab_size"])
    g = reference.logits(m, ids)
    note = reference.guard(m, ids, g)
    np.save(os.path.join(args.out, "ids.npy"), np.array(ids, np.int32))
    np.save(os.path.join(args.out, "logits.npy"), g)
    print(f"{args.out}: logits [{g.shape[0]}, {g.shape[1]}], standard deviation {g.std():.2f}, {note}")


if __name__ == "__main__":
    sys.exit(main())
