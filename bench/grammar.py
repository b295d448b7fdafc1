#!/usr/bin/env python3
"""Time of token masks: bench/grammar.py BUILD/gram_tool MODEL (a tokenizer's folder or .gguf). Texts and grammars are made here, always the same.
Times are processor time of the thread; `first` includes what is worked out for the vocabulary once per grammar."""
import json, os, random, subprocess, sys, tempfile

WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has "
         "when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me").split()
JSON_GBNF = r'''root ::= value
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
'''
SCHEMA = {"type": "array", "items": {"type": "object", "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 100}, "age": {"type": "integer", "minimum": 0, "maximum": 130}, "bio": {"type": "string"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 5},
    "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}}, "required": ["street", "zip"]}},
    "required": ["name", "age", "bio", "address"]}}


def main():
    tool, model = sys.argv[1:3]
    rng = random.Random(1)
    text = lambda n: " ".join(rng.choice(WORDS) for _ in range(n)).capitalize() + rng.choice(".!?")
    rows = [{"name": text(2), "age": rng.randint(1, 100), "bio": text(30), "tags": [rng.choice(WORDS) for _ in range(3)], "address": {"street": text(3), "zip": "%05d" % rng.randint(0, 99999)}} for _ in range(8)]
    files = {"compact": json.dumps(rows, separators=(",", ":")), "pretty": json.dumps(rows, indent=2), "prose": "\n".join(text(20) for _ in range(15)),
             "any.json": "{}", "rows.json": json.dumps(SCHEMA), "json.gbnf": JSON_GBNF,
             "lines.gbnf": "root ::= line (\"\\n\" line)*\nline ::= word (\" \" word)* [.!?]\nword ::= [A-Za-z']+\n", "lines.re": "([A-Z][a-z' ]+[.!?]\\n?)+"}
    cases = [("json-schema", "any.json", "compact"), ("json-schema", "any.json", "pretty"), ("json-schema", "rows.json", "compact"), ("json-schema", "rows.json", "pretty"),
             ("gbnf", "json.gbnf", "compact"), ("gbnf", "lines.gbnf", "prose"), ("regex", "lines.re", "prose")]
    with tempfile.TemporaryDirectory() as d:
        for name, s in files.items():
            with open(os.path.join(d, name), "w", encoding="utf-8") as f:
                f.write(s)
        for kind, grammar, sample in cases:
            print(f"== {kind} {grammar}, {sample}", flush=True)
            subprocess.run([tool, "bench", model, kind, os.path.join(d, grammar), os.path.join(d, sample)], check=True)


main()
