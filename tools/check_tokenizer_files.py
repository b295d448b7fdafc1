#!/usr/bin/env python3
"""Compares our reading of tokenizer files with the library that each kind belongs to, on the nasty texts of check_tokenizers.py: ids and decoded text.

    tools/check_tokenizer_files.py [--tool build/tok_tool] [--mb 1] [--seed 1] FILE...

FILE: a tekken*.json (mistral-common), a SentencePiece model (sentencepiece), a *.tiktoken file (tiktoken; --ranks KIND names the pattern and the special
tokens: whisper, llama3, qwen, o200k, cl100k), or a folder with vocab.json or vocab.txt (transformers, which is slow to start)."""
import argparse
import array
import base64
import os
import random
import sys
import time

from check_tokenizers import ask, ints, texts

CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UP, LO = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CON, FRONT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|", r"[^\r\n\p{L}\p{N}]?"
O200K = FRONT + UP + "*" + LO + "+" + CON + FRONT + UP + "+" + LO + "*" + CON + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


LANGUAGES = ("en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl "
             "kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw "
             "ln ha ba jw su yue")  # fmt: skip


class Tekken:
    def __init__(self, path):
        from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer

        self.t = Tekkenizer.from_file(path)
        self.keep, self.drop = SpecialTokenPolicy.KEEP, SpecialTokenPolicy.IGNORE
        self.size = self.t.n_words
        self.added = [t["token_str"] for t in self.t._all_special_tokens]

    def encode(self, s, special):
        return self.t.encode(s, bos=special, eos=False)

    def decode(self, ids, skip):
        return self.t.decode(ids, self.drop if skip else self.keep)

    def piece(self, i):
        return True


class Spm:
    def __init__(self, path):
        import sentencepiece

        self.t = sentencepiece.SentencePieceProcessor(model_file=path)
        self.size = self.t.get_piece_size()
        self.added = [self.t.id_to_piece(i) for i in range(self.size) if self.t.IsControl(i) or self.t.IsUnknown(i)][:50] + ["<0x41>"]
        self.bos = self.t.bos_id() if self.t.bos_id() >= 0 else None

    def encode(self, s, special):
        return self.t.encode(s)

    def decode(self, ids, skip):
        return self.t.decode(ids)

    def piece(self, i):
        return True


class Ranks:
    def __init__(self, path, kind):
        import tiktoken

        ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in open(path, "rb") if line.strip())}
        n = len(ranks)
        sp = {
            "whisper": [],
            "llama3": ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(4)]
            + ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
            + [f"<|reserved_special_token_{i}|>" for i in range(5, 251)],
            "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)],
        }.get(kind, [])
        special = {s: n + i for i, s in enumerate(sp)}
        if kind == "whisper":
            sp = ["<|endoftext|>", "<|startoftranscript|>"] + [f"<|{x}|>" for x in LANGUAGES.split()[:99]]
            sp += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
            special = {s: n + i for i, s in enumerate(sp + [f"<|{i * 0.02:.2f}|>" for i in range(1501)])}
        if kind == "o200k":
            special = {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
        if kind == "cl100k":
            special = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}
        pattern = {"whisper": GPT2, "qwen": CL100K.replace("{1,3}", ""), "o200k": O200K}.get(kind, CL100K)
        self.t = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        self.kind, self.size, self.special = kind, max(list(ranks.values()) + list(special.values())) + 1, set(special.values())
        self.bos = special.get("<|begin_of_text|>")
        self.have = set(ranks.values()) | self.special
        self.added = list(special)

    def encode(self, s, special):
        if self.kind == "qwen":
            import unicodedata

            s = unicodedata.normalize("NFC", s)
        return ([self.bos] if special and self.bos is not None else []) + self.t.encode(s, allowed_special="all")

    def decode(self, ids, skip):
        return self.t.decode([i for i in ids if not skip or i not in self.special])

    def piece(self, i):
        return i in self.have


class Folder:
    def __init__(self, path):
        from transformers import AutoTokenizer

        self.t = AutoTokenizer.from_pretrained(path)
        self.size = len(self.t)
        self.added = list(self.t.get_added_vocab())

    def encode(self, s, special):
        return self.t.encode(s, add_special_tokens=special)

    def decode(self, ids, skip):
        return self.t.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)

    def piece(self, i):
        return self.t.convert_ids_to_tokens(i) is not None


def reference(path, kind):
    name = os.path.basename(path)
    if os.path.isdir(path):
        return Folder(path)
    if name.startswith("tekken"):
        return Tekken(path)
    if kind:
        return Ranks(path, kind)
    return Spm(path)


def compare(path, tool, ref, corpus):
    strings = [d.decode(errors="replace") for d in corpus]
    bad = 0
    t0 = time.time()
    modes = [("encode", False)] + ([] if isinstance(ref, Spm) else [("special", True)])
    for mode, special in modes:
        got = [ints(g) for g in ask(tool, mode, path, corpus)]
        want = [list(ref.encode(s, special)) for s in strings]
        for s, g, w in zip(corpus, got, want):
            if g != w:
                bad += 1
                if bad <= 5:
                    k = next((i for i, (a, b) in enumerate(zip(g, w)) if a != b), min(len(g), len(w)))
                    print(f"{path} {mode}: {s[:200]!r}\n  at {k}: ours {g[k:k+8]}\n      want {w[k:k+8]}")
    rng = random.Random(7)
    lists = want + [[i for i in (rng.randrange(ref.size) for _ in range(20)) if ref.piece(i)] for _ in range(3000)]
    lists += [[rng.randrange(min(300, ref.size)) for _ in range(rng.randrange(12))] for _ in range(3000)]
    lists = [[i for i in w if ref.piece(i)] for w in lists]
    for mode, skip in (("decode", True), ("stream", False)):
        got = ask(tool, mode, path, [array.array("i", w).tobytes() for w in lists])
        for w, g in zip(lists, got):
            try:
                r = ref.decode(w, skip)
            except Exception as e:
                print(path, "the reference fails:", w, e)
                continue
            if g.decode() != r:
                bad += 1
                if bad <= 10:
                    print(f"{path} {mode}: {w[:30]}\n  ours {g.decode()[:200]!r}\n  want {r[:200]!r}")
    print(f"{path}: {len(corpus)} texts, {sum(map(len, corpus))} bytes, {len(lists)} id lists, {bad} differences, {time.time() - t0:.1f} s", flush=True)
    return bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default="build/tok_tool")
    ap.add_argument("--mb", type=float, default=1)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--ranks", help="the files are tiktoken ranks of this kind")
    ap.add_argument("file", nargs="+")
    a = ap.parse_args()
    bad = 0
    for path in a.file:
        ref = reference(path, a.ranks)
        corpus = list(texts(random.Random(a.seed), a.mb * 1e6, ref.added))
        corpus += [b"a" * 5000, b" " * 5000, "é".encode() * 5000, b"ab" * 2500, b" a" * 2500, b"", b" ", b"\n"]
        bad += compare(path, a.tool, ref, corpus)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
