#!/usr/bin/env python3
"""Compares our tokenizers with HuggingFace `tokenizers` on a generated corpus: ids (also with special tokens added), decoded text, streamed text.

    tools/check_tokenizers.py [--tool build/tok_tool] [--mb 2] [--seed 1] DIR... [GGUF=DIR ...]

DIR holds tokenizer.json; GGUF=DIR checks the metadata of a GGUF file against DIR's tokenizer.json. Needs the `tokenizers` package."""
import argparse
import array
import random
import struct
import subprocess
import sys
import time

from tokenizers import Tokenizer

RANGES = [(0x20, 0x7E)] * 6 + [(0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
          (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2100, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x9FFF),
          (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFE00, 0xFFEF), (0x10000, 0x105FF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF),
          (0x20000, 0x2A6DF), (0xE0000, 0xE01FF), (1, 0x10FFFF)]  # fmt: skip
WORDS = ("the of and to in that is was he for it with as his on be at by had are but from or have an they which one you were her all she there would "
         "their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may "
         "then do first any my now such like our over man me even most made after also did many before must through back years where much your way "
         "internationalization antidisestablishmentarianism naïve façade Zürich Straße Москва привет мир 日本語 テキスト 中文测试 한국어 العربية עברית हिन्दी "
         "def return import numpy self.foo() x+=1; a->b; {\"k\":[1,2.5e-3]} <div> </div> https://example.com/a?b=c&d=%20 C:\\\\path __init__").split()  # fmt: skip
BITS = ["'s", "'S", "'ll", "'LL", "'Re", "'ſ", "'t", "'ve", "don't", "I'M", "''", "'", "’s", " ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\x0b",
        "\x0c", "\x85", "\xa0", "\u2003", "\u2028", "\u3000", "\u200b", "\u200d", "\ufeff", "\x00", "\x1f", "\x7f", "e\u0301", "\u0301", "a\u0308\u0323",
        "\u1112\u1161\u11ab", "가\u11a8", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "👍🏽", "🇩🇪", "☺️", "1", "12", "123", "1234", "12345", "٣٤٥", "½", "Ⅷ", "ǅ", "ʰ",
        "İ", "ß", "ﬁ", "K", "...", "!!!", "--", "/", "//", "\n/", "#$%", "(", ")", "[", "]", "_", "▁", "▁▁", "▁▁▁", "<0x41>", "<0xE2>", "�", "\ufffe", "ñ",
        "Å", "\u212b", "豈", "＠", "，", "。", "「", "」", "ー", "ゟ", "ヿ", "龥", "龦", "ABC", "Abc", "aBC", "HTTPServer", "iPhone"]  # fmt: skip


def texts(rng, nbytes, added):
    done = 0
    while done < nbytes:
        kind = rng.randrange(12)
        n = rng.choice((1, 2, 3, 5, 10, 30, 100, 300))
        if kind < 3:
            t = " ".join(rng.choice(WORDS) for _ in range(n))
        elif kind < 5:
            t = "".join(rng.choice(BITS) for _ in range(n))
        elif kind == 5:
            lo, hi = rng.choice(RANGES)
            t = "".join(map(chr, (c for c in (rng.randint(lo, hi) for _ in range(n)) if not 0xD800 <= c < 0xE000)))
        elif kind == 6:
            t = "".join(chr(c) for c in (rng.randint(*rng.choice(RANGES)) for _ in range(n)) if not 0xD800 <= c < 0xE000)
        elif kind == 7:
            t = "".join(rng.choice((rng.choice(BITS), rng.choice(WORDS), rng.choice(added or [""]), " ")) for _ in range(n))
        elif kind == 8:
            t = rng.choice(BITS + WORDS + ["a", "z", "ab", "é", "中"]) * n * rng.choice((1, 1, 7))
        elif kind == 9:
            t = "".join(rng.choice("abAB '\n1.") for _ in range(n))
        elif kind == 10:
            t = bytes(rng.choice((rng.randrange(256), rng.randrange(128, 256), rng.randrange(32, 127))) for _ in range(n))
        else:
            t = "".join(rng.choice((rng.choice(WORDS), rng.choice(BITS), rng.choice(BITS), " ", " ")) for _ in range(n))
        data = t if isinstance(t, bytes) else t.encode()
        done += len(data) + 1
        yield data


def ask(tool, mode, model, records):
    data = b"".join(struct.pack("<I", len(r)) + r for r in records)
    out = subprocess.run([tool, mode, model], input=data, stdout=subprocess.PIPE, check=True).stdout
    got, at = [], 0
    while at < len(out):
        (n,) = struct.unpack_from("<I", out, at)
        got.append(out[at + 4 : at + 4 + n])
        at += 4 + n
    assert len(got) == len(records), "the tool stopped early"
    return got


def ints(b):
    return list(array.array("i", b))


def compare(label, tool, model, ref, corpus, skip_ids):
    strings = [d.decode(errors="replace") for d in corpus]
    bad = 0
    t0 = time.time()
    for mode, special in (("encode", False), ("special", True)):
        got = ask(tool, mode, model, corpus)
        want = [e.ids for e in ref.encode_batch(strings, add_special_tokens=special)]
        for s, g, w in zip(corpus, got, want):
            g = ints(g)
            if g != w and not any(i in skip_ids for i in w):
                bad += 1
                if bad <= 5:
                    k = next((i for i, (a, b) in enumerate(zip(g, w)) if a != b), min(len(g), len(w)))
                    print(f"{label} {mode}: {s[:200]!r}\n  at {k}: ours {g[k:k+8]} {[ref.id_to_token(i) for i in g[k:k+8]]}"
                          f"\n          want {w[k:k+8]} {[ref.id_to_token(i) for i in w[k:k+8]]}")  # fmt: skip
    rng = random.Random(7)
    size = ref.get_vocab_size()
    lists = [w for w in want if not any(i in skip_ids for i in w)]
    lists += [[i for i in (rng.randrange(size) for _ in range(20)) if ref.id_to_token(i) is not None and i not in skip_ids] for _ in range(2000)]
    for mode, skip in (("all" if skip_ids else "decode", not skip_ids), ("stream", False)):
        got = ask(tool, mode, model, [array.array("i", w).tobytes() for w in lists])
        for w, g in zip(lists, got):
            if g.decode() != ref.decode(w, skip_special_tokens=skip):
                bad += 1
                if bad <= 10:
                    print(f"{label} {mode}: {w[:30]}\n  ours {g.decode()[:200]!r}\n  want {ref.decode(w, skip_special_tokens=skip)[:200]!r}")
    print(f"{label}: {len(corpus)} texts, {sum(map(len, corpus))} bytes, {len(lists)} id lists, {bad} differences, {time.time() - t0:.1f} s", flush=True)
    return bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default="build/tok_tool")
    ap.add_argument("--mb", type=float, default=2)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--file", action="append", default=[], help="a text to add to the corpus")
    ap.add_argument("model", nargs="+")
    a = ap.parse_args()
    bad = 0
    for m in a.model:
        ours, _, ref_dir = m.partition("=")
        ref = Tokenizer.from_file((ref_dir or ours) + "/tokenizer.json")
        ref.no_padding()
        ref.no_truncation()
        added = [t.content for t in ref.get_added_tokens_decoder().values()]
        corpus = list(texts(random.Random(a.seed), a.mb * 1e6, added)) + [open(f, "rb").read() for f in a.file]
        # a GGUF lacks tokens behind the model's vocabulary, and its types call more tokens special than tokenizer.json does
        skip = {i for i in range(ref.get_vocab_size()) if ref.id_to_token(i) == "<image_soft_token>"} if ref_dir else set()
        bad += compare(ours, a.tool, ours, ref, corpus, skip)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
