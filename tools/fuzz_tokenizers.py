#!/usr/bin/env python3
"""Compares random small BPE tokenizers with HuggingFace `tokenizers`: ids of random texts out of their alphabet. What real tokenizers have in common
(few unknown characters, merges in the order of ids) these have not, so shortcuts that lean on it show here.

    tools/fuzz_tokenizers.py [--tool build/tok_tool] [--n 200] [--seed 1]

Needs the `tokenizers` package."""
import argparse
import array
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

CHARS = ["a", "b", "c", "(", ".", "1", "é", "中", "文", "😀", "\u0301", "▁", "▁", "\n", "\t", '"', "\\"]


def make(rng):
    chars = rng.sample(CHARS, rng.randint(3, 12))
    if rng.random() < 0.8 and "▁" not in chars:
        chars.append("▁")
    vocab, merges = ["<unk>", *dict.fromkeys(chars)], []
    fallback = rng.random() < 0.4
    if fallback:
        vocab += [f"<0x{b:02X}>" for b in range(256)][: 256 if rng.random() < 0.8 else 200]
    parts = vocab[1:] if rng.random() < 0.1 else [c for c in vocab[1:] if not c.startswith("<0x")]
    for _ in range(rng.randint(0, 60)):
        a, b = rng.choice(parts), rng.choice(parts)
        if len(a + b) > 12 or (a, b) in merges:
            continue
        merges.append((a, b))
        if a + b not in vocab:
            vocab.append(a + b)
            parts.append(a + b)
    if rng.random() < 0.5:
        rng.shuffle(merges)
    ids = list(range(len(vocab)))
    if rng.random() < 0.3:
        rng.shuffle(ids)
    norm = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    if rng.random() < 0.4:
        norm.insert(0, {"type": "Prepend", "prepend": "▁"})
    norm = rng.choice([None, norm[0], {"type": "Sequence", "normalizers": norm}, {"type": "Sequence", "normalizers": norm}])
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    model = {"type": "BPE", "dropout": None, "unk_token": rng.choice(["<unk>", None]), "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": rng.random() < 0.5, "byte_fallback": fallback, "ignore_merges": rng.random() < 0.1, "vocab": dict(zip(vocab, ids)),
             "merges": [list(m) for m in merges]}  # fmt: skip
    added, free = [], len(vocab)
    for c in rng.sample(["<x>", "\n\n", "ab", "▁▁", "<y>"], rng.randint(0, 3)):
        known = c in vocab
        added.append({"id": ids[vocab.index(c)] if known else free, "content": c, "single_word": False, "lstrip": rng.random() < 0.3,
                      "rstrip": rng.random() < 0.3, "normalized": rng.random() < 0.3, "special": rng.random() < 0.5})  # fmt: skip
        free += not known
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": norm,
            "pre_tokenizer": rng.choice([None, None, split]), "post_processor": None, "decoder": None, "model": model}  # fmt: skip


def texts(rng):
    for _ in range(40):
        pool = rng.sample(CHARS, rng.randint(1, len(CHARS))) + [" ", " ", "z", "ab", "<x>"]
        yield "".join(rng.choice(pool) for _ in range(rng.choice((1, 2, 3, 5, 10, 20, 40, 80, 200, 400))))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default="build/tok_tool")
    p.add_argument("--n", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    rng, bad, done = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "tokenizer.json")
        for k in range(args.n):
            j = make(rng)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(j, f, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1, 2]))
            hf = Tokenizer.from_file(path)
            with subprocess.Popen([args.tool, "encode", tmp], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
                for t in texts(rng):
                    try:
                        want = hf.encode(t, add_special_tokens=False).ids
                    except Exception:
                        continue
                    tool.stdin.write(struct.pack("<I", len(t.encode())) + t.encode())
                    tool.stdin.flush()
                    head = tool.stdout.read(4)
                    got = array.array("i", tool.stdout.read(struct.unpack("<I", head)[0])).tolist() if head else "refused"
                    done += 1
                    if got != want:
                        bad += 1
                        print(f"tokenizer {k}: {t!r}\n  want {want}\n  got  {got}")
                        print("  " + json.dumps({**j, "model": {**j["model"], "vocab": len(j["model"]["vocab"]), "merges": j["model"]["merges"][:9]}}))
                        if not head:
                            break
            if bad > 5:
                break
    print(f"{k + 1} tokenizers, {done} texts, {bad} differences")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
