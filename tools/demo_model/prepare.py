#!/usr/bin/env python3
"""Trains the demo model's tokenizer and turns the corpus into token arrays.

Owns the vocabulary and the train/held-out split: `prepare.py CORPUS OUT` reads the files that
corpus.py wrote and makes OUT/tokenizer.json and OUT/tokens.npz. Each document is <s> text </s>; every
50th document of a source is held out. tokens.npz has `train` (uint16, all sources one after the
other), `starts` (uint32, where paragraphs begin in `train`) and `val_<source>` (uint16).
"""
import argparse
import pathlib

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SOURCES = ("austen", "melville", "newton", "kjv")
HELD_OUT_EVERY = 50
VOCAB = 4096
BOS, EOS = "<s>", "</s>"
# Llama 3's pre-tokenizer pattern: engines that run Llama 3 tokenize this model too.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(BOS, special=True), AddedToken(EOS, special=True)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tok.token_to_id(BOS))]
    )
    return tok


def encode(tok, doc, ends_paragraph):
    """Ids of <s> doc </s>, and the positions in it at which paragraphs begin."""
    ids = tok.encode(doc).ids + [tok.token_to_id(EOS)]
    return ids, [i + 1 for i, t in enumerate(ids[:-1]) if i == 0 or ends_paragraph[t]]


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("corpus", type=pathlib.Path)
    args.add_argument("out", type=pathlib.Path)
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    docs = {s: (args.corpus / f"{s}.txt").read_text(encoding="utf-8").rstrip("\n").split("\n\f\n") for s in SOURCES}
    kept = {s: [d for i, d in enumerate(docs[s]) if i % HELD_OUT_EVERY != HELD_OUT_EVERY // 2] for s in SOURCES}
    held = {s: [d for i, d in enumerate(docs[s]) if i % HELD_OUT_EVERY == HELD_OUT_EVERY // 2] for s in SOURCES}
    tok = train_tokenizer(d for s in SOURCES for d in kept[s])
    tok.save(str(args.out / "tokenizer.json"), pretty=False)
    ends = [tok.decode([i], skip_special_tokens=False).endswith("\n\n") for i in range(tok.get_vocab_size())]
    train, starts, arrays = [], [], {}
    for s in SOURCES:
        for d in kept[s]:
            ids, at = encode(tok, d, ends)
            starts += [len(train) + a for a in at]
            train += ids
        arrays[f"val_{s}"] = np.array([i for d in held[s] for i in encode(tok, d, ends)[0]], np.uint16)
        chars = sum(map(len, held[s]))
        print(f"{s}: {len(kept[s])} documents kept, {len(held[s])} held out "
              f"({chars} characters, {len(arrays[f'val_{s}'])} tokens)")
    np.savez(args.out / "tokens.npz", train=np.array(train, np.uint16), starts=np.array(starts, np.uint32), **arrays)
    print(f"{len(train)} training tokens, {len(starts)} paragraphs, vocabulary {tok.get_vocab_size()}")


if __name__ == "__main__":
    main()
