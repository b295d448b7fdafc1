#!/usr/bin/env python3
"""Compares our tokenizers with HuggingFace `tokenizers` on random pipelines and random text.

    tools/check_pipelines.py [--tool build/tok_tool] [--seed 1] [--count 500] [--keep DIR]

Each case is a tokenizer.json with random normalizers, pre-tokenizers, decoders, post-processors, added tokens and one of the four models, whose
vocabulary is made of the words that the pipeline itself yields. Compared are the ids (without and with special tokens, and with special tokens read
as text), the text of those ids and of random ids with and without special tokens, and the streamed text. Where the reference fails, nothing is
compared, but ours must not crash. The first pipelines that differ are kept in DIR. Needs `tokenizers`."""
import argparse
import array
import base64
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

from tokenizers import Tokenizer

LETTERS = "aaaabbcdeABé"
BITS = ["a", "b", "ab", "aab", "A", "B", "e\u0301", "é", "É", "İ", "ß", "ẞ", "Σ", "ς", "ǅ", "\u0345", "中", "文", "日本", "\u3007", "ア", "ー", "ｶﾞ", "가", "\u1112\u1161\u11ab", "\u11ab", " ", " ", " ", "  ", "   ",
        "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\xa0", "\u2003", "\u2028", "\u3000", "\u180e", "\u200b", "\u200d", "\ufeff", "\x00", "\x01", "\x1f", "\x7f", "\x8f", "\xad",
        "1", "12", "٣", "½", "²", "Ⅷ", "৪", ".", ",", "!", "?", "-", "--", "'", "'s", "n't", " do not", " .", " '", "’", "«", "$", "+", "_", "|", "<", ">", "\\", "/", "#", "##a", "##",
        "▁", "▁▁", "Ġ", "Ċ", "<0x41>", "<0xE2>", "</w>", "<unk>", "[UNK]", "<s>", "</s>", "<pad>", "[MASK]", "<x>", "ab ", " ab", "Hello", "wörld", "the", "of", "don't", "it's",
        "\u0301", "\u0308\u0323", "a\u0308\u0323", "\u0591", "\u0b57", "\u1dfa", "\u20dd", "\ufe0f", "\U000e0101", "👍🏽", "👨\u200d👩\u200d👧", "🇩🇪🇫", "☺️", "©\u200d©", "\u0600a", "\u0e33", "ﬁ", "①", "ｆｕ", "㌔", "Å", "\u212b", "豈",
        "\u0378", "\ue000", "\ufffe", "\ufffd", "\U0010ffff", "\U00010d50", "ꟋꟌ", "\u1c89", "\U00031350", "\U0001e4ec", "нет", "Привет", "שָׁ", "हिन्दी", "ไทย"]  # fmt: skip


def text(rng):
    kind = rng.randrange(10)
    n = rng.choice((0, 1, 1, 2, 3, 5, 8, 13, 30))
    if kind < 5:
        return "".join(rng.choice(BITS) for _ in range(n))
    if kind < 7:
        return "".join(rng.choice(LETTERS + " ") for _ in range(n * 2))
    if kind == 7:
        return rng.choice(BITS) * n
    if kind == 8:
        c = [rng.choice((rng.randrange(0x250), rng.randrange(0x3100), rng.randrange(0x110000))) for _ in range(n)]
        return "".join(chr(x) for x in c if not 0xD800 <= x < 0xE000)
    return " ".join(rng.choice(BITS) for _ in range(n))


def flip(rng, p=0.5):
    return rng.random() < p


CLASSES = [r"\s", r"\S", r"\w", r"\W", r"\d", r"\p{L}", r"\P{L}", r"\p{Lu}", r"\p{N}", r"\p{P}", r"\p{^M}", r"\h", "a", "ab", ".", "[abc]", r"[^\s\p{L}]", r"[^(\s|[.,!?])]", r"[\p{L}&&[^a]]",
           r"[a-c[1-2]]", r"[\s\S]", r"[^\S\n]", r"[[:alpha:]]", r"[^[:punct:]]", r"[\w&&\P{Han}]", r"\p{Han}", "▁", " ", "'", r"\.", "[-a]", "[a-]", "[]a]", r"[\]\[]", "\\x{e9}", "\\u00e9", r"\R", r"[[:^digit:]]", r"\p{Hiragana}", r"\p{Cn}", r"[^\p{C}]"]  # fmt: skip
AROUND = [r"\b", r"\B", "^", "$", r"\A", r"\z", "(?=a)", "(?!\\S)", r"(?<=\s)", "(?<!a)", ""]


def regex(rng, depth=1):
    def atom():
        if depth and flip(rng, 0.15):
            return rng.choice(("(%s)", "(?:%s)", "(?i:%s)", "(?>%s)")) % regex(rng, depth - 1)
        return rng.choice(CLASSES)

    def piece():
        return (rng.choice(AROUND) if flip(rng, 0.15) else "") + atom() + rng.choice(("", "", "", "+", "*", "?", "+?", "++", "{2}", "{1,3}", "{,2}", "{2,}", "*?", "{2}?", "{1,2}+"))

    return "|".join("".join(piece() for _ in range(rng.choice((1, 1, 2, 3)))) for _ in range(rng.choice((1, 1, 2, 3))))


def pattern(rng):
    if flip(rng):
        return {"String": rng.choice((" ", "a", "ab", "▁", "  ", "\n", "'", "é", "", "aa", "."))}
    return {"Regex": regex(rng)}


def put_unit(units, at, value):
    while len(units) <= at:
        units.extend([0] * 256)
    units[at] = value


def charsmap(rng):
    """A double array as darts-clone lays it out, and the replacements."""
    rules = {rng.choice(BITS): rng.choice(["", " ", "a", "ab", "é", "x y", "中"] + BITS) for _ in range(rng.choice((1, 5, 20)))}
    rules = {k.encode(): v for k, v in rules.items() if k and "\0" not in k and "\0" not in v}
    blob, where = b"", {}
    for v in rules.values():
        if v not in where:
            where[v] = len(blob)
            blob += v.encode() + b"\0"
    units, used, bases = [0] * 256, {0}, set()

    def offset(frm, to):
        d = frm ^ to
        return d << 10 if d < 1 << 21 else (d >> 8) << 10 | 1 << 9

    def build(at, keys, depth):
        kids = sorted({k[depth] for k in keys if len(k) > depth} | ({0} if any(len(k) == depth for k in keys) else set()))
        base = 256
        while base in bases or any(base ^ c in used for c in kids) or ((at ^ base) >= 1 << 21 and (at ^ base) & 255):
            base += 1
        bases.add(base)
        for c in kids:
            used.add(base ^ c)
        old = units[at] if at < len(units) else 0
        put_unit(units, at, old | offset(at, base) | (1 << 8 if 0 in kids else 0))
        for c in kids:
            if c:
                put_unit(units, base ^ c, c)
                build(base ^ c, [k for k in keys if len(k) > depth and k[depth] == c], depth + 1)
            else:
                put_unit(units, base, where[rules[next(k for k in keys if len(k) == depth)]] | 1 << 31)

    build(0, list(rules), 0)
    data = struct.pack(f"<I{len(units)}I", len(units) * 4, *units) + blob
    return base64.b64encode(data).decode()


def sequence(rng, make, key, most):
    n = rng.choice((0, 1, 1, 2, 3, most))
    steps = [make(rng) for _ in range(n)]
    if not steps:
        return None
    return steps[0] if len(steps) == 1 and flip(rng) else {"type": "Sequence", key: steps}


def normalizer(rng):
    t = rng.choice(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "ByteLevel", "Prepend", "Replace", "Replace", "BertNormalizer", "Precompiled"))
    d = {"type": t}
    if t == "ByteLevel" and flip(rng, 0.7):
        return {"type": "NFC"}
    if t == "Strip":
        d.update(strip_left=flip(rng), strip_right=flip(rng))
    if t == "Prepend":
        d.update(prepend=rng.choice(("▁", "ab", " ", "é")))
    if t == "Replace":
        d.update(pattern=pattern(rng), content=rng.choice(("", " ", "▁", "b", "ab", "é", "$1")))
    if t == "BertNormalizer":
        d.update(clean_text=flip(rng), handle_chinese_chars=flip(rng), strip_accents=rng.choice((None, True, False)), lowercase=flip(rng))
    if t == "Precompiled":
        d.update(precompiled_charsmap=charsmap(rng))
    return d


BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


def pre_tokenizer(rng):
    t = rng.choice(("BertPreTokenizer", "ByteLevel", "ByteLevel", "CharDelimiterSplit", "Metaspace", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Split", "Split", "Split", "UnicodeScripts", "FixedLength"))
    d = {"type": t}
    if t == "ByteLevel":
        d.update(add_prefix_space=flip(rng), trim_offsets=flip(rng), use_regex=flip(rng))
    if t == "CharDelimiterSplit":
        d.update(delimiter=rng.choice("- a▁é"))
    if t == "Metaspace":
        d.update(replacement=rng.choice("▁▁▁_é"), prepend_scheme=rng.choice(("always", "first", "never")), split=flip(rng))
    if t == "Punctuation":
        d.update(behavior=rng.choice(BEHAVIORS))
    if t == "Digits":
        d.update(individual_digits=flip(rng))
    if t == "Split":
        d.update(pattern=pattern(rng), behavior=rng.choice(BEHAVIORS), invert=flip(rng))
    if t == "FixedLength":
        d.update(length=rng.choice((1, 2, 5, 7)))
    return d


def decoder(rng):
    t = rng.choice(("BPEDecoder", "ByteLevel", "WordPiece", "Metaspace", "CTC", "Replace", "Replace", "Fuse", "Strip", "ByteFallback"))
    d = {"type": t}
    if t == "BPEDecoder":
        d.update(suffix=rng.choice(("</w>", "a", "")))
    if t == "ByteLevel":
        d.update(add_prefix_space=True, trim_offsets=True, use_regex=True)
    if t == "WordPiece":
        d.update(prefix=rng.choice(("##", "", "a")), cleanup=flip(rng))
    if t == "Metaspace":
        d.update(replacement=rng.choice("▁▁_a"), prepend_scheme=rng.choice(("always", "first", "never")), split=flip(rng))
    if t == "CTC":
        d.update(pad_token=rng.choice(("<pad>", "a")), word_delimiter_token=rng.choice(("|", "▁")), cleanup=flip(rng))
    if t == "Replace":
        d.update(pattern=pattern(rng), content=rng.choice(("", " ", "b", "é")))
    if t == "Strip":
        d.update(content=rng.choice(" ▁a"), start=rng.choice((0, 1, 3)), stop=rng.choice((0, 0, 1)))
    return d


def added_tokens(rng, first):
    out = []
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        c = rng.choice(("<s>", "</s>", "<unk>", "[UNK]", "<pad>", "[MASK]", "<x>", "ab", "a", " ", "Ab", "é", "  ", "中", "▁", "\n", "the", "e\u0301", "<s><x>", ""))
        out.append({"id": first + len(out), "content": c, "single_word": flip(rng, 0.2), "lstrip": flip(rng, 0.3), "rstrip": flip(rng, 0.3), "normalized": flip(rng), "special": flip(rng)})
    return out


def post_processor(rng, tokens):
    def one(depth):
        t = rng.choice(("TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence", None))
        a, b = rng.choice(tokens), rng.choice(tokens)
        if t in (None, "ByteLevel") or (t == "Sequence" and not depth):
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        if t == "Sequence":
            # the reference takes the parts of a template for so many sequences: nothing may follow one
            steps = [one(depth - 1) for _ in range(rng.choice((0, 1, 2)))]
            return {"type": t, "processors": sorted(steps, key=lambda s: "single" in json.dumps(s))[: 1 + ("single" not in json.dumps(steps[:1]))]}
        if t == "TemplateProcessing":
            seq = {"Sequence": {"id": "A", "type_id": 0}}
            parts = [seq] * rng.choice((0, 1, 1, 1, 1, 1, 2)) + [{"SpecialToken": {"id": rng.choice("XY"), "type_id": 0}} for _ in range(rng.choice((0, 1, 2)))]
            rng.shuffle(parts)
            ids = [(rng.choice(tokens)) for _ in range(rng.choice((1, 1, 3)))]
            special = {"X": {"id": "X", "ids": [a[1]], "tokens": [a[0]]}, "Y": {"id": "Y", "ids": [i for _, i in ids], "tokens": [s for s, _ in ids]}}
            return {"type": t, "single": parts, "pair": [seq, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}
        d = {"type": t, "sep": list(a), "cls": list(b)}
        if t == "RobertaProcessing":
            d.update(trim_offsets=flip(rng), add_prefix_space=flip(rng))
        return d

    return one(2) if flip(rng, 0.6) else None


def words_of(doc, texts):
    probe = dict(doc, model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, added_tokens=[], post_processor=None, decoder=None)
    tok = Tokenizer.from_str(json.dumps(probe))
    out = []
    for t in texts:
        s = tok.normalizer.normalize_str(t) if doc["normalizer"] else t
        out += [w for w, _ in tok.pre_tokenizer.pre_tokenize_str(s)] if doc["pre_tokenizer"] else [s]
    return [w for w in out if w][:400]


def bpe(rng, words):
    opts = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": flip(rng), "byte_fallback": flip(rng, 0.3), "ignore_merges": flip(rng, 0.3)}
    if flip(rng, 0.6):
        opts["unk_token"] = "<unk>"
    if flip(rng, 0.2):
        opts["continuing_subword_prefix"] = rng.choice(("##", "", "@"))
    if flip(rng, 0.2):
        opts["end_of_word_suffix"] = rng.choice(("</w>", ""))
    p, e = opts["continuing_subword_prefix"] or "", opts["end_of_word_suffix"] or ""
    vocab, merges = (["<unk>"] if flip(rng, 0.95) else ["<nk>"]), []
    split = [[(p if i else "") + c + (e if i == len(w) - 1 else "") for i, c in enumerate(w)] for w in words]
    seen = dict.fromkeys(c for w in split for c in w)
    vocab += [c for c in seen if flip(rng, 0.85)]
    have = set(vocab)
    for _ in range(rng.choice((0, 10, 60))):
        pairs = [(w[i], w[i + 1]) for w in split for i in range(len(w) - 1) if w[i] in have and w[i + 1] in have]
        if not pairs:
            break
        a, b = rng.choice(pairs)
        new = a + b[len(p):]
        merges.append([a, b])
        if new not in have:
            have.add(new)
            vocab.append(new)
        for w in split:
            i = 0
            while i + 1 < len(w):
                if w[i] == a and w[i + 1] == b:
                    w[i : i + 2] = [new]
                i += 1
    if flip(rng, 0.3):
        vocab += [w for w in dict.fromkeys(words) if w not in have and flip(rng, 0.2)]
    if opts["byte_fallback"]:
        vocab += [f"<0x{i:02X}>" for i in range(256) if flip(rng, 0.98) or flip(rng, 0.5)]
    vocab = list(dict.fromkeys(vocab))
    return dict({"type": "BPE"}, **opts, vocab={v: i for i, v in enumerate(vocab)}, merges=merges if flip(rng) or any(" " in x for m in merges for x in m) else [" ".join(m) for m in merges])


def pieces(rng, words, chars):
    out = dict.fromkeys(c for w in words for c in w if flip(rng, chars))
    for _ in range(rng.choice((5, 50, 200))):
        if words:
            w = rng.choice(words)
            i = rng.randrange(len(w))
            out[w[i : i + rng.choice((1, 2, 3, 5, 30))]] = None
    return list(out)


def unigram(rng, words):
    v = ["<unk>"] + pieces(rng, words, 0.7)
    fall = flip(rng, 0.3)
    if fall:
        v += [f"<0x{i:02X}>" for i in range(256) if flip(rng, 0.99)]
    score = rng.choice((lambda: -rng.random() * 12, lambda: -float(rng.randrange(4)), lambda: rng.uniform(-3, 3), lambda: 50 + rng.random()))
    return {"type": "Unigram", "unk_id": 0 if flip(rng, 0.9) else None if flip(rng) else rng.randrange(len(v)), "byte_fallback": fall, "vocab": [[p, 0.0 if i == 0 else round(score(), 3)] for i, p in enumerate(v)] + ([["ab", -1.0], ["<unk>", -2.0]] if flip(rng, 0.1) else [])}


def wordpiece(rng, words):
    prefix = rng.choice(("##", "##", "", "@"))
    v = ["[UNK]"] * flip(rng, 0.95) + pieces(rng, words, 0.7) + [prefix + p for p in pieces(rng, words, 0.9)] + ["x"]
    v = list(dict.fromkeys(v))
    return {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": prefix, "max_input_chars_per_word": rng.choice((100, 100, 5, 0)), "vocab": {p: i for i, p in enumerate(v)}}


def wordlevel(rng, words):
    v = list(dict.fromkeys(["<unk>"] * flip(rng, 0.95) + [w for w in words if flip(rng, 0.7)] + ["x"]))
    return {"type": "WordLevel", "unk_token": "<unk>", "vocab": {p: i for i, p in enumerate(v)}}


def case(seed):
    rng = random.Random(seed)
    texts = [text(rng) for _ in range(40)] + ["", "ab" * 600, rng.choice(BITS) * 3000]
    doc = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": sequence(rng, normalizer, "normalizers", 5),
           "pre_tokenizer": sequence(rng, pre_tokenizer, "pretokenizers", 5), "post_processor": None, "decoder": sequence(rng, decoder, "decoders", 5), "model": None}  # fmt: skip
    words = words_of(doc, texts[:40])
    model = rng.choice((bpe, unigram, wordpiece, wordlevel))(rng, words)
    vocab = model["vocab"]
    tokens = list(vocab.items()) if isinstance(vocab, dict) else [(p, i) for i, (p, _) in enumerate(vocab)]
    doc["model"] = model
    doc["added_tokens"] = added_tokens(rng, len(tokens))
    doc["post_processor"] = post_processor(rng, tokens)
    return doc, texts, rng


def attempt(f):
    try:
        return f()
    except BaseException as e:  # a panic of the reference is no Exception
        if isinstance(e, (KeyboardInterrupt, SystemExit)):
            raise
        return None


def reference(doc, texts, rng):
    tok = Tokenizer.from_str(json.dumps(doc))
    if doc["normalizer"]:
        plain = {a["content"] for a in doc["added_tokens"] if a["normalized"] and a["content"]}
        forms = [tok.normalizer.normalize_str(c) for c in plain]
        if "" in forms or len(set(forms)) < len(forms):
            return None  # an empty pattern matches between characters, and which of two equal ones matches is left to chance
    size = max(tok.get_vocab().values(), default=0) + 1
    known = [i for i in range(size) if tok.id_to_token(i) is not None]
    records, want = [], []
    for t in texts:
        records.append(b"t" + t.encode())
        tok.encode_special_tokens = False
        row = [attempt(lambda: tok.encode(t, add_special_tokens=False).ids), attempt(lambda: tok.encode(t, add_special_tokens=True).ids)]
        tok.encode_special_tokens = True
        want.append(row + [attempt(lambda: tok.encode(t, add_special_tokens=False).ids)])
        tok.encode_special_tokens = False
    lists = [r[1] for r in want if r[1]] + [[rng.choice(known) for _ in range(rng.choice((0, 1, 2, 5, 20)))] for _ in range(30)]
    lists += [[rng.choice(known)] * 3 for _ in range(3)]
    for ids in lists:
        records.append(b"i" + array.array("i", ids).tobytes())
        skip, full = (attempt(lambda: tok.decode(ids, skip_special_tokens=s)) for s in (True, False))
        want.append([skip, full, full])
    return records, want


def ours(tool, folder, records):
    data = b"".join(struct.pack("<I", len(r)) + r for r in records)
    try:
        run = subprocess.run([tool, "each", folder], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    except subprocess.TimeoutExpired:
        return None, "takes longer than 20 s"
    out, got, at = run.stdout, [], 0
    while at + 4 <= len(out):
        (n,) = struct.unpack_from("<I", out, at)
        at += 4
        got.append(None if n == 0xFFFFFFFF else out[at : at + n])
        at += 0 if n == 0xFFFFFFFF else n
    if run.returncode or len(got) != 3 * len(records):
        return None, f"exit status {run.returncode}: {run.stderr.decode(errors='replace')[-600:]}"
    return [got[i : i + 3] for i in range(0, len(got), 3)], None


def compare(records, want, got):
    for r, w, g in zip(records, want, got):
        for mode, (a, b) in enumerate(zip(w, g)):
            if r[:1] == b"t":
                b = None if b is None else list(array.array("i", b))
            else:
                b = None if b is None else b.decode()
            if a is not None and a != b:
                what = r[1:].decode() if r[:1] == b"t" else list(array.array("i", r[1:]))
                name = (("encode", "special", "plain") if r[:1] == b"t" else ("skip", "decode", "stream"))[mode]
                return f"{name} {what if isinstance(what, list) else ascii(what)[:300]}\n   want {ascii(a)[:400]}\n   ours {ascii(b)[:400]}"
    return None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default="build/tok_tool")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--count", type=int, default=500)
    ap.add_argument("--keep", help="folder for the tokenizers that differ")
    ap.add_argument("--most", type=int, default=10, help="differences to show")
    a = ap.parse_args()
    bad = refused = pairs = 0
    t0 = time.time()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as top:
        for seed in range(a.seed, a.seed + a.count):
            made = attempt(lambda: case(seed))
            since = time.time()
            ref = made and attempt(lambda: reference(*made))
            slow = time.time() - since > 5
            if not ref:
                refused += 1
                continue
            with open(top + "/tokenizer.json", "w", encoding="utf-8") as f:
                json.dump(made[0], f, ensure_ascii=False)
            got, problem = ours(a.tool, top, ref[0])
            problem = None if problem and slow else problem or compare(ref[0], ref[1], got)
            pairs += len(ref[0]) * 3
            if problem:
                bad += 1
                if bad <= a.most:
                    if "precompiled_charsmap" in json.dumps(made[0]["normalizer"]):
                        for n in made[0]["normalizer"].get("normalizers", [made[0]["normalizer"]]):
                            n.pop("precompiled_charsmap", None)
                    steps = {k: made[0][k] for k in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "added_tokens")}
                    model = {k: v for k, v in made[0]["model"].items() if k not in ("vocab", "merges")}
                    print(f"seed {seed}: {problem}\n   {ascii(json.dumps(steps, ensure_ascii=False))[:1500]}\n   {model}", flush=True)
                if a.keep:
                    os.makedirs(f"{a.keep}/{seed}", exist_ok=True)
                    with open(f"{a.keep}/{seed}/tokenizer.json", "w", encoding="utf-8") as f:
                        json.dump(made[0], f, ensure_ascii=False)
    print(f"{a.count} pipelines, {refused} refused by the reference, {pairs} comparisons, {bad} differ, {time.time() - t0:.1f} s")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
