#!/usr/bin/env python3
"""Writes tests/data/tok/steps: small tokenizers for every kind of step and model of tokenizer.json, with what HuggingFace `tokenizers` does with them.

Each file is an array of cases: {"name", "tokenizer": tokenizer.json as a string, "rows": [[text or ids, a, b, c], ...]}. For a text the answers are
its ids without and with special tokens, and with special tokens read as text; for ids their text without and with special tokens, and streamed. 0: the
same as the answer before; null: the reference fails there. Also writes seeds of the fuzz target. Needs `tokenizers`. Rerunning gives the same files."""
import array
import json
import random
from pathlib import Path

import check_pipelines as cp

TOP = Path(__file__).resolve().parent.parent / "tests"
BL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
WS = {"type": "WhitespaceSplit"}


def seq(kind, *steps):
    return {"type": "Sequence", {"n": "normalizers", "p": "pretokenizers", "d": "decoders", "o": "processors"}[kind]: list(steps)}


def norm(name, **opts):
    return dict({"type": name}, **opts)


def regex(r):
    return {"Regex": r}


def string(s):
    return {"String": s}


def split(p, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": p, "behavior": behavior, "invert": invert}


def normalizers():
    rng = random.Random(3)
    for n in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"):
        yield n, norm(n)
    for left, right in ((True, True), (True, False), (False, True)):
        yield f"Strip {left} {right}", norm("Strip", strip_left=left, strip_right=right)
    yield "Prepend", norm("Prepend", prepend="▁")
    for p in (string(" "), string("ab"), string(""), regex(r"\s+"), regex("a*"), regex(r"[^(\s|[.,!?])]"), regex(r"[\p{L}&&[^a]]"), regex(r"(?<=a)b|\bt")):
        yield f"Replace {p}", norm("Replace", pattern=p, content="▁")
    for i in range(12):
        yield f"Bert {i}", norm("BertNormalizer", clean_text=bool(i & 1), handle_chinese_chars=bool(i & 2), strip_accents=(None, True, False)[i // 4], lowercase=i % 5 < 3)
    for i in range(6):
        yield f"Precompiled {i}", norm("Precompiled", precompiled_charsmap=cp.charsmap(rng))
    yield "bert, then prepend", seq("n", norm("BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True), norm("Prepend", prepend="x"))
    yield "nmt, nfkc, spaces", seq("n", norm("Nmt"), norm("NFKC"), norm("Replace", pattern=regex(" {2,}"), content=" "), norm("Strip", strip_left=True, strip_right=True))


def pre_tokenizers():
    for n in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"):
        yield n, norm(n)
    for space in (True, False):
        for r in (True, False):
            yield f"ByteLevel {space} {r}", dict(BL, add_prefix_space=space, use_regex=r)
    yield "CharDelimiterSplit", norm("CharDelimiterSplit", delimiter="é")
    for scheme in ("always", "first", "never"):
        for s in (True, False):
            yield f"Metaspace {scheme} {s}", dict(META, prepend_scheme=scheme, split=s)
    for b in cp.BEHAVIORS:
        yield f"Punctuation {b}", norm("Punctuation", behavior=b)
        yield f"Split string {b}", split(string("a"), b)
        yield f"Split string inverted {b}", split(string("a"), b, True)
        yield f"Split regex {b}", split(regex(r"\w+|\s"), b)
        yield f"Split regex inverted {b}", split(regex(r"\p{L}{1,3}|\p{N}"), b, True)
    yield "Split empty", split(string(""))
    for one in (True, False):
        yield f"Digits {one}", norm("Digits", individual_digits=one)
    for n in (1, 3):
        yield f"FixedLength {n}", norm("FixedLength", length=n)
    yield "after ByteLevel", seq("p", dict(BL, use_regex=True), norm("Digits", individual_digits=True), split(string("Ġ"), "MergedWithNext"))
    yield "twice ByteLevel", seq("p", BL, norm("Whitespace"), dict(BL, use_regex=True))
    yield "scripts, metaspace", seq("p", norm("UnicodeScripts"), norm("WhitespaceSplit"), META, norm("Punctuation", behavior="Isolated"))


def decoders():
    for s in ("</w>", "a", ""):
        yield f"BPEDecoder {s}", norm("BPEDecoder", suffix=s)
    for p in ("##", "", "a"):
        for c in (True, False):
            yield f"WordPiece {p} {c}", norm("WordPiece", prefix=p, cleanup=c)
    for scheme in ("always", "never"):
        yield f"Metaspace {scheme}", dict(META, prepend_scheme=scheme)
    for c in (True, False):
        yield f"CTC {c}", norm("CTC", pad_token="<pad>", word_delimiter_token="|", cleanup=c)
    for p in (string("▁"), string(""), string("ab"), regex("[abé]+"), regex("a*"), regex(r"\s(?=\S)")):
        yield f"Replace {p}", norm("Replace", pattern=p, content=" ")
        yield f"Fuse, Replace {p}", seq("d", norm("Fuse"), norm("Replace", pattern=p, content="_"))
    for a, b in ((1, 0), (0, 1), (3, 0)):
        yield f"Strip {a} {b}", norm("Strip", content="▁", start=a, stop=b)
        yield f"Fuse, Strip {a} {b}", seq("d", norm("Fuse"), norm("Strip", content="▁", start=a, stop=b))
    yield "ByteFallback", norm("ByteFallback")
    yield "ByteLevel", BL
    yield "none", None
    yield "llama", seq("d", norm("Replace", pattern=string("▁"), content=" "), norm("ByteFallback"), norm("Fuse"), norm("Strip", content=" ", start=1, stop=0))
    for d in (norm("ByteFallback"), norm("WordPiece", prefix="##", cleanup=True), norm("BPEDecoder", suffix="ab"), norm("CTC", pad_token="a", word_delimiter_token="|", cleanup=True), META, BL):
        yield f"Fuse, {d['type']}", seq("d", norm("Fuse"), d)
    yield "ByteLevel, WordPiece", seq("d", BL, norm("WordPiece", prefix="##", cleanup=False))


def processors(tokens):
    a, b = tokens[3], tokens[5]
    special = {"X": {"id": "X", "ids": [a[1]], "tokens": [a[0]]}, "Y": {"id": "Y", "ids": [b[1], a[1]], "tokens": [b[0], a[0]]}}
    s, x, y = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "X", "type_id": 0}}, {"SpecialToken": {"id": "Y", "type_id": 0}}
    pair = [s, {"Sequence": {"id": "B", "type_id": 1}}]
    for parts in ([s], [x, s], [s, y], [x, s, y], [s, s], [x, s, y, s, x], [x, y], []):
        yield {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": special}
    bert = {"type": "BertProcessing", "sep": list(a), "cls": list(b)}
    yield bert
    yield {"type": "RobertaProcessing", "sep": list(b), "cls": list(a), "trim_offsets": True, "add_prefix_space": True}
    yield BL
    yield seq("o", BL, bert, {"type": "TemplateProcessing", "single": [x, s], "pair": pair, "special_tokens": special})


def flags():
    """All combinations of the flags of added tokens, over contents that touch each other."""
    for i in range(32):
        f = dict(single_word=bool(i & 1), lstrip=bool(i & 2), rstrip=bool(i & 4), normalized=bool(i & 8), special=bool(i & 16))
        yield i, [dict(f, content=c) for c in ("<x>", "ab", "É", "the")] + [dict(f, content=" ", lstrip=False, single_word=False)] * (i % 3 == 0)


def document(n=None, p=None, d=None):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": n, "pre_tokenizer": p, "post_processor": None, "decoder": d, "model": None}


def texts(rng, n):
    return [t for t in (cp.text(rng) for _ in range(2 * n)) if t][: n - 2] + [" the ab<x> É  ab ", "ab" * 12]


def tokens_of(model):
    v = model["vocab"]
    return list(v.items()) if isinstance(v, dict) else [(p, i) for i, (p, _) in enumerate(v)]


def add(doc, tokens):
    first = len(tokens_of(doc["model"]))
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    doc["added_tokens"] = [dict(base, id=first + i, **t) if len(t) == 1 else dict(t, id=first + i) for i, t in enumerate(tokens)]


def finish(name, doc, cases, rng):
    records, want = cp.reference(doc, cases, rng)
    rows = []
    for r, w in zip(records, want):
        what = r[1:].decode() if r[:1] == b"t" else list(array.array("i", r[1:]))
        if w != [None] * 3 and (len(rows) < 11 or r[:1] != b"t") and len(rows) < 16:
            rows.append([what, w[0], 0 if w[1] == w[0] else w[1], 0 if w[2] == w[1] else w[2]])
    return {"name": name, "tokenizer": json.dumps(doc, ensure_ascii=False, separators=(",", ":")), "rows": rows}


def sections():
    models = (cp.bpe, cp.unigram, cp.wordpiece, cp.wordlevel)

    def make(section, named, key):
        out = []
        for i, (name, step) in enumerate(named):
            rng = random.Random(f"{section} {name}")
            doc = document(**{key: step})
            if key == "n" and i % 2:
                doc["pre_tokenizer"] = WS if i % 3 else META
            t = texts(rng, 9)
            doc["model"] = models[i % 4](rng, cp.words_of(doc, t)[:90])
            add(doc, [{"content": "<x>"}])
            out.append(finish(name, doc, t, rng))
        return out

    yield "normalizers", make("normalizers", normalizers(), "n")
    yield "pre_tokenizers", make("pre_tokenizers", pre_tokenizers(), "p")
    yield "decoders", make("decoders", decoders(), "d")
    out = []
    for i in range(len(list(processors([("", 0)] * 9)))):
        rng = random.Random(i)
        doc, t = document(None, META), texts(rng, 5)
        doc["model"] = cp.wordlevel(rng, cp.words_of(doc, t)[:40])
        doc["post_processor"] = list(processors(tokens_of(doc["model"])))[i]
        out.append(finish(f"processor {i}", doc, t, rng))
    yield "processors", out
    out = []
    for i, tokens in flags():
        rng = random.Random(i)
        doc, t = document(norm("Lowercase") if i % 2 else None, WS if i % 3 else None), texts(rng, 8)
        doc["model"] = models[i % 4](rng, cp.words_of(doc, t)[:60])
        add(doc, tokens)
        out.append(finish(f"added {i}", doc, t, rng))
    yield "added", out
    out = []
    for i in range(48):
        rng = random.Random(100 + i)
        pres = (None, META, WS, BL)
        doc, t = document(None, pres[i // 4 % 4]), texts(rng, 8)
        doc["model"] = models[i % 4](rng, cp.words_of(doc, t)[:90])
        out.append(finish(f"model {i}", doc, t, rng))
    yield "models", out
    out = []
    for seed in range(5000, 5070):
        made = cp.attempt(lambda: cp.case(seed))
        if made:
            doc, t, rng = made
            case = cp.attempt(lambda: finish(f"seed {seed}", doc, t[:12], rng))
            if case and len(case["tokenizer"]) < 5000 and len(out) < 40:
                out.append(case)
    yield "mixed", out


def seeds(cases):
    folder = TOP / "fuzz/corpus/tokenizer"
    for name, text in cases:
        (folder / name).write_bytes(text.encode() + b"\0ab<x> the \xc3\x89 1\xff")


def main():
    (TOP / "data/tok/steps").mkdir(parents=True, exist_ok=True)
    chosen = []
    for name, cases in sections():
        path = TOP / f"data/tok/steps/{name}.json"
        path.write_text("[" + ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "]\n")
        print(name, len(cases), path.stat().st_size)
        small = sorted(cases, key=lambda c: len(c["tokenizer"]))
        for kind in ("Unigram", "WordPiece", "WordLevel", "BPE"):
            of = [c for c in small if f'"model":{{"type":"{kind}"' in c["tokenizer"]][:1]
            chosen += [(f"{name}_{kind.lower()}", c["tokenizer"]) for c in of]
    seeds(chosen)


main()
