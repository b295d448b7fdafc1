#!/usr/bin/env python3
"""Writes tests/data/tok: small tokenizers with the pipelines of published models, and what HuggingFace `tokenizers` does with a list of nasty texts.

Each NAME/tokenizer.json has the normalizer, pre-tokenizer, decoder, post-processor and model options of the model family it is named after, with a
vocabulary of a few hundred tokens trained on generated text. NAME.gguf holds the same as GGUF metadata. texts.json: hex of a text, or [hex, repeat].
NAME/expected.json: for each text its ids, the ids that special tokens add before and after, and the decoded text without special tokens (0 when it is
the text); long id lists and texts as "count:FNV-1a 64". Needs `tokenizers` and `gguf`. Rerunning gives the same files."""
import array
import json
import random
from pathlib import Path

import gguf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parent.parent / "tests/data/tok"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
UP, LO = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CON, FRONT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|", r"[^\r\n\p{L}\p{N}]?"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = FRONT + UP + "*" + LO + "+" + CON + FRONT + UP + "+" + LO + "*" + CON + r"\p{N}{1,3}" + TAIL
TEKKEN = FRONT + UP + "*" + LO + "+|" + FRONT + UP + "+" + LO + r"*|\p{N}" + TAIL
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]

WORDS = ("the of and to in that is was he for it with as his on be at by had are but from or have an they which one you were her all she there would "
         "their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two "
         "don't I'll it's we've you're I'd I'm naïve café Zürich Straße привет мир Москва 日本語 テスト 中文 测试 한국어 مرحبا שלום नमस्ते 123 2024 42 "
         "def return import self.x x+=1; a->b; <div> </div> https://example.org/a?b=c").split()  # fmt: skip


def corpus():
    rng = random.Random(5)
    weights = [1 / (i + 3) for i in range(len(WORDS))]
    for _ in range(400):
        yield " ".join(rng.choices(WORDS, weights, k=12)) + rng.choice((".", "!", "\n", "  ", "\n\n", "?"))


def texts():
    rng = random.Random(6)
    t = ["", " ", "a", "  ", "   a", "a ", " a b ", "Hello, world!", "\n", "\n\n\n", "\r\n\r\n", " \n \n x", "x\n \n  y", "\t\ta\tb", "a\u00a0b\u3000c\u2003d", "\u2028\u2029\x85\x0b\x0c"]
    t += ["don't DON'T We'LL we'll I'D i'm you'Re 'S 's 'ſ 'tis o'clock '' '", "it’s “quoted” — dash…", "HTTPServer iPhone ABCdef abcDEF ǅungla ʰa ªº", "ÀÉÎõü ñandú e\u0301 o\u0308 a\u0323\u0308 \u0301x"]
    t += ["0 1 12 123 1234 12345 123456789 3.14 1,000,000 ٣٤٥٦ ½ Ⅷ ²³ १२३४", "x1y22z333w4444", "if(x<=10){y[i]+=2;}//c\n\tfor i in range(3):\n\t\tprint(f\"{i}\")\n"]
    t += ["中文测试一二三。「引用」、ヿ゠ァあいう漢字かな交じり文龥龦", "日本語のテキスト、12個", "한국어 각 \u1112\u1161\u11ab \uac00\u11a8", "مرحبا بالعالم שָׁלוֹם עולם हिन्दी नमस्ते ไทย", "Ελληνικά Привет, мир! ЁЖ"]
    t += ["👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 🇩🇪🇫🇷 ☺️ 😀😀😀", "\u200b\u200d\ufeff\u00ad", "\x00\x01\x1f\x7f\x80\x9f", "a\x00b", "\ufffe\uffff\U0010ffff\U000e0041 \ue000", "Å\u212b ﬁ ① ｆｕｌｌ 豈 \u1e9b\u0323"]
    t += ["<s></s><unk><|begin_of_text|>hi<|eot_id|>", "<|im_start|>user\nhi<|im_end|>", "<bos><start_of_turn>x<b>y</b>\n\n\n▁▁z<eos>", " <|endoftext|> x <|return|>", "<s> a</s> b <|x|>", "<tool>a</tool> tool> <too", "a <mask> b<mask>c  <mask>  d", "the word inside xwordx word. word"]
    t += ["▁", "▁▁", "▁a ▁ b▁", "<0x41><0xE2><0x82><0xAC> <0x0A>", "a" * 5000, "ab" * 2500, " " * 5000, "\n" * 300, "é" * 1500, "中" * 1000, "1" * 1000, "." * 1000, " a" * 500, "A" * 3000, "\u0301" * 400]
    t += ["".join(rng.choice("abcdefgh") for _ in range(3000)), "".join(rng.choice("ABab中\u0301' 1.\n") for _ in range(1500)), "\u0323\u0301\u0316" * 60 + "x", "q\u0307\u0323 \u0344 \u0958 \u2126"]
    t += [" ".join(rng.choice(WORDS) for _ in range(60)) for _ in range(4)]
    t += ["".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0x2FF), rng.randrange(0x300, 0x1FFF), rng.randrange(0x2000, 0xD7FF), rng.randrange(0x1F000, 0x20000)))) for _ in range(60)) for _ in range(8)]
    out = [x.encode() for x in t]
    out += [b"\xff", b"a\xc3", b"\xc3(", b"\xe2\x82", b"\xf0\x9f\x98", b"x\xed\xa0\x80y", b"\xc0\x80 \xf4\x90\x80\x80", b"ok \xe2\x82\xac \xe2\x28\xa1 \xf0\x28\x8c\x28"]
    return out + [bytes(rng.randrange(256) for _ in range(60)) for _ in range(4)]


def split(p, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: p}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def seq(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def added(*rows):
    """(content, special[, options])"""
    return [dict({"content": r[0], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": r[1]}, **(r[2] if len(r) > 2 else {})) for r in rows]


def template(name, i, after=()):
    sp = {name: {"id": name, "ids": [i], "tokens": [name]}}
    parts = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    for a, k in after:
        sp[a] = {"id": a, "ids": [k], "tokens": [a]}
        parts.append({"SpecialToken": {"id": a, "type_id": 0}})
    return {"type": "TemplateProcessing", "single": parts, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": sp}


def train(pre, size, alphabet=(), **model):
    """Vocabulary in order of id, and merges, of a BPE trained behind the given pre-tokenizer."""
    tok = Tokenizer(models.BPE(**{k: v for k, v in model.items() if v}))
    tok.pre_tokenizer = pre
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=list(alphabet), **{k: v for k, v in model.items() if v and k != "unk_token"}))
    m = json.loads(tok.to_str())["model"]
    return sorted(m["vocab"], key=m["vocab"].get), m["merges"]


def document(model, extra, norm=None, pre=None, post=None, dec=None):
    vocab = model["vocab"]
    nxt = max(vocab.values()) + 1
    for a in extra:
        a["id"] = vocab.get(a["content"], nxt)
        nxt += a["id"] == nxt
    extra = [dict([("id", a["id"])] + [(k, v) for k, v in a.items() if k != "id"]) for a in extra]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": extra, "normalizer": norm, "pre_tokenizer": pre, "post_processor": post, "decoder": dec, "model": model}


def bpe(vocab, merges, **opt):
    m = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    m.update(opt)
    return dict(m, vocab={t: i for i, t in enumerate(vocab)}, merges=merges)


def byte_model(size, pre, **opt):
    vocab, merges = train(pre, size, pre_tokenizers.ByteLevel.alphabet())
    as_text = opt.pop("as_text", False)
    return bpe(vocab, [" ".join(m) for m in merges] if as_text else merges, **opt)


def spm_model(first, size, runs=()):
    """A SentencePiece-like vocabulary, and merges as converters write them: every way to cut a token in two tokens, in order of the tokens' rank."""
    pieces, _ = train(pre_tokenizers.Metaspace(), size)
    pieces = [p for p in pieces if p not in first]
    chars = [p for p in pieces if len(p) == 1]
    pieces = [p for p in pieces if len(p) > 1]
    vocab = list(first) + [f"<0x{i:02X}>" for i in range(256)] + pieces + chars
    ids = {t: i for i, t in enumerate(vocab)}
    order = sorted(runs, key=lambda r: -len(r)) + pieces
    merges = []
    for p in order:
        cuts = [(ids[p[:k]], ids[p[k:]], p[:k], p[k:]) for k in range(1, len(p)) if p[:k] in ids and p[k:] in ids]
        merges += [[a, b] for _, _, a, b in sorted(cuts)]
    return vocab, pieces, merges


def affixed(n):
    """A BPE with "##" in front of what continues a word and "</w>" behind what ends one (the library's trainer is not repeatable with these)."""
    words = {}
    for line in corpus():
        for w in line.split():
            if w.isalpha():
                words[w] = words.get(w, 0) + 1
    split_of = {w: [("##" if i else "") + c + ("</w>" if i == len(w) - 1 else "") for i, c in enumerate(w)] for w in words}
    vocab, merges = sorted({p for s in split_of.values() for p in s}), []
    for _ in range(n):
        pairs = {}
        for w, s in split_of.items():
            for p in zip(s, s[1:]):
                pairs[p] = pairs.get(p, 0) + words[w]
        a, b = max(pairs, key=lambda p: (pairs[p], p))
        merges.append([a, b])
        vocab += [a + b[2:]] * (a + b[2:] not in vocab)
        for s in split_of.values():
            for i in range(len(s) - 2, -1, -1):
                if i + 1 < len(s) and s[i] == a and s[i + 1] == b:
                    s[i : i + 2] = [a + b[2:]]
    return vocab, merges


def bl_pre(*patterns):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def fixtures():
    sp_dec = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    rep = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    vocab, _, merges = spm_model(["<unk>", "<s>", "</s>"], 420)
    spm = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    yield "llama2", document(
        bpe(vocab, [" ".join(m) for m in merges], **spm), added(("<unk>", True), ("<s>", True), ("</s>", True)),
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, rep]}, None, template("<s>", 1),
        {"type": "Sequence", "decoders": sp_dec + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]})  # fmt: skip
    yield "prepend", document(
        bpe(vocab, merges, **spm), added(("<s>", True, {"normalized": True}), ("the", False, {"normalized": True}), ("in", False, {"single_word": True}), ("it", False, {"normalized": True, "single_word": True, "lstrip": True}),
                                         ("of", True, {"rstrip": True})),
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, rep]}, None, None, {"type": "Sequence", "decoders": sp_dec})  # fmt: skip
    runs = ["▁" * k for k in range(2, 9)] + ["\n" * k for k in range(2, 5)]
    vocab, _, merges = spm_model(["<pad>", "<eos>", "<bos>", "<unk>", "\n"] + runs + ["<b>", "</b>", "<start_of_turn>"], 420, runs)
    yield "gemma3", document(
        bpe(vocab, merges, **spm), added(*[(t, True) for t in ("<pad>", "<eos>", "<bos>", "<unk>")], *[(r, False) for r in runs + ["<b>", "</b>", "<start_of_turn>"]]),
        rep, split(" ", "MergedWithPrevious", kind="String"), template("<bos>", 2), {"type": "Sequence", "decoders": sp_dec})  # fmt: skip
    m = byte_model(600, bl_pre(LLAMA3), as_text=True, ignore_merges=True)
    yield "llama3", document(
        m, added(("<|begin_of_text|>", True), ("<|eot_id|>", True)), None, seq(split(LLAMA3), byte_level()),
        {"type": "Sequence", "processors": [byte_level(True, True), template("<|begin_of_text|>", len(m["vocab"]))]}, byte_level(True, True))  # fmt: skip
    m = byte_model(600, bl_pre(QWEN2), continuing_subword_prefix="", end_of_word_suffix="")
    yield "qwen3", document(m, added(("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool>", False), ("</tool>", False)),
                            {"type": "NFC"}, seq(split(QWEN2), byte_level()), byte_level(), byte_level())  # fmt: skip
    yield "gptoss", document(byte_model(600, bl_pre(O200K), ignore_merges=True), added(("<|startoftext|>", True), ("<|endoftext|>", True), ("<|return|>", True)),
                             None, seq(split(O200K), byte_level()), byte_level(True, True), byte_level(True, True))  # fmt: skip
    yield "deepseek_v3", document(byte_model(600, bl_pre(*DEEPSEEK), as_text=True), added(("<s>", True), ("</s>", True), ("<|x|>", False, {"normalized": True}), ("<tool>", True, {"normalized": True})),
                                  {"type": "Sequence", "normalizers": []}, seq(*map(split, DEEPSEEK), byte_level()), byte_level(True, True), byte_level(True, True))  # fmt: skip
    m = byte_model(500, pre_tokenizers.ByteLevel(add_prefix_space=False))
    yield "gpt2", document(m, added(("<|endoftext|>", True), ("<mask>", True, {"lstrip": True, "rstrip": True}), ("word", False, {"single_word": True})),
                           None, byte_level(True, True), {"type": "RobertaProcessing", "sep": ["a", m["vocab"]["a"]], "cls": ["b", m["vocab"]["b"]], "trim_offsets": True, "add_prefix_space": True}, byte_level())  # fmt: skip
    yield "tekken", document(byte_model(400, bl_pre(TEKKEN)), added(("<s>", True)), None, seq(split(TEKKEN), byte_level()), None, byte_level())
    yield "starcoder", document(byte_model(400, pre_tokenizers.ByteLevel(add_prefix_space=False)), [], {"type": "NFKC"},
                                seq({"type": "Digits", "individual_digits": True}, byte_level(False, True)), None, byte_level())  # fmt: skip
    yield "patterns", document(byte_model(400, pre_tokenizers.ByteLevel(add_prefix_space=False)), added(("MiXeD", False, {"normalized": True, "rstrip": True})),
                               {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": "b+"}, "content": "B"}, {"type": "Strip", "strip_left": True, "strip_right": True}]},
                               seq(split(r"[aeiou]{2,}|(?=z)", "MergedWithNext"), split(r"\d+", "MergedWithPrevious"), split(r"\s+", "Removed"), split("[a-m]+", "Contiguous", True), split("th", "Isolated", False, "String"), {"type": "Digits", "individual_digits": False}, {"type": "Punctuation", "behavior": "Isolated"}, byte_level()),
                               None, byte_level())  # fmt: skip
    regex = r"[\w']+|\h{2}\W|[^\s\p{L}]+|\S"
    yield "words", document(byte_model(330, bl_pre(regex)), [], None, seq(split(regex), byte_level()), None, byte_level())
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    vocab, _, merges = spm_model(["<unk>", "<s>", "</s>"], 420)
    yield "metaspace", document(bpe(vocab[:3] + vocab[259:], merges, unk_token="<unk>", fuse_unk=True), added(("<s>", True), ("</s>", True)), None, meta, template("<s>", 1, [("</s>", 2)]), meta)
    vocab, merges = affixed(120)
    yield "affix", document(bpe(["<unk>"] + vocab, merges, unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"), added(("<unk>", True)), None, {"type": "Whitespace"}, None, None)


LONG = 120


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & (1 << 64) - 1
    return h


def short(ids):
    return ids if len(ids) <= LONG else f"{len(ids)}:{fnv(array.array('i', ids).tobytes()):016x}"


def short_text(text):
    data = text.encode()
    return text if len(data) <= LONG * 2 else f"{len(data)}:{fnv(data):016x}"


def packed(data):
    for k in (1, 2, 3):
        n = len(data) // k
        if n > 20 and data[:k] * n == data:
            return [data[:k].hex(), n]
    return data.hex()


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_gguf(path, doc, pre=None):
    """The metadata a converter writes for this tokenizer."""
    vocab = dict(doc["model"]["vocab"], **{a["content"]: a["id"] for a in doc["added_tokens"]})
    tokens = sorted(vocab, key=vocab.get)
    kind = {a["content"]: 3 if a["special"] else 4 for a in doc["added_tokens"]}
    types = [kind.get(t, 6 if doc["model"]["byte_fallback"] and t.startswith("<0x") else 1) for t in tokens]
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama" if pre is None else "gpt2")
    w.add_tokenizer_pre(pre or "default")
    bos = next((a["id"] for a in doc["added_tokens"] if a["content"] in ("<s>", "<bos>", "<|begin_of_text|>")), None)
    if pre is None:
        order = {a + b: i for i, (a, b) in reversed(list(enumerate(m.split(" ") if isinstance(m, str) else m for m in doc["model"]["merges"])))}
        w.add_token_scores([-1000.0 if k == 4 else float(-order.get(t, 100000)) for t, k in zip(tokens, types)])
        w.add_unk_token_id(vocab["<unk>"])
        w.add_add_space_prefix(doc["normalizer"]["type"] == "Sequence")
        tokens = [t.replace("▁", " ") if k == 4 else t for t, k in zip(tokens, types)]
    else:
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]])
    w.add_token_list(tokens)
    w.add_token_types(types)
    if bos is not None:
        w.add_bos_token_id(bos)
    w.add_add_bos_token(json.dumps(doc["post_processor"]).find("TemplateProcessing") >= 0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def seeds():
    """Corpora of the fuzz targets: each pipeline with a vocabulary of some letters, and some texts."""
    top = OUT.parent.parent / "fuzz/corpus"
    for d in ("tokenizer", "tok_text", "tok_gguf"):
        (top / d).mkdir(parents=True, exist_ok=True)
    for name, doc in fixtures():
        letters = ["<unk>", "a", "b", "c", "1", "Ġ", "▁", "ab", "abc", "Ġa", "▁a", "##b", "c</w>", "<0xC3>", "<0xA9>"]
        merges = [["a", "b"], ["ab", "c"], ["Ġ", "a"], ["▁", "a"]]
        if name == "affix":
            letters, merges = ["<unk>", "a", "##b", "ab", "##c</w>", "abc</w>"], [["a", "##b"], ["ab", "##c</w>"]]
        doc["model"].update(vocab={t: i for i, t in enumerate(letters)}, merges=merges)
        doc["added_tokens"] = [dict(a, id=50 + i) for i, a in enumerate(doc["added_tokens"][:2])]
        p = doc["post_processor"]
        if p and p["type"] != "ByteLevel":
            doc["post_processor"] = template("b", 2)
        text = json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
        (top / "tokenizer" / name).write_bytes(text.encode() + b"\0abc cab 1<s> a\xc3\xa9\xff")
        if name in ("llama2", "qwen3"):
            doc["added_tokens"] = []
            write_gguf(top / "tok_gguf" / name, doc, None if name == "llama2" else "qwen2")
    for i, c in enumerate(texts()):
        if i % 7 == 0 and len(c) < 200:
            (top / "tok_text" / f"{i:02}").write_bytes(bytes([i]) + c)


def main():
    seeds()
    OUT.mkdir(parents=True, exist_ok=True)
    cases = texts()
    dump(OUT / "texts.json", [packed(c) for c in cases])
    pre = {"llama2": None, "gemma3": None, "llama3": "llama-bpe", "qwen3": "qwen2", "gptoss": "gpt-4o", "deepseek_v3": "deepseek-v3", "tekken": "tekken"}
    for name, doc in fixtures():
        (OUT / name).mkdir(exist_ok=True)
        dump(OUT / name / "tokenizer.json", doc)
        tok = Tokenizer.from_file(str(OUT / name / "tokenizer.json"))
        rows = []
        for c in cases:
            s = c.decode(errors="replace")
            ids, special = tok.encode(s, add_special_tokens=False).ids, tok.encode(s, add_special_tokens=True).ids
            text = tok.decode(special, skip_special_tokens=True)
            k = next((i for i in range(len(special) - len(ids) + 1) if special[i : i + len(ids)] == ids))
            rows.append([short(ids), special[:k], special[k + len(ids) :], 0 if text == s else short_text(text)])
        dump(OUT / name / "expected.json", rows)
        if name in pre:
            write_gguf(OUT / f"{name}.gguf", doc, pre[name])


if __name__ == "__main__":
    main()
