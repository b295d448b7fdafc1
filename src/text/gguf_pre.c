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
    "\\s?[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"               \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}"     \
    "\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"         \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"                  \
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}"                  \
    "\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"          \
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"         \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"          \
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}"                    \
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"          \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"                   \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"                  \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}"            \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"
#define DEEPSEEK_PUNCT "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+"

#define POEM          " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"
#define DEFAULT_PUNCT "[\\p{P}\\$\\+<=>\\^~\\|]+"
#define FALCON_PUNCT  "[\\p{P}\\$\\+<=>\\^~\\|`]+"
#define YOUTU                                                                                                          \
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}"       \
    "\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" CJK
#define AFMOE_SCRIPTS                                                                                                  \
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}"                 \
    "\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}"   \
    "\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+"
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
