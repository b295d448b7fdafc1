#!/usr/bin/env python3
"""Constrained output of a real model against real validators: runs `ffai generate` with schemas, patterns and grammars at a
high temperature and reads what comes out with json, jsonschema and re. Not part of the suite (it takes minutes).

    tools/check_constrained.py FFAI MODEL [--seeds N] [--tokens N]

An answer that ran into the token limit is counted, not judged; everything else must be valid.
"""
import argparse, json, re, subprocess, sys, tempfile

import jsonschema

from check_grammars import SCHEMAS

PICK = ["types", "lengths", "pattern", "search", "pattern_len", "enum", "int_range", "num_range", "num_open", "object", "optional", "map_named", "patternprops",
        "names", "minprops", "array", "tuple_rest", "anyof_base", "oneof_kind", "oneof_required", "allof", "tree", "list", "escaped_keys", "person",
        "format_date-time", "format_email", "format_uuid"]
REGEXES = ["(yes|no|maybe)( [a-z]{2,8}){0,3}\\.", "[A-Z][a-z]+ [A-Z][a-z]+, \\d{1,3}", "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\dZ", "(?i)[a-z]{3,20}[\u00e4\u00f6\u00fc]?!", "#[0-9a-f]{6}"]
GRAMMARS = [("root ::= line{2,4}\nline ::= \"- \" [A-Za-z ]{3,30} \"\\n\"", "(- [A-Za-z ]{3,30}\n){2,4}"),
            ("root ::= sum \"=\" [0-9]{1,5}\nsum ::= num ([+*-] num){1,4}\nnum ::= [1-9] [0-9]{0,2} | \"(\" num [+-] num \")\"", None)]


def run(args, flag, value, prompt, seed, temp):
    cmd = [args.ffai, "generate", "-m", args.model, "--raw", "-p", prompt, flag, value, "--temp", str(temp), "--top-k", "0", "--top-p", "1", "--seed", str(seed), "-n", str(args.tokens), "--stats=json"]
    r = subprocess.run(cmd, capture_output=True, timeout=600)
    if r.returncode:
        sys.exit(f"{' '.join(cmd)}: {r.stderr.decode()}")
    return r.stdout, json.loads(r.stderr.decode().strip().split("\n")[-1])["gen_tokens"] >= args.tokens


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("ffai")
    ap.add_argument("model")
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--tokens", type=int, default=200)
    args = ap.parse_args()
    good = cut = bad = 0
    tmp = tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8")

    def judge(name, out, limit, check):
        nonlocal good, cut, bad
        try:
            problem = check(out.decode("utf-8"))
        except ValueError as e:
            problem = str(e)
        if not problem:
            good += 1
        elif limit:
            cut += 1
        else:
            bad += 1
            print("FAIL", name, out, problem)

    def put(text):
        tmp.seek(0)
        tmp.truncate()
        tmp.write(text)
        tmp.flush()
        return tmp.name

    for seed in range(args.seeds):
        temp = [1.0, 0.7, 2.5][seed % 3]
        for name in PICK:
            schema = SCHEMAS[name][0]
            validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
            out, limit = run(args, "--json-schema", put(json.dumps(schema)), "As JSON: ", seed, temp)
            judge(name, out, limit, lambda t: "; ".join(e.message for e in validator.iter_errors(json.loads(t))))
        for pattern in REGEXES:
            out, limit = run(args, "--regex", pattern, "Answer: ", seed, temp)
            judge(pattern, out, limit, lambda t: None if re.fullmatch(pattern, t) else "no match")
        for grammar, pattern in GRAMMARS:
            out, limit = run(args, "--grammar", put(grammar), "Here: ", seed, temp)
            judge(grammar, out, limit, lambda t: None if (re.fullmatch(pattern, t) if pattern else t.count("(") == t.count(")") and "=" in t) else "no match")
    print(f"{good} valid, {cut} cut off by the token limit, {bad} not valid")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
