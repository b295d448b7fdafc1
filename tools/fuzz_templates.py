#!/usr/bin/env python3
"""Random templates, rendered by jinja2 (as transformers sets it up) and by jinja_tool: text against text, error against
error. Usage: fuzz_templates.py --tool build/jinja_tool [--seed N] [-n COUNT] [--words]. Needs transformers."""
import argparse
import json
import random
import subprocess
import sys

CONTEXT = {
    "n": 3, "z": 0, "neg": -7, "f": 2.5, "g": 1e-5, "big": 10 ** 15, "s": "Hello World", "e": "", "u": "Käse – 日本 é\u0301 ß",
    "sp": "  pad\t\n", "ml": "one\n two\r\nthree\n", "t": True, "no": False, "nil": None, "h": "<a href='x'>&amp;</a>",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "el": [], "mix": [1, "x", None, 2.0, True], "ll": [[1, 2], [3], []],
    "d": {"a": 1, "b": "two", "c": [1, 2], "items": 5}, "ed": {}, "dk": {"B": 2, "a": 1, "C": 0},
    "msgs": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": "yo", "n": 1}, {"role": "user", "n": 3}],
    "num": "42", "fl": "3.75", "hex": "0x1F", "fmt": "%s-%d", "digits": "0123456789",
}
NAMES = list(CONTEXT) + ["undefd", "msgs[0]", "d.a", "d.zz", "d['b']", "l[0]", "msgs[0].role", "s[1:3]", "msgs"]
STRS = ["'a'", "''", "' '", "'abc'", '"x\'y"', "'b'", "'\\n'", "'é'", "'user'", "'role'", "'content'", "'1'", "', '", "'A b-c d'", "'{}'", "'%s'",
        "'l'", "'o'", "'%5.2f|%-4s|%03d'", "'{:>5}|{:<4}|{:05.1f}'"]
INTS = ["0", "1", "2", "-1", "3", "10", "5", "-3", "0x10", "1_000"]
FLOATS = ["1.5", "0.1", "2.0", "1e3", "-0.0", "1e16", "1.0e-7", "123456.789"]
FILTERS0 = ["abs", "capitalize", "count", "e", "first", "float", "int", "items", "last", "length", "list", "lower", "max", "min", "reverse",
            "round", "safe", "sort", "string", "striptags", "sum", "title", "tojson", "trim", "unique|list", "upper", "urlencode", "wordcount",
            "join", "dictsort", "escape", "forceescape", "default", "d", "filesizeformat", "xmlattr", "center(12)", "truncate(8)", "list|length",
            "pprint", "wordwrap(6)"]
FILTERSN = [("join", "SE"), ("default", "X"), ("default", "XB"), ("replace", "SS"), ("replace", "SSI"), ("indent", "I"), ("indent", "IBB"),
            ("round", "I"), ("int", "X"), ("attr", "S"), ("batch", "I|list"), ("batch", "IX|list"), ("slice", "I|list"), ("slice", "IX|list"),
            ("map", "Kattribute=S|list"), ("map", "F|list"), ("select", "T|list"), ("reject", "T|list"), ("selectattr", "S|list"),
            ("selectattr", "SqX|list"), ("rejectattr", "SqX|list"), ("sort", "Kreverse=B"), ("sort", "Kattribute=S"), ("sort", "Kcase_sensitive=B"),
            ("tojson", "Kindent=I"), ("tojson", "Ksort_keys=B"), ("tojson", "Kensure_ascii=B"), ("trim", "S"), ("truncate", "IBS"),
            ("center", "I"), ("format", "X"), ("format", "XX"), ("sum", "Kattribute=S"), ("sum", "Kstart=X"), ("groupby", "S"),
            ("dictsort", "BV"), ("min", "Kattribute=S"), ("max", "Kcase_sensitive=B"), ("unique", "Kcase_sensitive=B|list"),
            ("float", "X"), ("round", "IR"), ("join", "SKattribute=S"), ("map", "Kattribute=S,default=X|list"), ("first", ""), ("xmlattr", "B")]
TESTS0 = ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence", "iterable",
          "callable", "odd", "even", "lower", "upper", "escaped", "filter", "test"]
TESTS1 = ["divisibleby", "eq", "equalto", "ne", "lt", "le", "gt", "ge", "in", "sameas", "lessthan", "greaterthan"]
METHODS = [("upper", ""), ("lower", ""), ("title", ""), ("capitalize", ""), ("strip", ""), ("strip", "S"), ("lstrip", "S"), ("rstrip", ""),
           ("split", ""), ("split", "S"), ("split", "SI"), ("rsplit", "SI"), ("splitlines", ""), ("splitlines", "B"), ("partition", "S"),
           ("rpartition", "S"), ("startswith", "S"), ("endswith", "S"), ("startswith", "(SS)"), ("find", "S"), ("rfind", "S"), ("index", "S"),
           ("count", "S"), ("replace", "SS"), ("replace", "SSI"), ("join", "E"), ("zfill", "I"), ("center", "I"), ("ljust", "I"), ("rjust", "IS"),
           ("isdigit", ""), ("isalpha", ""), ("isalnum", ""), ("isspace", ""), ("isupper", ""), ("islower", ""), ("istitle", ""), ("isnumeric", ""),
           ("removeprefix", "S"), ("removesuffix", "S"), ("swapcase", ""), ("format", "X"), ("format", "XX"), ("casefold", ""), ("expandtabs", "I"),
           ("find", "SI"), ("find", "SII"), ("count", "SII"), ("isidentifier", ""), ("isascii", ""),
           ("get", "S"), ("get", "SX"), ("items", ""), ("keys", ""), ("values", ""), ("copy", ""), ("pop", "S"), ("update", "X"),
           ("append", "X"), ("index", "X"), ("count", "X"), ("is_integer", ""), ("nosuch", "")]


class Gen:
    def __init__(self, rng):
        self.r = rng

    def pick(self, xs):
        return self.r.choice(xs)

    def arg(self, k, depth):
        return {"S": lambda: self.pick(STRS) if self.r.random() < 0.85 else self.expr(depth), "I": lambda: self.pick(INTS) if self.r.random() < 0.9 else self.expr(0),
                "X": lambda: self.expr(depth), "B": lambda: self.pick(["true", "false", "t", "n"]), "E": lambda: self.expr(depth),
                "F": lambda: self.pick(["'upper'", "'length'", "'string'", "'int'", "'nosuch'", "'first'", "'default', 'q'", "'tojson'"]),
                "T": lambda: self.pick(["'defined'", "'string'", "'odd'", "'gt', 1", "'eq', 1", "'none'", "'in', [1, 'x']", "'nosuch'", "'number'"]),
                "V": lambda: self.pick(["'key'", "'value'", "'x'"]), "R": lambda: self.pick(["'ceil'", "'floor'", "'common'", "'x'"]),
                "q": lambda: self.pick(["'eq'", "'defined'", "'ne'", "'in'", "'=='", "'equalto'"])}[k]()

    def args(self, spec, depth):
        out, i = [], 0
        while i < len(spec):
            c = spec[i]
            if c == "K":
                j = spec.index("=", i)
                out.append(spec[i + 1:j] + "=" + self.arg(spec[j + 1], depth))
                i = j + 2
                while i < len(spec) and spec[i] == ",":
                    j = spec.index("=", i)
                    out.append(spec[i + 1:j] + "=" + self.arg(spec[j + 1], depth))
                    i = j + 2
                continue
            if c == "(":
                j = spec.index(")", i)
                out.append("(" + ", ".join(self.arg(x, depth) for x in spec[i + 1:j]) + ",)")
                i = j + 1
                continue
            out.append(self.arg(c, depth))
            i += 1
        return ", ".join(out)

    def atom(self):
        x = self.r.random()
        if x < 0.5:
            return self.pick(NAMES)
        if x < 0.65:
            return self.pick(STRS)
        if x < 0.8:
            return self.pick(INTS)
        if x < 0.87:
            return self.pick(FLOATS)
        if x < 0.92:
            return self.pick(["true", "false", "none", "True", "None", "[]", "{}", "()", "range(4)", "range(5, 0, -2)", "namespace(a=1)", "dict(a=2)", "loop", "(1,)"])
        if x < 0.96:
            return "[" + ", ".join(self.pick(STRS + INTS) for _ in range(self.r.randrange(4))) + "]"
        return "{" + ", ".join("%s: %s" % (self.pick(STRS[:8] + INTS[:3]), self.pick(STRS + INTS)) for _ in range(self.r.randrange(3))) + "}"

    def expr(self, depth):
        if depth <= 0:
            return self.atom()
        x = self.r.random()
        sub = lambda: self.expr(depth - 1)
        if x < 0.10:
            return self.atom()
        if x < 0.24:
            f = self.pick(FILTERS0)
            return "(%s)|%s" % (self.fit(f.split("|")[0].split("(")[0]) if self.r.random() < 0.7 else sub(), f)
        if x < 0.40:
            name, spec = self.pick(FILTERSN)
            spec, _, post = spec.partition("|")
            return "(%s)|%s(%s)%s" % (self.fit(name) if self.r.random() < 0.7 else sub(), name, self.args(spec, 0), "|" + post if post else "")
        if x < 0.47:
            return "(%s) is %s%s" % (sub(), self.pick(["", "not "]), self.pick(TESTS0))
        if x < 0.51:
            return "(%s) is %s(%s)" % (sub(), self.pick(TESTS1), self.expr(0))
        if x < 0.63:
            name, spec = self.pick(METHODS)
            return "(%s).%s(%s)" % (self.fit("." + name) if self.r.random() < 0.8 else sub(), name, self.args(spec, 0))
        if x < 0.76:
            op = self.pick(["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in", "+", "~"])
            return "(%s %s %s)" % (sub(), op, self.expr(depth - 2))
        if x < 0.78:
            return "(%s ** %s)" % (self.pick(INTS + FLOATS + ["n", "f"]), self.pick(["2", "0", "-1", "0.5", "3"]))
        if x < 0.82:
            return "(%s if %s%s)" % (sub(), self.expr(depth - 2), self.pick(["", " else " + self.expr(0)]))
        if x < 0.90:
            i = lambda: self.pick(["", "1", "-1", "2", "-2", "0", "10", "-10", "none"])
            return self.pick(["(%s)[%s:%s]" % (self.fit("trim"), i(), i()), "(%s)[%s:%s:%s]" % (self.pick([self.fit("trim"), "l", "range(7)", "msgs", "(1, 2, 3)"]), i(), i(), self.pick(["", "2", "-1", "-2"])),
                              "(%s)[%s]" % (sub(), self.pick(INTS + STRS))])
        if x < 0.94:
            return self.pick(["not %s", "-(%s)", "+(%s)", "(%s)"]) % sub()
        if x < 0.97:
            return "[%s, %s]" % (sub(), self.expr(0))
        return "(%s).%s" % (sub(), self.pick(["a", "role", "items", "x", "content", "0", "__class__", "real", "start"]))

    def fit(self, name):
        """An operand that the filter or method (with a dot) is meant for."""
        text = ["s", "u", "sp", "ml", "h", "num", "fl", "hex", "digits", "e", "'%s'", "('x'|safe)", "s[::-1]", "d.b", "(s ~ u)", "ml|upper", "'A b-c d'"]
        lists = ["l", "ls", "ll", "el", "msgs", "l + [5]", "ls[:2]", "range(5)", "(1, 2, 2)", "d.keys()", "ls|sort", "msgs|map(attribute='role')|list", "[u, s]", "s"]
        dicts = ["d", "dk", "ed", "msgs[0]", "{'x': 1, 'y': u}", "dict(a=1, b=2)"]
        nums = ["n", "f", "g", "big", "neg", "z", "l[0]", "1.5", "num|int", "2 ** 10", "-0.0", "123456.789", "1e16", "0.1 + 0.2", "7 // 2", "7 / 2", "-7 % 3", "t"]
        if name[0] == ".":
            return self.pick(dicts if name in (".get", ".items", ".keys", ".values", ".copy", ".pop", ".update") else
                             lists[:6] if name in (".append",) else nums if name == ".is_integer" else text)
        if name in ("items", "dictsort", "xmlattr"):
            return self.pick(dicts)
        if name in ("abs", "round", "float", "int", "filesizeformat"):
            return self.pick(nums + text[5:8])
        if name in ("first", "last", "length", "count", "list", "max", "min", "reverse", "sort", "sum", "unique", "join", "batch", "slice", "map",
                    "select", "reject", "groupby"):
            return self.pick(lists)
        if name in ("selectattr", "rejectattr"):
            return self.pick(["msgs", "msgs", "msgs", "ll", "[d, dk]"])
        if name in ("tojson", "string", "default", "d", "pprint", "safe", "e", "escape"):
            return self.pick(text + lists + dicts + nums + ["nil", "t", "undefd"])
        return self.pick(text)

    def gap(self):
        return self.pick(["", "", " ", "\n", "  \n", "\n  ", "x", "\n\n", " y ", "\t", "\r\n", "z\n"])

    def tag(self, body):
        a = self.pick(["{%", "{%", "{%-", "{%+"])
        b = self.pick(["%}", "%}", "-%}", "+%}"])
        return self.gap() + a + " " + body + " " + b + self.gap()

    def out(self, e):
        return self.gap() + self.pick(["{{ ", "{{- "]) + e + self.pick([" }}", " -}}"]) + self.gap()

    def block(self, depth):
        return "".join(self.stmt(depth) for _ in range(self.r.randrange(1, 4)))

    def stmt(self, depth):
        x = self.r.random()
        var = self.pick(["x", "y", "n", "s"])
        if depth <= 0 or x < 0.3:
            return self.out(self.pick([self.expr(2), var, "x", "loop.index", "loop.last", "loop.length", "ns.a", "y"]))
        b = lambda: self.block(depth - 1)
        if x < 0.42:
            return self.tag("set %s = %s" % (self.pick([var, var, "ns.a", "x, y"]), self.pick([self.expr(1), "x ~ 1", "namespace(a=n)", "(1, 2)"])))
        if x < 0.47:
            return self.tag("set %s%s" % (var, self.pick(["", " | upper", " | trim | length"]))) + b() + self.tag("endset")
        if x < 0.62:
            s = self.tag("if " + self.expr(1)) + b()
            if self.r.random() < 0.3:
                s += self.tag("elif " + self.expr(1)) + b()
            if self.r.random() < 0.5:
                s += self.tag("else") + b()
            return s + self.tag("endif")
        if x < 0.80:
            target, it = self.pick([("x", "l"), ("x", "ls"), ("x", "range(3)"), ("k, v", "d.items()"), ("k, v", "dk|dictsort"), ("x", "msgs"),
                                    ("x", "el"), ("x", "s[:3]"), ("x", "undefd"), ("x", "(l|select('odd'))"), ("x", self.expr(1))])
            s = self.tag("for %s in %s%s%s" % (target, it, self.pick(["", "", "", " if x", " if loop", " if x != 1"]), self.pick(["", "", "", "", " recursive"])))
            s += b()
            if self.r.random() < 0.15:
                s += self.tag("if loop.index %s 2" % self.pick(["==", ">"])) + self.tag(self.pick(["break", "continue"])) + self.tag("endif")
            if self.r.random() < 0.3:
                s += self.out(self.pick(["loop.previtem", "loop.nextitem", "loop.cycle('a', 'b')", "loop.changed(x)", "loop.revindex", "loop.depth", "loop.first"]))
            if self.r.random() < 0.3:
                s += self.tag("else") + b()
            return s + self.tag("endfor")
        if x < 0.86:
            name = self.pick(["m", "k"])
            sig = self.pick(["", "x", "x, y=2", "x=n, y=x", "a, b, c=3"])
            s = self.tag("macro %s(%s)" % (name, sig)) + b() + self.out(self.pick(["x", "y", "varargs", "kwargs", "caller()", "a"])) + self.tag("endmacro")
            call = "%s(%s)" % (name, self.pick(["", "1", "1, 2", "x=5", "1, y=3", "1, 2, 3, 4", "q=1", "*l", "**ed"]))
            if self.r.random() < 0.3:
                return s + self.tag("call " + call) + b() + self.tag("endcall")
            return s + self.out(call)
        if x < 0.90:
            return self.tag("filter " + self.pick(["upper", "trim", "replace('a', 'b')", "indent(2)", "length"])) + b() + self.tag("endfilter")
        if x < 0.94:
            return self.tag("with x = %s, y = %s" % (self.expr(1), self.pick(["x", "1"]))) + b() + self.tag("endwith")
        if x < 0.96:
            return self.tag("generation") + b() + self.tag("endgeneration")
        if x < 0.98:
            return self.gap() + self.pick(["{#", "{#-", "{#+"]) + " c %} {{ " + self.pick(["#}", "-#}", "+#}"]) + self.gap()
        return self.tag("raw") + "{{ x }} {% if %}" + self.gap() + self.tag("endraw")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("-n", type=int, default=5000)
    ap.add_argument("--show", type=int, default=10)
    ap.add_argument("--words", action="store_true")
    a = ap.parse_args()
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    rng = random.Random(a.seed)
    g = Gen(rng)
    jobs = []
    for _ in range(a.n):
        x = rng.random()
        jobs.append(g.out(g.expr(3)) if x < 0.6 else g.block(2) if x < 0.9 else g.block(3))
    context = json.dumps(CONTEXT, ensure_ascii=False)
    lines = [json.dumps({"template": t, "context": context}) for t in jobs]
    out = subprocess.run([a.tool], input="\n".join(lines) + "\n", capture_output=True, text=True)
    got = [json.loads(x) for x in out.stdout.split("\n") if x]
    if len(got) != len(jobs):
        print("the tool ended with %d at %r\n%s" % (out.returncode, jobs[len(got)], out.stderr[-2000:]))
        return 1
    bad = errors = skipped = 0
    for t, h in zip(jobs, got):
        try:
            want = {"text": _cached_compile_jinja_template(t).render(**json.loads(context))}
        except Exception as e:
            want = {"error": "%s: %s" % (type(e).__name__, e)}
            errors += 1
        refused = "error" in h and any(w in h["error"] for w in ("64 bits", "not supported", "too large", "supported for short", "complex result"))
        if " at 0x" in want.get("text", "").lower() or " object>" in h.get("text", "") or refused:
            skipped += 1
            continue
        words = want.get("error", "").split(": ", 1)[-1].split("\n")[0][:100]
        if want == h if "text" in want else "error" in h and (not a.words or words in h["error"]):
            continue
        bad += 1
        if bad <= a.show:
            print("--- %r\nwant %r\ngot  %r" % (t, want, h))
    print("%d templates (%d errors, %d not comparable), %d differ" % (len(jobs), errors, skipped, bad))
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
