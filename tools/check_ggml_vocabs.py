#!/usr/bin/env python3
"""Checks the reading of GGUF tokenizers against the vocabularies that come with llama.cpp's sources (also in the source package of llama-cpp-python):
models/ggml-vocab-NAME.gguf with texts (.inp) and the ids that HuggingFace gives them (.out).

    tools/check_ggml_vocabs.py [--tool build/tok_tool] FOLDER"""
import argparse
import glob
import os
import sys

from check_tokenizers import ask, ints

MARK = b"\n__ggml_vocab_test__\n"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default="build/tok_tool")
    ap.add_argument("folder")
    a = ap.parse_args()
    bad = 0
    for path in sorted(glob.glob(os.path.join(a.folder, "ggml-vocab-*.gguf"))):
        name = os.path.basename(path)[len("ggml-vocab-") : -5]
        if not os.path.exists(path + ".inp"):
            try:
                ids = ints(ask(a.tool, "encode", path, [b"Hello, world! 123"])[0])
                print(f"{name}: no expected ids; \"Hello, world! 123\" is {ids}")
            except Exception as e:
                print(f"{name}: no expected ids; {e}")
            continue
        texts = open(path + ".inp", "rb").read().split(MARK)
        want = [[int(x) for x in line.split()] for line in open(path + ".out").read().split("\n")[: len(texts)]]
        try:
            got = [ints(g) for g in ask(a.tool, "encode", path, texts)]
        except Exception as e:
            print(f"{name}: {e}")
            bad += 1
            continue
        wrong = [(t, g, w) for t, g, w in zip(texts, got, want) if g != w]
        bad += len(wrong)
        print(f"{name}: {len(texts)} texts, {len(wrong)} differences")
        for t, g, w in wrong[:3]:
            k = next((i for i, (x, y) in enumerate(zip(g, w)) if x != y), min(len(g), len(w)))
            print(f"  {t[:80]!r} at {k}: ours {g[k:k+8]} want {w[k:k+8]}")
    sys.exit(bad != 0)


main()
