#!/usr/bin/env python3
"""Writes tests/data/answer/rendered.json: answers as chat templates write them back, with what they were rendered from.

How a template renders a past answer is how its model was taught to write one. So every template of a folder renders our
own conversations (text, reasoning, tool calls), and what it adds behind the generation prompt is stored with the message
it came from, which is what the splitter must find in it again. Nothing of the templates themselves is stored.

    python tools/make_answer_fixtures.py --templates DIR --tool build/answer_tool

It also writes the seeds of tests/fuzz/fuzz_answer.c, from tests/data/answer/transcripts.json, which is kept by hand.

DIR holds *.jinja (llama.cpp's models/templates is such a folder). Needs jinja2 and the built
answer_tool.
"""
import argparse
import copy
import datetime
import glob
import json
import os
import re
import subprocess

import jinja2
import jinja2.ext
from jinja2.sandbox import SandboxedEnvironment

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a place.",
        "parameters": {"type": "object", "additionalProperties": False, "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "description": "How many."},
            "exact": {"type": "boolean", "description": "To the degree."},
            "limit": {"type": "number", "description": "Most."},
            "opts": {"type": "object", "description": "More."},
            "tags": {"type": "array", "description": "Names.", "items": {"type": "string"}}}}}},
    {"type": "function", "function": {
        "name": "now", "description": "The time.",
        "parameters": {"type": "object", "additionalProperties": False, "properties": {}}}},
]

WEATHER = ("get_weather", {"city": "Zürich", "days": 3})
NOW = ("now", {})
TYPES = ("get_weather", {"city": "12", "days": -7, "exact": True, "limit": 2.5,
                         "opts": {"deep": {"list": [1, 2, {"x": "y"}]}, "on": False}, "tags": ["a", "b c"]})
MARKUP = ("get_weather", {"city": "<b>\"Ulm\"</b> & 'Köln', {x}; [1]", "days": 0})
LINES = ("get_weather", {"city": "one\ntwo\n\n  three 🙂\\", "exact": False})

# content, reasoning, calls
CONVERSATIONS = [
    ("Let me look.", "It is about the weather.", [WEATHER, NOW]),
    ("", "", [TYPES]),
    ("", "First one,\nthen the other.", [MARKUP, LINES]),
    ("It is **warm**, 1 < 2 and [ok] {fine}.\n\n- a\n- b", "Nothing to call.", []),
    ("Plain.", "", []),
]

# Templates that do not say again what a call held, and why.
LOSSY = {
    "GigaChat3-10B-A1.8B.jinja": "first call only", "GigaChat3.1-10B-A1.8B.jinja": "first call only",
    "openai-gpt-oss-120b.jinja": "first call only",
    "NVIDIA-Nemotron-Nano-v2.jinja": "opens reasoning that past answers do not have",
    "llama-cpp-rwkv-world.jinja": "strips",
    "LFM2.5-8B-A1B.jinja": "does not escape quotes in strings",
}

SPECIAL = re.compile(r"<EOS>|<\|im_end\|>|<\|message_sep\|>|<seed:eos>|<\|END_OF_TURN_TOKEN\|>|</assistant>|"
                     r"<\|START_OF_TURN_TOKEN\|>|<\|CHATBOT_TOKEN\|>|<｜hy_eos:opensource｜>|<｜end▁of▁sentence｜>|"
                     r"<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|\[e~\[|<\|role_end\|>|<end_of_sentence>|"
                     r"<SPECIAL_1[12]>|<sep>|<turn\|>|<end_of_turn>|<\|assistant_end\|>|<｜Assistant｜>")


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment():
    env = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime(2026, 1, 2).strftime(f)
    return env


def render(source, messages, generate):
    return environment().from_string(source).render(
        messages=messages, tools=TOOLS, add_generation_prompt=generate, enable_thinking=True, reasoning=True,
        functions="", datetime="", bos_token="<BOS>", eos_token="<EOS>")


def message(content, reasoning, calls, text_args):
    m = {"role": "assistant", "content": content}
    if reasoning:
        for key in ("reasoning_content", "thinking", "reasoning"):
            m[key] = reasoning
    if calls:
        m["tool_calls"] = [{"type": "function", "id": "abcdefgh%d" % i,
                            "function": {"name": n, "arguments": json.dumps(a, ensure_ascii=False) if text_args else a}}
                           for i, (n, a) in enumerate(calls)]
    return m


def answer(source, m):
    """What the template writes behind its generation prompt, and that prompt."""
    user = [{"role": "user", "content": "Hi"}]
    prompt, full = render(source, user, True), render(source, user + [m], False)
    if full.startswith(prompt):
        return prompt, full[len(prompt):]
    k = len(os.path.commonprefix([prompt, full]))
    if prompt[k:].startswith("Here are my reasoning steps:") and "reasoning" in m:
        return prompt, full[k:]
    while re.search(r"[<\[][^<>\[\]\s]{0,16}$", full[:k]):  # not within a tag
        k -= 1
    return full[:k], full[k:]


def cases(name, source, fmt):
    for content, reasoning, calls in CONVERSATIONS:
        if name in LOSSY and len(calls) > 1 and "first" in LOSSY[name]:
            calls = calls[:1]
        if name in LOSSY and "first" not in LOSSY[name] and ("quotes" not in LOSSY[name] or MARKUP in calls):
            continue
        for text_args in (False, True):
            try:
                prompt, text = answer(source, message(content, reasoning, calls, text_args))
            except Exception:
                continue
            if text_args and '\\"city' in text:
                continue
            break
        else:
            continue
        if not all(n in text for n, _ in calls) or not text:
            continue
        text = text.removesuffix("<|start_header_id|>assistant<|end_header_id|>\n\n")
        text = re.sub(r"<\|end\|>\s*<EOS>$", "", text)
        if re.search("(%s)$" % SPECIAL.pattern, text.rstrip()):
            text = text.rstrip()  # what stands behind the end of a turn is the next turn's
        layout = "" if calls else re.search(r"\s*$", re.sub("(%s)+$" % SPECIAL.pattern, "", text)).group()
        special = sorted(set(SPECIAL.findall(text)))
        yield {"template": name, "format": fmt, "prompt": prompt[-100:], "text": text, "special": special,
               "want": {"text": content + layout if content in text else "", "reasoning": reasoning if reasoning in text else "",
                        "calls": [[n, json.dumps(a, ensure_ascii=False)] for n, a in calls]}}


def seeds(tool, transcripts, folder):
    """One seed a format: its longest transcript. Bytes: format, prompt and tools, cut, text."""
    names = subprocess.run([tool, "formats"], capture_output=True, text=True, check=True).stdout.split()
    with open(transcripts, encoding="utf-8") as f:
        rows = json.load(f)["cases"]
    os.makedirs(folder, exist_ok=True)
    for i, name in enumerate(names):
        texts = [r["text"] for r in rows if r["format"] == name] or ["x"]
        with open(os.path.join(folder, name), "wb") as f:
            f.write(bytes([i, 8, 7]) + max(texts, key=len).encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--tool", default="build/answer_tool", help="says the format of a template")
    parser.add_argument("--out", default="tests/data/answer/rendered.json")
    args = parser.parse_args()
    seeds(args.tool, os.path.join(os.path.dirname(args.out), "transcripts.json"), "tests/fuzz/corpus/answer")
    rows = []
    for path in sorted(glob.glob(os.path.join(args.templates, "*.jinja"))):
        name = os.path.basename(path)
        with open(path, encoding="utf-8") as f:
            source = f.read()
        fmt = subprocess.run([args.tool, "detect"], input=source, capture_output=True, text=True,
                             check=True).stdout.strip()
        found = list(cases(name, copy.copy(source), fmt))
        print("%-55s %-16s %d cases" % (name, fmt, len(found)))
        rows += found
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    with open(args.out, "w", encoding="utf-8") as f:
        f.write('{"tools": %s,\n"cases": [\n' % json.dumps(json.dumps(TOOLS, ensure_ascii=False), ensure_ascii=False))
        f.write(",\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
        f.write("\n]}\n")


if __name__ == "__main__":
    main()
