#!/usr/bin/env python3
"""Writes tests/data/tokfiles: small tokenizers of every kind of file besides tokenizer.json, and what the library that the kind belongs to does with the
texts of tests/data/tok/texts.json.

NAME/expected.json: for each text its ids, the ids that special tokens add before and after, and the decoded text without special tokens (0 when it is the
text); long lists and texts as "count:FNV-1a 64". NAME.gguf has its expected.json in NAME. tests/fuzz/corpus/{sentencepiece,tekken,tiktoken} get seeds.
Needs sentencepiece, tiktoken, mistral-common, tokenizers, transformers and gguf. Rerunning gives the same files."""
import base64
import io
import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import gguf
import sentencepiece
import tiktoken
from make_tokenizer_fixtures import LLAMA3, O200K, QWEN2, TEKKEN, WORDS, corpus, dump, packed, short, short_text, texts
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/data/tokfiles"
FUZZ = ROOT / "tests/fuzz/corpus"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CASES = texts()


def expect(name, encode, decode, before=(), after=()):
    rows = []
    for c in CASES:
        s = c.decode(errors="replace")
        ids = list(encode(s))
        text = decode(list(before) + ids + list(after))
        rows.append([short(ids), list(before), list(after), 0 if text == s else short_text(text)])
    (OUT / name).mkdir(parents=True, exist_ok=True)
    dump(OUT / name / "expected.json", rows)


# ---- SentencePiece ----

# from, to: code points in hex; combining, full width, a ligature, white space
RULES = [("65 301", "E9"), ("FF26", "46"), ("FF21", "41"), ("FB01", "66 69"), ("2460", "31"), ("A0", "20"), ("3000", "20"), ("9", "20"), ("A", "20"), ("AD", ""), ("1D6B", "55 45"), ("212B", "C5")]


def train(model_type, rules=False, back=False, **opt):
    model = io.BytesIO()
    opt = dict({"vocab_size": 330, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2, "character_coverage": 0.998, "model_type": model_type, "normalization_rule_name": "identity"}, **opt)
    with tempfile.TemporaryDirectory() as d:
        if rules:
            Path(d, "rules.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in RULES))
            opt["normalization_rule_tsv"] = d + "/rules.tsv"
            del opt["normalization_rule_name"]
        if back:
            Path(d, "back.tsv").write_text("41\t61\n74 68 65\t54 68 65\n20 20\t20\n")
            opt["denormalization_rule_tsv"] = d + "/back.tsv"
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([x.strip("\n") for x in corpus()]), model_writer=model, **opt)
    m = pb.ModelProto()
    m.ParseFromString(model.getvalue())
    m.trainer_spec.input_format = ""
    m.normalizer_spec.normalization_rule_tsv = m.denormalizer_spec.normalization_rule_tsv = ""  # paths of this machine
    return m.SerializeToString()


def spm(name, model_type, **opt):
    data = train(model_type, **opt)
    (OUT / name).mkdir(parents=True, exist_ok=True)
    (OUT / name / "tokenizer.model").write_bytes(data)
    sp = sentencepiece.SentencePieceProcessor(model_proto=data)
    bos = [sp.bos_id()] if model_type == "bpe" and sp.bos_id() >= 0 else []
    eos = [sp.eos_id()] if model_type == "unigram" and sp.eos_id() >= 0 else []
    expect(name, sp.encode, sp.decode, bos, eos)
    return data


def sentencepieces():
    llama = dict(byte_fallback=True, remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, vocab_size=600)
    user = dict(user_defined_symbols=["<tool>", "the", "  ", "xa", "ab", "▁▁▁", "日本", "e"], control_symbols=["[INST]", "<mask>"], pad_id=3)
    spm("sp_bpe_llama", "bpe", **llama)
    spm("sp_bpe", "bpe", rules=True)
    spm("sp_bpe_user", "bpe", rules=True, byte_fallback=True, vocab_size=600, **user)
    spm("sp_bpe_plain", "bpe", add_dummy_prefix=False, bos_id=-1, eos_id=-1, unk_surface="<?>")
    spm("sp_unigram", "unigram", rules=True)
    spm("sp_unigram_llama", "unigram", **llama)
    spm("sp_unigram_user", "unigram", rules=True, byte_fallback=True, vocab_size=600, **user)
    spm("sp_unigram_suffix", "unigram", treat_whitespace_as_suffix=True)
    spm("sp_unigram_back", "unigram", back=True, remove_extra_whitespaces=False)
    spm("sp_char", "char", rules=True, user_defined_symbols=["the", "ab"])
    spm("sp_word", "word", vocab_size=80)
    # pieces that are not used are taken apart again
    m = pb.ModelProto()
    m.ParseFromString(train("bpe"))
    for i, p in enumerate(m.pieces):
        if p.type == 1 and len(p.piece) > 1 and i % 3 == 0:
            p.type = 5
    (OUT / "sp_bpe_unused").mkdir(exist_ok=True)
    (OUT / "sp_bpe_unused/tokenizer.model").write_bytes(m.SerializeToString())
    sp = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
    expect("sp_bpe_unused", sp.encode, sp.decode, [sp.bos_id()])


# ---- byte strings with ranks ----


def ranks(pattern, size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    chars = {c: b for b, c in gguf_bytes().items()}
    out, single = [], [bytes([b]) for b in range(256)]
    for t in sorted(tok.get_vocab(), key=tok.get_vocab().get):
        raw = bytes(chars[c] for c in t)
        if len(raw) > 1:
            out.append(raw)
    return single + out[: size - 256]


def gguf_bytes():
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    table, n = {}, 0
    for b in range(256):
        table[b] = chr(b if b in keep else 0x100 + n)
        n += b not in keep
    return table


def tekken(name, version, n_special, special, size):
    from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer

    tokens = ranks(TEKKEN, 400)
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": t.decode(errors="ignore") or None} for i, t in enumerate(tokens)]
    doc = {"config": {"pattern": TEKKEN, "num_vocab_tokens": len(vocab), "default_vocab_size": size, "default_num_special_tokens": n_special, "version": version}, "vocab": vocab}
    if special:
        doc["special_tokens"] = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(special)]
    (OUT / name).mkdir(parents=True, exist_ok=True)
    dump(OUT / name / "tekken.json", doc)
    t = Tekkenizer.from_file(OUT / name / "tekken.json")
    expect(name, lambda s: t.encode(s, bos=False, eos=False), lambda i: t.decode(i, SpecialTokenPolicy.IGNORE), [t.bos_id])


def rank_file(name, file, pattern, special, config=None, before=(), normalize=None, empty=False):
    tokens = {t: i for i, t in enumerate(ranks(pattern, 380))}
    lines = [base64.b64encode(t).decode() + f" {i}" for t, i in tokens.items()]
    if empty:
        tokens[b""] = len(tokens)
        lines.append(f"= {len(lines)}")
    (OUT / name).mkdir(parents=True, exist_ok=True)
    (OUT / name / file).write_text("\n".join(lines) + "\n")
    if config:
        dump(OUT / name / "config.json", config)
    sp = special(len(tokens)) if callable(special) else special
    t = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=tokens, special_tokens=sp)
    hide = set(sp.values())
    expect(name, lambda s: t.encode(normalize(s) if normalize else s, allowed_special="all"), lambda ids: t.decode([i for i in ids if i not in hide]), [sp[b] for b in before])


def behind(names):
    return lambda n: {s: n + i for i, s in enumerate(names)}


def rank_files():
    import unicodedata

    from check_tokenizer_files import LANGUAGES

    llama = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(4)]
    llama += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"] + [f"<|reserved_special_token_{i}|>" for i in range(5, 251)]
    whisper = ["<|endoftext|>", "<|startoftranscript|>"] + [f"<|{x}|>" for x in LANGUAGES.split()[:99]]
    whisper += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"] + [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    qwen = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
    rank_file("rank_llama3", "tokenizer.model", LLAMA3, behind(llama), {"model_type": "llama"}, ["<|begin_of_text|>"])
    rank_file("rank_whisper", "multilingual.tiktoken", GPT2, behind(whisper), empty=True)
    rank_file("rank_qwen", "qwen.tiktoken", QWEN2, behind(qwen), {"model_type": "qwen"}, normalize=lambda s: unicodedata.normalize("NFC", s))
    rank_file("rank_o200k", "o200k_base.tiktoken", O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018})


# ---- folders of before tokenizer.json ----


def folder(name, config, vocab=None, merges=None, words=None, extra=None, model=None):
    from transformers import AutoTokenizer

    d = OUT / name
    d.mkdir(parents=True, exist_ok=True)
    dump(d / "tokenizer_config.json", config)
    if vocab:
        dump(d / "vocab.json", vocab)
        (d / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    if words:
        (d / "vocab.txt").write_text("\n".join(words) + "\n")
    for file, data in (model or {}).items():
        (d / file).write_bytes(data)
    for file, value in (extra or {}).items():
        dump(d / file, value)
    t = AutoTokenizer.from_pretrained(d)
    bare, full = t.encode("", add_special_tokens=False), t.encode("the", add_special_tokens=True)
    inner = t.encode("the", add_special_tokens=False)
    k = next(i for i in range(len(full)) if full[i : i + len(inner)] == inner)
    assert not bare
    expect(name, lambda s: t.encode(s, add_special_tokens=False), lambda ids: t.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), full[:k], full[k + len(inner) :])


def internlm2(model):
    """InternLM 2's class is not in transformers: what the converter of its repositories makes of the pieces."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    d = OUT / "hf_internlm2"
    d.mkdir(parents=True, exist_ok=True)
    dump(d / "tokenizer_config.json", {"tokenizer_class": "InternLM2Tokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    (d / "tokenizer.model").write_bytes(model)
    m = pb.ModelProto()
    m.ParseFromString(model)
    vocab = {p.piece: i for i, p in enumerate(m.pieces)}
    cuts = [(p[:k], p[k:], i) for p, i in vocab.items() for k in range(1, len(p)) if p[:k] in vocab and p[k:] in vocab]
    merges = [(a, b) for a, b, _ in sorted(cuts, key=lambda c: (c[2], vocab[c[0]], vocab[c[1]]))]
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in ("<unk>", "<s>", "</s>")])
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    expect("hf_internlm2", lambda s: t.encode(s).ids, lambda ids: t.decode(ids), [1], [])


def folders():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    m = json.loads(tok.to_str())["model"]
    vocab, merges = m["vocab"], m["merges"]
    n = len(vocab)
    folder("vocab_gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}, dict(vocab, **{"<|endoftext|>": n}), merges)
    added = {str(n + i): {"content": s, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": i < 3} for i, s in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"])}
    folder("vocab_qwen2", {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}, vocab, merges)
    roberta = dict({s: i for i, s in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}, **{t: i + 4 for t, i in vocab.items()})
    folder("vocab_roberta", {"tokenizer_class": "RobertaTokenizer"}, dict(roberta, **{"<mask>": len(roberta)}), merges)

    text = " ".join(corpus())
    low = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    low.normalizer, low.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    seen = {w for w, _ in low.pre_tokenizer.pre_tokenize_str(low.normalizer.normalize_str(text))}
    chars = sorted({c for w in seen for c in w})
    parts = sorted({"##" + w[i : i + n] for w in seen for n in (2, 3) for i in range(1, len(w) - n + 1)})[::3]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + chars + ["##" + c for c in chars] + parts + sorted(w for w in seen if len(w) > 1)[::2]
    folder("vocab_bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": True}, words=words)
    folder("vocab_bert_cased", {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}, words=words)


    # SentencePiece models whose class transformers knows
    def read(m):
        return (OUT / m / "tokenizer.model").read_bytes()

    folder("hf_llama", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, model={"tokenizer.model": read("sp_bpe_llama")})
    folder("hf_llama_legacy", {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": True}, model={"tokenizer.model": read("sp_bpe_user")})
    internlm2(read("sp_bpe_llama"))
    folder("hf_t5", {"tokenizer_class": "T5Tokenizer", "extra_ids": 5}, model={"spiece.model": read("sp_unigram")})
    folder("hf_xlmr", {"tokenizer_class": "XLMRobertaTokenizer"}, model={"sentencepiece.bpe.model": read("sp_unigram")})
    return words


# ---- GGUF ----


def write(name, model, tokens, types, scores=None, merges=None, pre="default", **keys):
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    w.add_tokenizer_model(model)
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores:
        w.add_token_scores(scores)
    if merges:
        w.add_token_merges(merges)
    for k, v in keys.items():
        getattr(w, k)(v)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def gguf_bert(words):
    def phantom(t):
        return t if t[0] == "[" and t[-1] == "]" else t[2:] if t[:2] == "##" else "▁" + t

    write("gguf_bert", "bert", [phantom(t) for t in words], [3 if t[0] == "[" and len(t) > 1 else 1 for t in words], pre="jina-v2-en",
          add_bos_token_id=2, add_sep_token_id=3, add_unk_token_id=1, add_pad_token_id=0, add_mask_token_id=4)  # fmt: skip
    tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(words)}, unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.add_special_tokens(words[:5])
    expect("gguf_bert", lambda s: tok.encode(s).ids, tok.decode, [2], [3])


def gguf_t5():
    m = pb.ModelProto()
    m.ParseFromString((OUT / "sp_unigram/tokenizer.model").read_bytes())
    tokens, scores, types = [p.piece for p in m.pieces], [p.score for p in m.pieces], [p.type for p in m.pieces]
    write("gguf_t5", "t5", tokens, types, scores, add_add_space_prefix=True, add_remove_extra_whitespaces=True, add_precompiled_charsmap=m.normalizer_spec.precompiled_charsmap,
          add_eos_token_id=2, add_unk_token_id=0, add_add_bos_token=False, add_add_eos_token=True)  # fmt: skip
    tok = Tokenizer(models.Unigram(list(zip(tokens, scores)), unk_id=0))
    tok.normalizer = normalizers.Precompiled(m.normalizer_spec.precompiled_charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tok.decoder = decoders.Metaspace()
    tok.add_special_tokens([t for t, k in zip(tokens, types) if k in (2, 3)])
    expect("gguf_t5", lambda s: tok.encode(s).ids, tok.decode, [], [2])


def gguf_gemma4():
    doc = json.loads((ROOT / "tests/data/tok/gemma3/tokenizer.json").read_text())
    vocab = doc["model"]["vocab"]
    kind = {a["content"]: 3 if a["special"] else 4 for a in doc["added_tokens"]}
    tokens = sorted(dict(vocab, **{a["content"]: a["id"] for a in doc["added_tokens"]}).items(), key=lambda x: x[1])
    merges = [m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]]
    write("gguf_gemma4", "gemma4", [t for t, _ in tokens], [kind.get(t, 6 if t.startswith("<0x") else 1) for t, _ in tokens], [0.0] * len(tokens), merges,
          add_bos_token_id=vocab["<bos>"], add_unk_token_id=vocab["<unk>"], add_add_bos_token=True, add_add_space_prefix=False)  # fmt: skip
    tok = Tokenizer.from_str(json.dumps(doc))
    expect("gguf_gemma4", lambda s: tok.encode(s, add_special_tokens=False).ids, lambda i: tok.decode(i, skip_special_tokens=True), [vocab["<bos>"]])


def gguf_rwkv():
    """The longest token of bytes, as in RWKV's own reference."""
    words = sorted({w.encode() for w in WORDS} | {b" " + w.encode() for w in WORDS} | {b"\n\n", b"\t", b"'s", b"\\x", b"<s>"})
    tokens = [b"<s>"] + [bytes([b]) for b in range(256)] + words

    def escape(t):
        return "".join({9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in t)

    write("gguf_rwkv", "rwkv", ["<s>"] + [escape(t) for t in tokens[1:]], [3] + [1] * (len(tokens) - 1), add_bos_token_id=0, add_eos_token_id=0)
    ids, longest = {t: i for i, t in enumerate(tokens) if i}, max(map(len, tokens))

    def encode(s):
        out, parts = [], s.encode().split(b"<s>")
        for k, part in enumerate(parts):
            out += [0] if k else []
            while part:
                n = next(n for n in range(min(longest, len(part)), 0, -1) if part[:n] in ids)
                out.append(ids[part[:n]])
                part = part[n:]
        return out

    expect("gguf_rwkv", encode, lambda i: b"".join(tokens[k] for k in i if k).decode(errors="replace"))


def gguf_plamo2():
    """The cheapest way from right to left; of equal costs the longest token."""
    rng = random.Random(9)
    words = sorted({w[i : i + n] for w in WORDS for n in (1, 2, 3, 4) for i in range(len(w) - n + 1)} | {" ", " the", "\n", "  "})
    tokens = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>"] + [f"<0x{b:02X}>" for b in range(256)] + words
    types = [2, 3, 3] + [6] * 256 + [1] * len(words)
    scores = [0.0] * 3 + [0.0] * 256 + [-rng.randrange(1, 9) * len(w) ** 0.5 for w in words]
    write("gguf_plamo2", "plamo2", tokens, types, scores, add_bos_token_id=1, add_eos_token_id=2, add_unk_token_id=0)
    score = {t: round(s * 1e4) for t, s, k in zip(tokens, gguf_floats(scores), types) if k != 6}
    ids = {t: i for i, t in enumerate(tokens)}
    longest = max(map(len, words))

    def piece(s):
        cost, way = [0] * (len(s) + 1), [None] * len(s)
        for i in range(len(s) - 1, -1, -1):
            best = None
            for n in range(min(longest, len(s) - i), 0, -1):
                if s[i : i + n] in score:
                    c = cost[i + n] - score[s[i : i + n]]
                    if best is None or c < best:
                        best, way[i] = c, n
            if best is None or cost[i + 1] + 10000000 < best:
                best, way[i] = cost[i + 1] + 10000000, 0
            cost[i] = best
        out, i = [], 0
        while i < len(s):
            out += [ids[s[i : i + way[i]]]] if way[i] else [ids[f"<0x{b:02X}>"] for b in s[i].encode()]
            i += way[i] or 1
        return out

    def decode(i):
        out, run = "", b""
        for k in i + [0]:
            if types[k] == 6:
                run += bytes([k - 3])
                continue
            try:
                out += run.decode()
            except UnicodeDecodeError:
                out += "\ufffd" * len(run)
            out, run = out + (tokens[k] if k > 2 else ""), b""
        return out

    expect("gguf_plamo2", piece, decode, [1])


def gguf_floats(v):
    import array

    return list(array.array("f", v))


# ---- seeds ----


def seeds():
    for d in ("sentencepiece", "tekken", "tiktoken"):
        shutil.rmtree(FUZZ / d, ignore_errors=True)
        (FUZZ / d).mkdir(parents=True)
    for name, kind, rules in (("bpe", 2, False), ("unigram", 1, True), ("char", 4, False), ("word", 3, False)):
        m = pb.ModelProto()
        m.trainer_spec.model_type = kind
        m.trainer_spec.byte_fallback = False
        for i, (p, t) in enumerate((("<unk>", 2), ("<s>", 3), ("ab", 1), ("▁a", 1), ("a", 1), ("b", 1), ("▁", 1), ("xx", 4), ("bc", 5))):
            m.pieces.add(piece=p, score=-i, type=t)
        if rules:
            full = pb.ModelProto()
            full.ParseFromString((OUT / "sp_unigram/tokenizer.model").read_bytes())
            m.normalizer_spec.precompiled_charsmap = full.normalizer_spec.precompiled_charsmap
        (FUZZ / "sentencepiece" / name).write_bytes(m.SerializeToString())
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate([bytes([b]) for b in range(256)] + [b"ab", b"abc"])]
    doc = {"config": {"pattern": r"\p{L}+|\s|.", "default_vocab_size": 260, "default_num_special_tokens": 3, "version": "v11"}, "vocab": vocab,
           "special_tokens": [{"rank": 0, "token_str": "<s>", "is_control": True}, {"rank": 1, "token_str": "</s>", "is_control": True}]}  # fmt: skip
    (FUZZ / "tekken/v11").write_bytes(json.dumps(doc, separators=(",", ":")).encode() + b"\0abc <s>\xff")
    lines = [base64.b64encode(t).decode() + f" {i}" for i, t in enumerate([bytes([b]) for b in range(256)] + [b"ab", b"abc"])]
    (FUZZ / "tiktoken/plain").write_bytes("\n".join(lines).encode() + b"\n")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    sentencepieces()
    tekken("tekken_v3", "v3", 24, None, 24 + 390)
    tekken("tekken_v11", "v11", 12, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>", "[THINK]"], 12 + 400)
    rank_files()
    words = folders()
    gguf_bert(words)
    gguf_t5()
    gguf_gemma4()
    gguf_rwkv()
    gguf_plamo2()
    seeds()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
