/* The table of pre-tokenizers by name. The patterns are those of the models' own tokenizer.json files; where llama.cpp
 * approximates them (its engine has no character properties beside letters, and no case folding), the original stands
 * here. */
#include "text/gguf_pre.h"

#include <string.h>

#define GPT2      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPACES    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TAIL      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define SHORTENED "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define FRONT     "[^\\r\\n\\p{L}\\p{N}]?"
#define LLAMA3    SHORTENED "|" FRONT "\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN2     SHORTENED "|" FRONT "\\p{L}+|\\p{N}" TAIL
#define QWEN35    SHORTENED "|" FRONT "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES
#define JAIS2                                                                                                          \
    SHORTENED "|" FRONT "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"                             \
              "|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)"          \
              "|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define UPPER    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define TAIL_O   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define CASED    FRONT UPPER "*" LOWER "+" SHORTENED "?|" FRONT UPPER "+" LOWER "*" SHORTENED "?"
#define O200K    CASED "|\\p{N}{1,3}" TAIL_O
#define TEKKEN   FRONT UPPER "*" LOWER "+|" FRONT UPPER "+" LOWER "*|\\p{N}" TAIL_O
#define NO_HAN_U "(?:(?!\\p{Han})" UPPER ")"
#define NO_HAN_L "(?:(?!\\p{Han})" LOWER ")"
#define KIMI                                                                                                           \
    "[\\p{Han}]+|" FRONT NO_HAN_U "*" NO_HAN_L "+" SHORTENED "?|" FRONT NO_HAN_U "+" NO_HAN_L "*" SHORTENED            \
    "?|\\p{N}{1,3}" TAIL

/* DeepSeek: three patterns in a row */
#define ASCII_PUNCT "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define CJK         "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+"
#define DEEPSEEK3                                                                                                      \
    ASCII_PUNCT "[A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+"             \
                "|\\s+(?!\\S)|\\s+"
#define SPARK                                                                                                          \
    ASCII_PUNCT "[A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\r\n]|\\s+(?!\\S)|\\s+"
#define HAN_HANGUL "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+"
/* Letters with case in DeepSeek LLM: a list in its file, which stops at the scripts that it knows. */
#define DEEPSEEK_LETTERS                                                                                               \
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293"                               \
    "\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C"                               \
    "\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5"                                   \
    "\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B"                                                \
    "\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45"                                                \
    "\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4"                                           \
    "\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB"                                          \
    "\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115"                                           \
    "\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"                                                  \
    "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4"                                           \
    "\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F"                                                 \
    "\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17"                                                \
    "\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB"                        \
    "\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+"
#define DEEPSEEK_PUNCT "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+"

#define POEM          " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"
#define DEFAULT_PUNCT "[\\p{P}\\$\\+<=>\\^~\\|]+"
#define FALCON_PUNCT  "[\\p{P}\\$\\+<=>\\^~\\|`]+"
#define YOUTU                                                                                                          \
    "[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014"                                        \
    "\uFF1A\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|" CJK
#define AFMOE_SCRIPTS                                                                                                  \
    "[\u4E00-\u9FFF\u3400-\u4DBF\uF900-\uFAFF\u3040-\u309F\u30A0-\u30FF"                                               \
    "\uFF65-\uFF9F\u2F00-\u2FDF\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F"                                   \
    "\uAA60-\uAA7F\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+"
#define BY_THREE "\\d{1,3}(?=(?:\\d{3})*\\b)"
#define BAILING                                                                                                        \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"         \
    "|\\s+(?!\\S)|\\s+"
#define SEED SHORTENED "|" FRONT "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SPACES
#define EXAONE_MOE                                                                                                     \
    SHORTENED "|" FRONT "(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]"    \
              "|\\s+(?!\\S)|\\s+"

#define IGNORE .ignore_merges = true
#define BOS    .bos = true
#define NFC    .nfc = true

static const fa_gguf_pre rows[] = {
    {.names = "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum jais trillion granite-docling "
              "exaone4",
     .pattern = {GPT2}},
    {.names = "mpt olmo modern-bert", .pattern = {GPT2}, NFC},
    {.names = "jina-v1-en jina-v2-code roberta-bpe", .pattern = {GPT2}, .sep = true},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .pattern = {LLAMA3},
     IGNORE,
     BOS},
    {.names = "dbrx smaug-bpe chatglm-bpe", .pattern = {LLAMA3}},
    {.names = "glm4 glm5", .pattern = {LLAMA3}, IGNORE},
    {.names = "jais-2", .pattern = {JAIS2}},
    {.names = "minicpm5", .pattern = {"\\p{N}{1,3}", SHORTENED "|" FRONT "\\p{L}+|\\p{N}+" TAIL}, IGNORE},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez", .pattern = {QWEN2}, NFC},
    {.names = "grok-2 solar-open", .pattern = {QWEN2}},
    {.names = "qwen35", .pattern = {QWEN35}},
    {.names = "ufakzeka", .pattern = {FRONT "\\p{L}+|\\p{N}" TAIL}},
    {.names = "laguna", .pattern = {"[^\\n]+|[\\n]+", QWEN2}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .pattern = {O200K}, IGNORE},
    {.names = "granite-embed-multi-97m", .pattern = {O200K}, IGNORE},
    {.names = "tiny_aya cohere2moe", .pattern = {BY_THREE, O200K}, NFC},
    {.names = "youtu", .pattern = {YOUTU, CASED "|\\p{N}" TAIL_O}, IGNORE},
    {.names = "tekken", .pattern = {TEKKEN}, IGNORE, BOS},
    {.names = "kimi-k2", .pattern = {KIMI}, IGNORE},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4", .pattern = {"\\p{N}{1,3}", CJK, DEEPSEEK3}},
    {.names = "spark2_5", .pattern = {"\\p{N}{1,3}", CJK, SPARK, "\\p{N}"}},
    {.names = "afmoe", .pattern = {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))", AFMOE_SCRIPTS, DEEPSEEK3}},
    {.names = "deepseek-llm", .pattern = {"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCT, "\\s+$", HAN_HANGUL, "\\p{N}"}},
    {.names = "deepseek-coder", .pattern = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN_HANGUL, "\\p{N}"}},
    {.names = "command-r", .pattern = {"\\p{N}", GPT2}, NFC},
    {.names = "starcoder refact smollm codeshell exaone minerva-7b granite mellum2", .pattern = {"\\p{N}", GPT2}},
    {.names = "bailingmoe bailingmoe2 llada-moe", .pattern = {BAILING}},
    {.names = "seed-coder", .pattern = {SEED}},
    {.names = "exaone-moe", .pattern = {EXAONE_MOE}},
    {.names = "superbpe", .pattern = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {.names = "falcon", .pattern = {FALCON_PUNCT, GPT2, "[0-9][0-9][0-9]"}},
    {.names = "default", .pattern = {DEFAULT_PUNCT, GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "chameleon",
     .pattern = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
                 "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     BOS},
    {.names = "poro-chat bloom gpt3-finnish", .pattern = {POEM}},
    {.names = "viking", .pattern = {POEM, "\\p{N}"}},
    {.names = "gemma4 granite-embed-multi-311m", .pattern = {0}, .words = FA_GGUF_SIGNS, BOS},
    {.names = "sarvam-moe", .pattern = {0}, .words = FA_GGUF_SIGNS},
    {.names = "whitespace", .pattern = {0}, .words = FA_GGUF_PLAIN},
};

static bool listed(const char *names, const char *name, size_t n) {
    for (const char *p = names; *p;) {
        size_t k = strcspn(p, " ");
        if (k == n && memcmp(p, name, n) == 0) return true;
        p += k + (p[k] == ' ');
    }
    return false;
}

const fa_gguf_pre *fa_gguf_find_pre(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (listed(rows[i].names, name, n)) return &rows[i];
    return NULL;
}
