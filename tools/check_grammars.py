#!/usr/bin/env python3
"""Constrained output against real validators: Python's jsonschema, json and re.

    tools/check_grammars.py BUILD/gram_tool [--samples N] [--seed S] [--write]

For every schema and pattern below: N random sentences of the compiled grammar are read with json.loads and validated
(none may fail), and every text of its lists must be accepted or refused. --write puts the lists into
tests/data/grammar/lists.json, which tests/text/test_grammar.c reads: what the validators say, not what we say.
"""
import argparse, json, os, re, struct, subprocess, sys, tempfile

import jsonschema

OBJ = {"type": "object"}
# name: (schema, values to judge)
SCHEMAS = {
    "any": ({}, [None, 1, "x", [1, {"a": []}], {"b": {"c": None}}, -1.5e-7, True]),
    "true": (True, [0]),
    "null": ({"type": "null"}, [None, 0, "null"]),
    "types": ({"type": ["integer", "null"]}, [1, None, "1", 1.5]),
    "string": ({"type": "string"}, ["", "a\"b\\c\n", "\u00e9\U0001f600", 1]),
    "lengths": ({"type": "string", "minLength": 2, "maxLength": 4}, ["a", "ab", "abcd", "abcde", "\U0001f600\U0001f600", "\n\n\n\n"]),
    "long": ({"type": "string", "maxLength": 3000}, ["", "x" * 3000, "x" * 3001]),
    "pattern": ({"type": "string", "pattern": "^[a-c]+\\d{2,3}$"}, ["a12", "abc123", "12", "a1", "a1234", "xa12"]),
    "search": ({"type": "string", "pattern": "b+"}, ["abc", "b", "ac", "\nb\n", ""]),
    "pattern_json": ({"type": "string", "pattern": "^[\"\\\\\\n]+$"}, ["\"", "\\\"\n", "a", ""]),
    "pattern_half": ({"type": "string", "pattern": "^(foo|bar)"}, ["foo", "barbaz", "xfoo"]),
    "pattern_alt": ({"type": "string", "pattern": "^a|b$"}, ["a", "ac", "cb", "c", "b"]),
    "pattern_len": ({"type": "string", "pattern": "^[ab]*c", "minLength": 3, "maxLength": 5}, ["c", "abc", "ccccc", "cccccc", "aab"]),
    "patterns": ({"allOf": [{"pattern": "^[a-m]*$"}, {"pattern": "^[h-z]*$"}], "type": "string", "minLength": 1}, ["hij", "a", "z", ""]),
    "enum": ({"enum": ["a", 1, None, {"x": [1, 2.5]}, "q\"\\"]}, ["a", 1, None, {"x": [1, 2.5]}, "q\"\\", "b", 2]),
    "enum_type": ({"enum": ["a", 1, 2, None], "type": "integer", "minimum": 2}, ["a", 1, 2]),
    "const": ({"const": {"k": "v"}}, [{"k": "v"}, {}]),
    "integer": ({"type": "integer"}, [0, -5, 123456789, "1"]),
    "int_range": ({"type": "integer", "minimum": -12, "maximum": 345}, [-13, -12, -1, 0, 9, 99, 100, 345, 346]),
    "int_low": ({"type": "integer", "minimum": 17}, [16, 17, 100000, -20]),
    "int_high": ({"type": "integer", "maximum": -3}, [-2, -3, -40000, 0, 3]),
    "int_open": ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, [0, 1, 9, 10, -1]),
    "int_half": ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, [1, 2, 3, 4]),
    "int_safe": ({"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}, [0, -1, 999999999999999, 1.5]),
    "int_64": ({"type": "integer", "minimum": 0, "maximum": 18446744073709551615}, [0, 7, -1]),
    "num_wide": ({"type": "number", "exclusiveMinimum": -1e300, "maximum": 1e22}, [0, -12.5, "0"]),
    "int_one": ({"type": "integer", "minimum": 1000, "maximum": 1000}, [999, 1000, 1001]),
    "number": ({"type": "number"}, [0, -1.5, 1e5, "1"]),
    "num_range": ({"type": "number", "minimum": -1.25, "maximum": 2.5}, [-1.26, -1.25, -1.2, -1, 0, 0.5, 2, 2.5, 2.51, 3]),
    "num_unit": ({"type": "number", "minimum": 0, "maximum": 1}, [0, 1, 0.5, 1.01, -0.1, 0.999999]),
    "num_open": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0, 1, 0.5, 0.001, 0.999]),
    "num_pos": ({"type": "number", "exclusiveMinimum": 0}, [0, 1, 0.5, 1234.5, -1]),
    "num_neg": ({"type": "number", "maximum": -0.05}, [0, -0.05, -0.04, -1, -99.5]),
    "num_near": ({"type": "number", "minimum": 3.14, "maximum": 3.15}, [3.13, 3.14, 3.145, 3.15, 3.151]),
    "num_big": ({"type": "number", "exclusiveMaximum": 100000000000000}, [1, 99999999999999, 100000000000000, -5]),
    "num_small": ({"type": "number", "minimum": 0.000001, "maximum": 0.00001}, [0.0001, 1]),
    "draft4": ({"type": "integer", "minimum": 3, "maximum": 9}, [3, 4, 9, 10]),
    "object": ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}}, "required": ["b"]},
               [{"b": "x"}, {"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": None}, {"a": 1}, {"b": 1}, {}]),
    "optional": ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False}, [{}, {"a": 1}, {"b": 1}, {"a": 1, "c": 2}, {"d": 1}]),
    "free": (OBJ, [{}, {"x": 1, "y": {}}, []]),
    "closed": ({"type": "object", "additionalProperties": False}, [{}, {"a": 1}]),
    "map": ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}, {"a": "x"}]),
    "map_named": ({"type": "object", "properties": {"age": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
                  [{"age": 1}, {"age": 1, "x": "y"}, {"x": "y"}, {"x": 1}, {"age": "x"}]),
    "unlisted": ({"type": "object", "required": ["z"], "properties": {"a": {"type": "null"}}}, [{"z": 5}, {"a": None, "z": []}, {"a": None}]),
    "unlisted_map": ({"type": "object", "required": ["z"], "additionalProperties": {"type": "boolean"}}, [{"z": True}, {"z": 1}, {"a": True}]),
    "patternprops": ({"type": "object", "patternProperties": {"^s_": {"type": "string"}, "_i$": {"type": "integer"}}, "additionalProperties": False},
                     [{}, {"s_a": "x"}, {"n_i": 4}, {"s_a": 1}, {"q": 1}]),
    "patternprops_rest": ({"type": "object", "properties": {"s_k": {"maxLength": 2}}, "patternProperties": {"^s_": {"type": "string"}}, "additionalProperties": {"type": "null"}},
                          [{"s_k": "ab"}, {"s_k": "abc"}, {"s_x": "abc"}, {"q": None}, {"q": 1}, {"s_k": 1}]),
    "names": ({"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}, "additionalProperties": {"type": "integer"}}, [{"abc": 1}, {"abcd": 1}, {"A": 1}]),
    "names_enum": ({"type": "object", "propertyNames": {"enum": ["x", "y"]}}, [{"x": 1}, {"z": 1}, {}]),
    "minprops": ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "additionalProperties": False}, [{"a": 1}, {"a": 1, "b": 1}, {"b": 1, "c": 1}, {}]),
    "maxprops": ({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 2}, [{}, {"a": None}, {"a": None, "b": None}]),
    "maxprops_named": ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["b"], "maxProperties": 2}, [{"b": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}]),
    "array": ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, [[], [1], [1, 2, 3], [1, 2, 3, 4], ["x"]]),
    "array_any": ({"type": "array"}, [[], [1, "x", [[]]], {}]),
    "array_big": ({"type": "array", "items": {"type": "boolean"}, "minItems": 50, "maxItems": 200}, [[True] * 49, [True] * 50, [False] * 200, [True] * 201]),
    "tuple": ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, [[], [1], [1, "a"], [1, "a", 2], ["a"]]),
    "tuple_rest": ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "null"}, "minItems": 2}, [[1], [1, "a"], [1, "a", None, None], [1, "a", 2]]),
    "tuple_max": ({"type": "array", "prefixItems": [{}, {}, {}], "maxItems": 2}, [[], [1, 2], [1, 2, 3]]),
    "one_item": ({"type": "array", "items": {"type": "null"}, "uniqueItems": True, "maxItems": 1}, [[], [None], [None, None]]),
    "anyof": ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]}, [1, "ab", "abc", None]),
    "anyof_base": ({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "anyOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]},
                   [{"id": 1, "a": None}, {"id": 1, "b": None}, {"id": 1}, {"a": None}]),
    "oneof_types": ({"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "object", "properties": {}, "additionalProperties": False}]}, ["x", 1, {}, None]),
    "oneof_kind": ({"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["kind", "r"]},
                              {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number"}}, "required": ["kind", "side"]}]},
                   [{"kind": "circle", "r": 1}, {"kind": "square", "side": 2}, {"kind": "circle"}, {"kind": "x", "r": 1}]),
    "oneof_required": ({"oneOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]}]},
                       [{"a": None}, {"b": None}, {}]),
    "oneof_ranges": ({"type": "integer", "oneOf": [{"maximum": 3}, {"minimum": 10}]}, [3, 4, 10, -1]),
    "oneof_enum": ({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["c", "b2"]}, {"type": "null"}]}, ["a", "c", None, "d"]),
    "oneof_pattern": ({"type": "string", "oneOf": [{"pattern": "^a"}, {"pattern": "^b"}]}, ["ax", "bx", "cx"]),
    "allof": ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 5}, "b": {"type": "string"}}, "required": ["b"]}]},
              [{"a": 5, "b": "x"}, {"a": 4, "b": "x"}, {"a": 5}]),
    "allof_closed": ({"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"additionalProperties": {"type": ["null", "integer"]}, "required": ["c"]}]}, [{"a": None, "c": 1}, {"c": "x"}, {"c": None}]),
    "ref": ({"$defs": {"p": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}, "type": "array", "items": {"$ref": "#/$defs/p"}}, [[], [{"x": 1}], [{"y": 1}]]),
    "ref_sibling": ({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 2}, ["ab", "abc", 1]),
    "ref_names": ({"definitions": {"a/b": {"type": "null"}, "c~d": {"type": "boolean"}, "e%f": {"type": "integer"}}, "type": "array", "prefixItems": [{"$ref": "#/definitions/a~1b"}, {"$ref": "#/definitions/c~0d"}, {"$ref": "#/definitions/e%25f"}], "items": False, "minItems": 3},
                  [[None, True, 1], [None, 1, 1]]),
    "anchor": ({"$defs": {"z": {"$anchor": "here", "type": "integer"}}, "type": "object", "properties": {"v": {"$ref": "#here"}}, "required": ["v"]}, [{"v": 1}, {"v": "x"}]),
    "id": ({"$id": "https://example.com/tree", "type": "object", "properties": {"sub": {"$ref": "https://example.com/tree"}}}, [{}, {"sub": {"sub": {}}}]),
    "tree": ({"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["value"]},
             [{"value": 1}, {"value": 1, "children": [{"value": 2, "children": []}]}, {"children": []}]),
    "list": ({"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["next"]}}, "$ref": "#/$defs/n"}, [{"next": None}, {"next": {"next": None}}, {}]),
    "unevaluated": ({"type": "object", "allOf": [{"properties": {"a": {"type": "null"}}}], "properties": {"b": {"type": "null"}}, "unevaluatedProperties": False}, [{"a": None}, {"b": None, "a": None}, {"c": 1}]),
    "defaults": ({"title": "T", "description": "d", "$schema": "https://json-schema.org/draft/2020-12/schema", "default": 1, "examples": [1], "type": "integer", "deprecated": False, "readOnly": True, "$comment": "c"}, [1, "x"]),
    "escaped_keys": ({"type": "object", "properties": {"a\"b\\": {"type": "null"}, "n\nl": {"type": "null"}, "\u00fc": {"type": "null"}}, "required": ["a\"b\\", "n\nl", "\u00fc"]}, [{"a\"b\\": None, "n\nl": None, "\u00fc": None}, {}]),
    "person": ({"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 40}, "age": {"type": "integer", "minimum": 0, "maximum": 130}, "email": {"type": "string", "format": "email"},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 5}, "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}}, "required": ["street", "zip"]}},
                "required": ["name", "age", "address"], "additionalProperties": False},
               [{"name": "A", "age": 3, "address": {"street": "s", "zip": "12345"}}, {"name": "", "age": 3, "address": {"street": "s", "zip": "12345"}}, {"name": "A", "age": 3, "tags": ["x"], "address": {"street": "s", "zip": "1234"}}]),
}
FORMATS = {"date": ["2024-02-28", "2024-13-01", "24-01-01"], "time": ["12:30:00Z", "25:00:00Z"], "date-time": ["2024-01-31T10:00:00.5+01:00", "2024-01-31"],
           "duration": ["P1DT2H", "PT", "P1W"], "email": ["a.b@c.de", "x"], "hostname": ["a-b.example.com", "-a"], "ipv4": ["127.0.0.1", "256.1.1.1"],
           "ipv6": ["1:2:3:4:5:6:7:8", "x"], "uuid": ["123e4567-e89b-12d3-a456-426614174000", "123e4567"], "uri": ["https://a.b/c?d=e", "a b"],
           "json-pointer": ["/a/~0b", "a"], "relative-json-pointer": ["0#", "x"]}
for name, texts in FORMATS.items():
    SCHEMAS["format_" + name] = ({"type": "string", "format": name}, texts)
SCHEMAS["format_len"] = ({"type": "string", "format": "hostname", "maxLength": 8}, ["a.b", "a-very-long.host"])

GOOD_FORMATS = ["P1W"]
# Refused: (schema, what the message must name)
REFUSED = [
    ({"type": "integer", "minimum": 2000000000000000}, "1e15 and more"),
    ({"not": {"type": "string"}}, "not"), ({"type": "array", "uniqueItems": True}, "uniqueItems"), ({"type": "array", "contains": {}}, "contains"),
    ({"type": "number", "multipleOf": 0.5}, "multipleOf"), ({"if": {}, "then": {"type": "null"}}, "if"), ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"properties": {"x": {"properties": {"y/z": {"multipleOf": 2}}}}}, "/properties/x/properties/y~1z/multipleOf"), ({"$ref": "#/nowhere"}, "/$ref"), ({"$ref": "other.json"}, "/$ref"),
    ({"type": "strin"}, "/type"), ({"type": "string", "pattern": "(a"}, "/pattern"), ({"type": "string", "pattern": "(?=a)b"}, "lookahead"), ({"type": "string", "minLength": -1}, "/minLength"),
    ({"enum": []}, "/enum"), ({"anyOf": []}, "/anyOf"), ({"properties": 5}, "/properties"), ({"properties": {"a": 5}}, "/properties/a"), ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "/oneOf"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "match"), (False, "match"), ({"$ref": "#"}, "never-ending"), ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "match"),
    ({"type": "string", "pattern": "\\bword"}, "word bound"), ({"type": "array", "minItems": "1"}, "/minItems"), (5, "schema must be"),
]

# name: (pattern, texts)
REGEXES = {
    "literal": ("hello", ["hello", "hell", "hello "]), "alt": ("yes|no|maybe", ["yes", "no", "maybe", "yesno", ""]), "class": ("[a-cx]+[^0-9\\s]?", ["abc", "x!", "x1", "", "a "]),
    "anchors": ("^ab+$", ["ab", "abb", "a"]), "group": ("(ab|cd){2,3}", ["abcd", "ab", "ababab", "abababab"]), "named": ("(?P<y>\\d{4})-(?P<m>\\d\\d)", ["2024-01", "24-1"]),
    "lazy": ("a+?b*?", ["a", "aab", "b"]), "braces": ("a{,2}b{2,}c{3}", ["bbccc", "aabbbccc", "aaabbccc", "bccc"]), "escapes": ("\\x41\\u00e9\\.\\t\\\\", ["A\u00e9.\t\\", "A\u00e9xx\\"]),
    "unicode": ("[\u0430-\u044f]+\U0001f600?", ["\u0436\u0437", "\u0436\U0001f600", "a"]), "dot": (".{3}", ["abc", "\u00e9\u4e2d\U0001f600", "a\nb", "ab"]), "dotall": ("(?s).{3}", ["a\nb", "abcd"]),
    "nocase": ("(?i)abc[d-f]", ["ABCd", "abcF", "abx"]), "nocase_group": ("a(?i:b)c", ["aBc", "abc", "ABc"]), "empty": ("", ["", "a"]), "opt": ("(a|)b?", ["", "a", "ab", "b", "ba"]),
    "nested": ("((a*)*b)*", ["", "aab", "b", "aabab", "a"]), "word": ("\\w+@\\w+\\.(com|org)", ["me@x.com", "me@x.net"]), "neg": ("\\D\\W\\S", ["a!b", "1!b", "aab", "a! "]),
    "literal_brace": ("a{b}", ["a{b}", "ab"]), "class_dash": ("[a\\-z-]+", ["a-z", "b"]), "class_bracket": ("[]a]+", ["]a", "b"]), "big": ("[ab]{0,100000}", ["", "abab", "c"]), "comment": ("a(?#note)b", ["ab", "a"]),
}
REFUSED_RE = [("(a", "not closed"), ("a)", "not opened"), ("[a", "not closed"), ("(?=a)", "lookahead"), ("(?<!a)b", "lookbehind"), ("(a)\\1", "backreference"), ("a**", "repetition"), ("*a", "repetition"), ("\\b", "word bound"),
              ("a{3,2}", "repetition"), ("[z-a]", "range"), ("a^b", "anchor"), ("(?>a)", "atomic"), ("a++", "possessive"), ("\\", "backslash"), ("\\q", "escape"), ("a{9999999999}", "2147483647")]

# llama.cpp's example grammars and some of ours: (texts that match, texts that do not)
GBNF = {
    "json": (None, ["{}", "{\"a\": [1, 2.5e3, \"x\\n\"], \"b\": {\"c\": null}}", "{\"a\":true}"], ["[1]", "{a}", "{\"a\":}", "{\"a\":01}"]),
    "json_arr": (None, ["[\n]", "[\n1,\n2]", "[\n{\"a\":1}]"], ["{}", "[1,]"]),
    "arithmetic": (None, ["1 +2*x=3\n", "(1+2)*x =y\n"], ["1 + 2\n", "x = \n"]),
    "list": (None, ["- a\n- b c\n"], ["a\n", "- \n"]),
    "chess": (None, ["1. e4 e5\n2. Nf3 Nc6\n", "1. e4 e5\n2. O-O Qxb7#\n"], ["1. e9 e5\n", "e4"]),
    "english": (None, ["Hello world"], ["\u4e2d"]),
    "japanese": (None, ["\u3042\u308a"], ["abc"]),
    "c": (None, ["int main(int argc){return 0;}"], ["main()", "int x;"]),
    "right": ("root ::= item | item \",\" root\nitem ::= [0-9]+", ["1", "1,22,333"], ["", "1,", ",1"]),
    "ambiguous": ("root ::= e\ne ::= t \"+\" e | t \"-\" e | t\nt ::= \"(\" e \")\" | \"1\"", ["1", "((((1+1))))-1", "(1)"], ["1+", "(1", ""]),
    "count": ("root ::= (\"a\"{2,3} \"b\"){2} \"c\"{1000000}", [], ["aab", "c"]),
    "classes": ("root ::= [^\\x00-\\x1F\"\\\\]+ | \"\\u00e9\\U0001F600\\n\" | [\u3041-\u309f\\]\\-a-]", ["abc", "\u00e9\U0001f600\n", "\u3042", "]"], ["\n", "\""]),
    "layout": ("# comment\nroot ::= (\n  \"a\" # one\n  | \"b\"\n) |\n  \"c\" [d] ?\n\n", ["a", "b", "c", "cd"], ["d", "ad"]),
}
REFUSED_GBNF = [("root ::= root \"a\" | \"b\"", "line 1, column 1", "left recursive"), ("root ::= a\na ::= b? a2\nb ::= \"x\"\na2 ::= a \"c\" | \"d\"", "line 2, column 1", "left recursive"), ("root ::= x", "line 1, column 10", "not defined"),
                ("a ::= \"b\"", "", "no rule \"root\""), ("root ::= \"a", "line 1, column 10", "not closed"), ("root ::= [a", "line 1", "not closed"), ("root ::= (\"a\"", "line 1", "\")\""), ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1", "twice"),
                ("root ::= *", "column 10", "nothing"), ("root ::= \"a\"{3,2}", "column 13", "3 to 2"), ("root ::= \"a\"{99999999999}", "", "2147483647"), ("root = \"a\"", "column 6", "::="), ("root ::= \"\\q\"", "column 11", "escape"),
                ("root ::= a\na ::= \"x\" a", "", "no text"), ("root ::= <[99999]>", "column 10", "99999"), ("root ::= <nope>", "", "no token"), ("", "", "no rule"), ("root ::= " + "(" * 5000 + "\"a\"" + ")" * 5000, "", "deep"), ("root ::= [b-a]", "", "range")]


class Tool:
    def __init__(self, path):
        self.path = path

    def file(self, text):
        f = tempfile.NamedTemporaryFile("wb", suffix=".txt", delete=False)
        f.write(text.encode("utf-8") if isinstance(text, str) else text)
        f.close()
        return f.name

    def run(self, args, data=b""):
        return subprocess.run([self.path, *args], input=data, capture_output=True, timeout=120)

    def accept(self, kind, text, items):
        data = b"".join(struct.pack("<I", len(t)) + t for t in items)
        name = self.file(text)
        r = self.run(["accept", kind, name], data)
        os.unlink(name)
        if r.returncode:
            return r.stderr.decode().strip()
        return [int(x) for x in r.stdout.split()]

    def sample(self, kind, text, n, seed):
        name = self.file(text)
        r = self.run(["sample", kind, name, str(n), str(seed)])
        os.unlink(name)
        if r.returncode:
            return r.stderr.decode(errors="replace").strip()
        out, i, d = [], 0, r.stdout
        while i < len(d):
            k, = struct.unpack("<I", d[i:i + 4])
            out.append(d[i + 4:i + 4 + k])
            i += 4 + k
        return out


failures = 0


def complain(*what):
    global failures
    failures += 1
    print("FAIL", *what)


def distinct(pairs):
    return dict(pairs)


def check_schema(tool, name, schema, values, args, lists):
    text = json.dumps(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    out = tool.sample("json-schema", text, args.samples, args.seed)
    if isinstance(out, str):
        complain(name, out)
        return
    bad = 0
    for o in out:
        try:
            v = json.loads(o.decode("utf-8"))
            v_err = next(iter(validator.iter_errors(v)), None)
        except ValueError as e:
            v_err = e
        if v_err:
            bad += 1
            if bad < 4:
                complain(name, o, str(v_err)[:200])
    if not out:
        complain(name, "no sentence")
    cases = []
    for v in values:
        good = validator.is_valid(v)
        if name.startswith("format_") and v in values[1:] and "len" not in name and v not in GOOD_FORMATS:
            good = False  # the validator lacks checkers for some
        for t in {json.dumps(v, ensure_ascii=False), json.dumps(v, ensure_ascii=False, separators=(",", ":")), json.dumps(v, ensure_ascii=False, indent=2)}:
            cases.append((t, good))
    got = tool.accept("json-schema", text, [t.encode() for t, _ in cases])
    for (t, good), g in zip(cases, got):
        if (g == 1) != good:
            complain(name, "text", repr(t), "valid" if good else "not valid", "but", g)
    lists["schemas"].append({"name": name, "grammar": text, "good": sorted({t for t, g in cases if g}), "bad": sorted({t for t, g in cases if not g})})
    print(f"{name}: {len(out)} sentences, {len(cases)} texts")


def check_regex(tool, name, pattern, texts, args, lists):
    p = re.compile(pattern)
    out = tool.sample("regex", pattern, args.samples, args.seed)
    if isinstance(out, str):
        return complain(name, out)
    for o in out:
        if not p.fullmatch(o.decode("utf-8")):
            complain(name, o)
    got = tool.accept("regex", pattern, [t.encode() for t in texts])
    for t, g in zip(texts, got):
        if (g == 1) != bool(p.fullmatch(t)):
            complain(name, repr(t), g)
    lists["regexes"].append({"name": name, "grammar": pattern, "good": [t for t in texts if p.fullmatch(t)], "bad": [t for t in texts if not p.fullmatch(t)]})
    print(f"regex {name}: {len(out)} sentences, {len(texts)} texts")


def refused(tool, kind, text, *words):
    got = tool.accept(kind, text, [])
    for w in words:
        if not isinstance(got, str) or w not in got:
            complain(kind, repr(text)[:80], "expected", w, "got", got)
            return


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("tool")
    ap.add_argument("--samples", type=int, default=200)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--grammars", help="folder with llama.cpp's example grammars")
    ap.add_argument("--write", action="store_true")
    ap.add_argument("--only")
    args = ap.parse_args()
    tool = Tool(args.tool)
    lists = {"schemas": [], "regexes": [], "gbnf": [], "refused": []}
    for name, (schema, values) in SCHEMAS.items():
        if not args.only or args.only == name:
            check_schema(tool, name, schema, values, args, lists)
    for name, (pattern, texts) in REGEXES.items():
        if not args.only or args.only == name:
            check_regex(tool, name, pattern, texts, args, lists)
    for name, (text, good, bad) in GBNF.items():
        if text is None:
            if not args.grammars:
                continue
            text = open(os.path.join(args.grammars, name + ".gbnf"), encoding="utf-8").read()
        got = tool.accept("gbnf", text, [t.encode() for t in good + bad])
        if isinstance(got, str):
            complain(name, got)
            continue
        for t, g, want in zip(good + bad, got, [1] * len(good) + [0] * len(bad)):
            if (g == 1) != want:
                complain("gbnf", name, repr(t), g)
        if GBNF[name][0] is not None:
            lists["gbnf"].append({"name": name, "grammar": text, "good": good, "bad": bad})
        print(f"gbnf {name}: {len(got)} texts")
    for schema, word in REFUSED:
        word = {"never-ending": "", "match": "no text"}.get(word, word)
        if schema == {"$ref": "#"}:
            continue  # says nothing: any value
        refused(tool, "json-schema", json.dumps(schema), word)
        lists["refused"].append({"kind": "json-schema", "grammar": json.dumps(schema), "words": [word]})
    for pattern, word in REFUSED_RE:
        refused(tool, "regex", pattern, word, "column")
        lists["refused"].append({"kind": "regex", "grammar": pattern, "words": [word, "column"]})
    for text, place, word in REFUSED_GBNF:
        refused(tool, "gbnf", text, place, word)
        if len(text) < 1000:
            lists["refused"].append({"kind": "gbnf", "grammar": text, "words": [place, word]})
    if args.write:
        path = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "grammar", "lists.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write("{\n")
            for i, (k, rows) in enumerate(lists.items()):
                f.write(f" {json.dumps(k)}: [\n" + ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows) + "\n ]" + (",\n" if i < 3 else "\n"))
            f.write("}\n")
        seeds = os.path.join(os.path.dirname(__file__), "..", "tests", "fuzz", "corpus", "grammar")
        os.makedirs(seeds, exist_ok=True)
        for kind, rows in enumerate((lists["gbnf"], lists["schemas"], lists["regexes"])):
            for i, row in enumerate(rows[:: 3 if kind == 1 else 2]):
                with open(os.path.join(seeds, f"{'gsr'[kind]}{i:02}"), "wb") as f:
                    f.write(bytes([kind, i]) + row["grammar"].encode())
    print("failures:", failures)
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
