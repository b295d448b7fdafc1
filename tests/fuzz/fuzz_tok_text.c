/* Any text through small fixed tokenizers, one for each kind of pipeline; the first byte chooses which. */
#include "tok_check.h"

#define SPLIT(re) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" re "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define BYTES     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define WORDS(tail)                                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}" tail                               \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define MODEL(options)                                                                                                 \
    "\"model\":{\"type\":\"BPE\"," options                                                                             \
    "\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"c\":3,\"ab\":4,\"abc\":5,\"\xC4\xA0\":6,"                                \
    "\"\xC4\xA0"                                                                                                       \
    "a\":7,\"\xE2\x96\x81\":8,\"\xE2\x96\x81"                                                                          \
    "a\":9,\"aa\":10,\"aaaa\":11,\"e\":12,\"1\":13,\"\xC3\x83\":14,"                                                   \
    "\"\xC2\xA9\":15,\"\xC3\x83\xC2\xA9\":16,\"'\":17,\"s\":18,\"'s\":19},\"merges\":[\"a b\",\"ab c\",\"\xC4\xA0 "    \
    "a\","                                                                                                             \
    "\"\xE2\x96\x81 a\",\"a a\",\"aa aa\",\"\xC3\x83 \xC2\xA9\",\"' s\"]}"
#define ADDED                                                                                                          \
    "\"added_tokens\":[{\"id\":30,\"content\":\"<s>\",\"special\":true,\"lstrip\":true,\"rstrip\":true},{\"id\":31,"   \
    "\"content\":\"ca\",\"normalized\":true,\"single_word\":true}],"

static const char *const json[] = {
    "{" ADDED "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT(
        WORDS("")) "," BYTES "]},\"decoder\":{\"type\":\"ByteLevel\"}," MODEL("") "}",
    "{" ADDED "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT(
        WORDS("{1,3}")) "," BYTES "]},\"decoder\":{\"type\":\"ByteLevel\"}," MODEL("\"ignore_merges\":true,") "}",
    "{" ADDED
    "\"normalizer\":{\"type\":\"NFKD\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
    "\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\"}]},\"decoder\":{\"type\":\"ByteLevel\"}," MODEL(
        "") "}",
    "{" ADDED "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
    "\",\"start\":1,\"stop\":1}]}," MODEL("\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,") "}",
    "{" ADDED
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"first\"},"
    "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\"}," MODEL("\"unk_token\":\"<unk>\",") "}",
    "{" ADDED "\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":"
    "[" SPLIT("(a+)+b|[^\\\\w\\\\s]{2}") ",{\"type\":\"Punctuation\"}]}," MODEL(
        "\"unk_token\":\"<unk>\",\"end_of_word_suffix\":\"c\",") "}",
    "{" ADDED "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"},{\"type\":\"NFKC\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"always\"},"
    "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":"
    "0,"
    "\"vocab\":[[\"<unk>\",0],[\"\xE2\x96\x81\",-2],[\"\xE2\x96\x81"
    "a\",-3],[\"a\",-4],[\"ab\",-5],[\"aab\",-5.5],[\"\xC3\xA9\",-6]]}}",
    "{" ADDED "\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":\"WordPiece\","
    "\"vocab\":{\"[UNK]\":0,\"a\":1,\"##a\":2,\"##ab\":3,\"e\":4,\".\":5,\"'\":6,\"b\":7,\"##b\":8,\"\xE4\xB8\xAD\":9}}"
    "}",
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"UnicodeScripts\"},{\"type\":"
    "\"ByteLevel\"},{\"type\":\"FixedLength\",\"length\":3}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{"
    "\"type\":\"ByteLevel\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^(\\\\s|[ab])]+\"},\"content\":\"_\"}]},"
    "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"x\",\"vocab\":{\"x\":0,\"\xC4\xA0\":1,\"aab\":2}}}",
};
enum { N = sizeof json / sizeof *json };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fa_tok *tok[N];
    fa_error err;
    for (int i = 0; i < N; i++)
        if (!tok[i] && fa_tok_from_json(&tok[i], json[i], strlen(json[i]), NULL, 0, "fixed", &err)) abort();
    if (!size) return 0;
    check_text(tok[data[0] % N], (const char *)data + 1, size - 1, data[0] / N);
    return 0;
}
