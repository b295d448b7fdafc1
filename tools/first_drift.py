#!/usr/bin/env python3
"""Shows where ffai begins to differ from transformers on a checkpoint: tap by tap, in the order of the forward pass.

    tools/first_drift.py CHECKPOINT [--ffai PROGRAM] [--ids FILE.npy | 1,2,3] [--limit 1e-3] [--all] [-- MORE OF INSPECT'S OPTIONS]

Taps that both sides have: embed (what enters the first layer), attn_out.N (what enters a layer's output projection), layer_out.N, final_norm and the
logits. Prints the first that differs by more than the limit (all of them with --all); exit status 1 when there is one."""
import argparse, os, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures"))
import numpy as np
import torch

import reference

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def layers_of(m):
    """The longest ModuleList called layers, blocks or h: the decoder's."""
    lists = [(n, x) for n, x in m.named_modules() if isinstance(x, torch.nn.ModuleList) and n.split(".")[-1] in ("layers", "blocks", "h")
             and "vision" not in n and "audio" not in n]
    return max(lists, key=lambda p: len(p[1]))


def official(folder, ids):
    m = reference.load(folder)
    taps, hooks = {}, []
    first = lambda x: x[0] if isinstance(x, tuple) else x
    keep = lambda name, x: taps.__setitem__(name, first(x).detach().float().reshape(len(ids), -1).numpy().copy())
    name, layers = layers_of(m)
    parent = m.get_submodule(name.rsplit(".", 1)[0])
    for i, layer in enumerate(layers):
        if i == 0:
            hooks.append(layer.register_forward_pre_hook(lambda _, a, k: keep("embed", a[0] if a else k["hidden_states"]), with_kwargs=True))
        for n, x in layer.named_modules():
            if n.split(".")[-1] in ("o_proj", "wo", "out_proj") and isinstance(x, torch.nn.Linear):
                hooks.append(x.register_forward_pre_hook(lambda _, a, i=i: keep(f"attn_out.{i}", a[0])))
        hooks.append(layer.register_forward_hook(lambda _, a, r, i=i: keep(f"layer_out.{i}", r)))
    norms = [x for n, x in parent.named_children() if n in ("norm", "final_layernorm", "embedding_norm")]
    hooks += [x.register_forward_hook(lambda _, a, r: keep("final_norm", r)) for x in norms]
    taps["logits"] = reference.logits(m, ids)
    return taps, len(layers)


def ours(program, folder, ids, more):
    with tempfile.TemporaryDirectory() as d:
        np.save(os.path.join(d, "ids.npy"), np.array(ids, np.int32))
        cmd = [program, "inspect", "-m", folder, "--token-ids-file", f"{d}/ids.npy", "--taps", f"{d}/taps.npz", "--logits", f"{d}/logits.npy", *more]
        subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL)
        with np.load(f"{d}/taps.npz") as z:
            taps = {k: z[k].reshape(z[k].shape[0], -1) for k in z.files}
        taps["logits"] = np.load(f"{d}/logits.npy")
        return taps


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("checkpoint")
    ap.add_argument("--ffai", default=next((p for p in (f"{ROOT}/build/release/ffai", f"{ROOT}/build/ffai") if os.path.exists(p)), "ffai"))
    ap.add_argument("--ids")
    ap.add_argument("--limit", type=float, default=1e-3)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("more", nargs="*")
    args = ap.parse_args()
    own = os.path.join(args.checkpoint, "ids.npy")
    ids = args.ids or (own if os.path.exists(own) else "1,2,3,4,5,6,7,8")
    ids = np.load(ids).astype(int).tolist() if ids.endswith(".npy") else [int(x) for x in ids.split(",")]
    want, n_layer = official(args.checkpoint, ids)
    got = ours(args.ffai, args.checkpoint, ids, args.more)
    order = ["embed"] + [f"{t}.{i}" for i in range(n_layer) for t in ("attn_out", "layer_out")] + ["final_norm", "logits"]
    drifted = 0
    for name in order:
        a, b = want.get(name), got.get(name, got.get(f"{name}.-1"))
        if a is None or b is None:
            continue
        if a.shape != b.shape:
            print(f"{name:16} shapes {a.shape} and {b.shape}")
            drifted = 1
            break
        d = float(np.abs(a - b).max())
        bad = not d <= args.limit
        if args.all or (bad and not drifted):
            row, col = np.unravel_index(np.argmax(np.abs(a - b)), a.shape)
            print(f"{name:16} largest difference {d:.2e} (row {row}, column {col}: {a[row, col]:.6g}, ffai {b[row, col]:.6g}){'  <-- drifts' if bad else ''}")
        drifted |= bad
    if not drifted:
        print(f"no tap differs by more than {args.limit:g}; logits by {float(np.abs(want['logits'] - got['logits']).max()):.2e}")
    return int(drifted)


if __name__ == "__main__":
    sys.exit(main())
