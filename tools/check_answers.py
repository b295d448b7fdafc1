#!/usr/bin/env python3
"""Compares src/text/answer with the expectations of llama.cpp's own parser tests.

    python tools/check_answers.py --llama DIR --tool build/answer_tool

DIR is a llama.cpp source tree. Its tests/test-chat.cpp is read (not built): every test names a template, an output of a
model, the tools, and the text, reasoning and calls that must be found. The prompt is rendered from the template, the
output split byte by byte, and the result compared: calls by their JSON value, texts without white space at their ends.
Tests of other things (partial parsing, output schemas, continued messages, reasoning left in the text) are skipped.
Differences are printed; the last line counts. Needs jinja2.
"""
import argparse
import importlib.util
import json
import os
import re
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location("fixtures", os.path.join(HERE, "make_answer_fixtures.py"))
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)

RAW = re.compile(r'R"([^(]*)\((.*?)\)\1"', re.S)
BLANK = re.compile(r"(\s|//[^\n]*\n|/\*.*?\*/)*", re.S)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


# ---- as much of C++ as the tests use ----

def literal_end(s, i):
    """Behind the string literal at s[i]."""
    if s.startswith('R"', i):
        return RAW.match(s, i).end()
    i += 1
    while s[i] != '"':
        i += 2 if s[i] == "\\" else 1
    return i + 1


def literal(s):
    """The value of adjoining string literals that are all of s; None when it is anything else."""
    out, i = None, BLANK.match(s).end()
    while i < len(s) and (s[i] == '"' or s.startswith('R"', i)):
        end = literal_end(s, i)
        if s[i] == "R":
            value = RAW.match(s, i).group(2)
        else:
            value = re.sub(r"\\(x[0-9a-fA-F]+|.)", lambda m: ESCAPES[m.group(1)] if m.group(1) in ESCAPES else
                           chr(int(m.group(1)[1:], 16)), s[i + 1:end - 1], flags=re.S)
        out = (out or "") + value
        i = BLANK.match(s, end).end()
    return out if i == len(s) else None


def tokens(s, i):
    """(place, character) outside of literals and comments."""
    while i < len(s):
        if s[i] == '"' or s.startswith('R"', i):
            i = literal_end(s, i)
            continue
        blank = BLANK.match(s, i)
        if blank.end() > i and s[i] == "/":
            i = blank.end()
            continue
        yield i, s[i]
        i += 1


def enclosed(s, i):
    """What the bracket at s[i] encloses, and the place behind it."""
    depth = 0
    for k, c in tokens(s, i):
        depth += (c in "({[") - (c in ")}]")
        if depth == 0:
            return s[i + 1:k], k + 1
    raise ValueError("open bracket")


def elements(s):
    out, depth, last = [], 0, 0
    for k, c in tokens(s, 0):
        depth += (c in "({[") - (c in ")}]")
        if c == "," and depth == 0:
            out.append(s[last:k])
            last = k + 1
    return out + [s[last:]] if s[last:].strip() else out


def in_braces(s):
    s = s[BLANK.match(s).end():]
    return elements(enclosed(s, 0)[0]) if s.startswith("{") else []


# ---- what the tests say ----

def message(text="", reasoning="", name=None, args=None, _id=None):
    return {"text": text or "", "reasoning": reasoning or "", "calls": [(name, args or "{}")] if name else []}


def expected(s, known):
    """The message that an expression of the tests builds, or None."""
    s = s.strip()
    if s in known:
        return known[s]
    m = re.match(r"(\w+)\(", s)
    if not m:
        return None
    args = elements(enclosed(s, m.end() - 1)[0])
    v = [literal(a) for a in args]
    if m.group(1) == "simple_assist_msg":
        return message(*v)
    if m.group(1) == "message_with_tool_calls":
        return message("", "", v[0], v[1])
    if m.group(1) == "message_with_tool_calls_and_reasoning":
        return message("", v[2], v[0], v[1])
    if m.group(1) == "message_with_content_and_tool_call":
        return message(v[0], "", v[1], v[2])
    if m.group(1) == "message_with_reasoning_and_tool_call":
        return message("", v[0], v[1], v[2])
    if m.group(1) == "message_with_reasoning_content_and_multiple_tool_calls":
        calls = [tuple(literal(x) for x in in_braces(c)[:2]) for c in in_braces(args[2])]
        return {"text": v[1], "reasoning": v[0], "calls": calls}
    return None


def wanted(steps, known):
    if "expect" in steps:
        return expected(steps["expect"], known)
    calls = []
    for c in in_braces(steps.get("expect_tool_calls", "{}")):
        calls.append(tuple(literal(x) for x in in_braces(c)[:2]))
    if any(None in c for c in calls):
        return None
    return {"text": literal(steps.get("expect_content", '""')), "reasoning": literal(steps.get("expect_reasoning", '""')),
            "calls": calls}


def definitions(source):
    tools, known = {}, {}
    for m in re.finditer(r"common_chat_tool (\w+)\s*\{", source):
        v = [literal(x) for x in elements(enclosed(source, m.end() - 1)[0])]
        if len(v) >= 3 and v[0] and v[2]:
            tools[m.group(1)] = {"type": "function", "function": {"name": v[0], "description": v[1],
                                                                  "parameters": json.loads(v[2])}}
    for m in re.finditer(r"const common_chat_msg (message_\w+)\s*=\s*simple_assist_msg\(", source):
        known[m.group(1)] = message(*[literal(x) for x in elements(enclosed(source, m.end() - 1)[0])])
    return tools, known


def tests(source):
    """(template, output, tools, wanted, thinks) of every test that is about splitting a whole answer."""
    tools, known = definitions(source)
    testers = [(m.start(), m.group(1)) for m in re.finditer(r'peg_tester\("([^"]+)"', source)]
    for m in re.finditer(r"tst\.test\(", source):
        template = [t for place, t in testers if place < m.start()][-1:]
        first, end = enclosed(source, m.end() - 1)
        steps = {}
        while True:
            step = re.compile(r"(?:\s|//[^\n]*\n)*\.\s*(\w+)\(").match(source, end)
            if not step:
                break
            steps[step.group(1)], end = enclosed(source, step.end() - 1)
        output = literal(first)
        offered = [tools.get(t.strip()) for t in in_braces(steps.get("tools", "{}"))]
        want = wanted(steps, known)
        other = {"is_partial", "json_schema", "continue_final_message", "messages"} & set(steps)
        if other or not template or output is None or None in offered or not want or want["text"] is None:
            continue
        if "NONE" in steps.get("reasoning_format", "NONE") and re.search("(?i)think|channel|analysis", output):
            continue
        yield template[0], output, offered, want, "false" not in steps.get("enable_thinking", "")


def split(tool, case):
    line = json.dumps(case, ensure_ascii=False) + "\n"
    parts = json.loads(subprocess.run([tool, "split"], input=line, capture_output=True, text=True, check=True).stdout)
    return {"text": "".join(p[1] for p in parts if p[0] == "text"),
            "reasoning": "".join(p[1] for p in parts if p[0] == "reasoning"),
            "calls": [(p[1], p[3]) for p in parts if p[0] == "call"]}


def plain(m):
    return m["text"].strip(), (m["reasoning"] or "").strip(), [(n, json.loads(a)) for n, a in m["calls"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--tool", default="build/answer_tool")
    args = parser.parse_args()
    with open(os.path.join(args.llama, "tests/test-chat.cpp"), encoding="utf-8") as f:
        source = f.read()
    same = different = 0
    for template, output, offered, want, thinks in tests(source):
        path = os.path.join(args.llama, template)
        with open(path, encoding="utf-8") as f:
            jinja = f.read()
        try:
            prompt = fixtures.environment().from_string(jinja).render(
                messages=[{"role": "user", "content": "Hey there!"}], bos_token="", eos_token="", functions="",
                datetime="", add_generation_prompt=True, enable_thinking=thinks, reasoning=thinks, thinking=thinks,
                **({"tools": offered} if offered else {}))
        except Exception:  # a template that wants other variables
            continue
        fmt = subprocess.run([args.tool, "detect"], input=jinja, capture_output=True, text=True, check=True).stdout
        got = split(args.tool, {"format": fmt.strip(), "prompt": prompt, "tools": json.dumps(offered), "text": output,
                                "cut": 1})
        if plain(got) == plain(want):
            same += 1
            continue
        different += 1
        print("%s (%s), prompt ...%r\n  output %r\n  wanted %r\n  got    %r" %
              (os.path.basename(template), fmt.strip(), prompt[-40:], output, want, got))
    print("%d the same, %d different" % (same, different))


if __name__ == "__main__":
    main()
