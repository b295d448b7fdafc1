#!/usr/bin/env python3
"""Renders chat templates with transformers and with jinja_tool and compares byte for byte, errors against errors.

Usage: check_templates.py --tool build/jinja_tool [--conversations FILE.json]... TEMPLATE...
TEMPLATE is a .jinja file or a tokenizer_config.json. Conversations: objects as `ffai template --messages` reads them; the
ones of tests/data/jinja/conversations.json are always taken. Exit status 1 when anything differs. Needs transformers."""
import argparse
import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def reference(source, ctx):
    """apply_chat_template(tokenize=False) of a tokenizer with this template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    ctx = dict(ctx)
    messages = ctx.pop("messages")
    if len(messages) == 0:
        raise ValueError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    if ctx.get("continue_final_message") and ctx.get("add_generation_prompt"):
        raise ValueError("continue_final_message and add_generation_prompt are not compatible.")
    return render_jinja_template(conversations=[messages], chat_template=source, **ctx)[0][0]


def templates(paths):
    for path in paths:
        if not path.endswith(".json"):
            with open(path, encoding="utf-8") as f:
                yield os.path.basename(path), f.read()
            continue
        with open(path, encoding="utf-8") as f:
            t = json.load(f).get("chat_template")
        name = os.path.basename(os.path.dirname(path))
        for x in t if isinstance(t, list) else [{"name": "default", "template": t}] if t else []:
            yield "%s:%s" % (name, x["name"]), x["template"]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", required=True)
    ap.add_argument("--conversations", action="append", default=[])
    ap.add_argument("--show", type=int, default=5)
    ap.add_argument("--words", action="store_true", help="error messages must hold the reference's words too")
    ap.add_argument("templates", nargs="+")
    a = ap.parse_args()
    convs = []
    for path in [os.path.join(ROOT, "tests/data/jinja/conversations.json")] + a.conversations:
        with open(path, encoding="utf-8") as f:
            convs += json.load(f)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    jobs = []
    for name, source in templates(a.templates):
        for c in convs:
            ctx = {**special, **c["input"]}
            jobs.append((name, c["name"], source, ctx))
    now = int(time.time())
    lines = [json.dumps({"template": s, "context": json.dumps(c, ensure_ascii=False), "chat": True, "now": now})
             for _, _, s, c in jobs]
    out = subprocess.run([a.tool], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True).stdout
    got = [json.loads(x) for x in out.split("\n") if x]
    assert len(got) == len(jobs), (len(got), len(jobs))
    bad = errors = 0
    for (name, conv, source, ctx), g in zip(jobs, got):
        try:
            want = {"text": reference(source, json.loads(json.dumps(ctx)))}
        except Exception as e:  # whatever the reference raises
            want = {"error": "%s: %s" % (type(e).__name__, e)}
            errors += 1
        words = want.get("error", "").split(": ", 1)[-1].split("\n")[0][:100]
        same = want == g if "text" in want else "error" in g and (not a.words or words in g["error"])
        if same:
            continue
        bad += 1
        if bad <= a.show:
            print("--- %s / %s\nwant %r\ngot  %r" % (name, conv, want, g))
            if "text" in want and "text" in g:
                w, h = want["text"], g["text"]
                i = next((i for i in range(min(len(w), len(h))) if w[i] != h[i]), min(len(w), len(h)))
                print("first difference at %d: %r | %r" % (i, w[max(0, i - 60):i + 60], h[max(0, i - 60):i + 60]))
    print("%d renderings (%d refused by the reference), %d differ" % (len(jobs), errors, bad))
    return bad != 0


sys.exit(main())
