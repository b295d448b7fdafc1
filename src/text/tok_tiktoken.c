/* Loads tiktoken rank files: lines of a token in base64 and its rank. Such a file has neither the pattern that cuts
 * words nor the special tokens; both come from the family, which config.json, the name of the file or the number of
 * tokens tells. */
#include "text/tok_files.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

/* ---- patterns ---- */

#define TAIL      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SHORTENED "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define GPT2      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CL100K    SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN      SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL
#define UPPER     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define FRONT     "[^\\r\\n\\p{L}\\p{N}]?"
#define O200K                                                                                                          \
    FRONT UPPER "*" LOWER "+" SHORTENED "?|" FRONT UPPER "+" LOWER "*" SHORTENED                                       \
                "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* Han characters are words of their own: letters that are not Han, by a look-ahead in front of each. */
#define NOT_HAN_UPPER "(?:(?!\\p{Han})" UPPER ")"
#define NOT_HAN_LOWER "(?:(?!\\p{Han})" LOWER ")"
#define KIMI                                                                                                           \
    "[\\p{Han}]+|" FRONT NOT_HAN_UPPER "*" NOT_HAN_LOWER "+" SHORTENED "?|" FRONT NOT_HAN_UPPER "+" NOT_HAN_LOWER      \
    "*" SHORTENED "?|\\p{N}{1,3}" TAIL

/* ---- families ---- */

/* Languages of Whisper in the order of their tokens; models of before 2023 lack the last. */
#define LANGUAGES                                                                                                      \
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi "  \
    "ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd "  \
    "gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
enum { N_LANGUAGE = 100, N_TIME = 1501, N_WHISPER_REST = 8 };

/* Special tokens, in order, behind the ranks: names between blanks. "@7" goes on at id 7; "a#z:4:3" is a4z, a5z, a6z;
 * "%lang" and "%time" are Whisper's. */
static const struct family {
    const char *types; /* model_type of config.json, between blanks */
    const char *files; /* or beginnings of file names */
    size_t n_rank;     /* or the number of ranks; 0: any */
    const char *pattern;
    const char *special;
    const char *bos, *eos;
    bool nfc, add_bos;
} families[] = {
    {"whisper", "multilingual.tiktoken gpt2.tiktoken", 0, GPT2,
     "<|endoftext|> <|startoftranscript|> %lang <|translate|> <|transcribe|> <|startoflm|> <|startofprev|> "
     "<|nospeech|> <|notimestamps|> %time",
     "<|endoftext|>", "<|endoftext|>", false, false},
    {"qwen", "qwen", 151643, QWEN, "<|endoftext|> <|im_start|> <|im_end|> <|extra_#|>:0:205", NULL, "<|endoftext|>",
     true, false},
    {"gpt_oss", "o200k_harmony", 0, O200K,
     "@199998 <|startoftext|> <|endoftext|> <|reserved_#|>:200000:2 <|return|> <|constrain|> <|reserved_#|>:200004:1 "
     "<|channel|> <|start|> <|end|> <|message|> <|reserved_#|>:200009:3 <|call|> <|reserved_#|>:200013:1075",
     "<|startoftext|>", "<|return|>", false, false},
    {"llama mllama", "llama3", 128000, CL100K,
     "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_#|>:0:4 <|start_header_id|> <|end_header_id|> "
     "<|reserved_special_token_#|>:4:1 <|eot_id|> <|reserved_special_token_#|>:5:246",
     "<|begin_of_text|>", "<|end_of_text|>", false, true},
    {"", "o200k", 199998, O200K, "@199999 <|endoftext|> @200018 <|endofprompt|>", NULL, "<|endoftext|>", false, false},
    {"", "cl100k", 100256, CL100K,
     "@100257 <|endoftext|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> @100276 <|endofprompt|>", NULL,
     "<|endoftext|>", false, false},
    {"", "p50k", 50280, GPT2, "@50256 <|endoftext|>", NULL, "<|endoftext|>", false, false},
    {"gpt2", "r50k", 50256, GPT2, "@50256 <|endoftext|>", NULL, "<|endoftext|>", false, false},
    {"kimi_k2 kimi_linear kimi_vl", "kimi", 163584, KIMI, "", NULL, NULL, false, false},
    {"chatglm glm4", "glm", 151329, CL100K,
     "<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|> "
     "<|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>",
     NULL, "<|endoftext|>", false, false},
    {"", "", 0, CL100K, "", NULL, NULL, false, false},
};
/* Llama 3.1 and later name some of the reserved tokens. */
static const char llama31[] =
    "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_#|>:0:2 <|finetune_right_pad_id|> "
    "<|reserved_special_token_#|>:2:1 <|start_header_id|> <|end_header_id|> <|eom_id|> <|eot_id|> <|python_tag|> "
    "<|reserved_special_token_#|>:3:245";

/* One of the words of `list` is s, or (begins) s begins with it. */
static bool listed(const char *list, const char *s, bool begins) {
    for (const char *p = list; s && *p;) {
        size_t k = strcspn(p, " ");
        if (k && strncmp(p, s, k) == 0 && (begins || !s[k])) return true;
        p += k + (p[k] == ' ');
    }
    return false;
}

static const struct family *find_family(const fa_tok_about *about, size_t n_rank) {
    enum { N = sizeof families / sizeof *families };
    const char *type = about ? fa_jstr(fa_jget(about->model, "model_type"), NULL) : NULL;
    for (size_t i = 0; i < N; i++)
        if (listed(families[i].types, type, false)) return &families[i];
    for (size_t i = 0; i < N; i++)
        if (listed(families[i].files, about ? about->file : NULL, true)) return &families[i];
    for (size_t i = 0; i < N; i++)
        if (families[i].n_rank == n_rank) return &families[i];
    return &families[N - 1];
}

/* ---- special tokens ---- */

typedef struct specials {
    fa_tok *t;
    int64_t id;
    size_t n_language;
    fa_error *err;
    size_t n; /* counting only: t is NULL */
} specials;

static int put(specials *p, const char *s, size_t n) {
    p->n++;
    return p->t ? fa_tok_put_special(p->t, s, n, p->id++, p->err) : FFAI_OK;
}

static int put_languages(specials *p) {
    int rc = FFAI_OK;
    const char *s = LANGUAGES;
    for (size_t i = 0; i < p->n_language && !rc; i++) {
        char name[16];
        int k = (int)strcspn(s, " "), n = snprintf(name, sizeof name, "<|%.*s|>", k, s);
        rc = put(p, name, (size_t)n);
        s += k + (s[k] == ' ');
    }
    return rc;
}

static int put_times(specials *p) {
    int rc = FFAI_OK;
    for (int i = 0; i < N_TIME && !rc; i++) {
        char name[16];
        int n = snprintf(name, sizeof name, "<|%d.%02d|>", i / 50, i % 50 * 2);
        rc = put(p, name, (size_t)n);
    }
    return rc;
}

/* "a#z:4:3" */
static int put_series(specials *p, const char *s, size_t n) {
    const char *mark = (const char *)memchr(s, '#', n), *colon = (const char *)memchr(s, ':', n);
    int from = 0, count = 0, rc = FFAI_OK;
    if (!mark || !colon || sscanf(colon, ":%d:%d", &from, &count) != 2) return put(p, s, n);
    for (int i = from; i < from + count && !rc; i++) {
        char name[64];
        int k = snprintf(name, sizeof name, "%.*s%d%.*s", (int)(mark - s), s, i, (int)(colon - mark - 1), mark + 1);
        rc = put(p, name, (size_t)k);
    }
    return rc;
}

static int put_all(specials *p, const char *list) {
    int rc = FFAI_OK;
    for (const char *s = list; *s && !rc;) {
        size_t n = strcspn(s, " ");
        long long at;
        if (*s == '@' && sscanf(s, "@%lld", &at) == 1)
            p->id = at;
        else if (n == 5 && memcmp(s, "%lang", 5) == 0)
            rc = put_languages(p);
        else if (n == 5 && memcmp(s, "%time", 5) == 0)
            rc = put_times(p);
        else
            rc = put_series(p, s, n);
        s += n + (s[n] == ' ');
    }
    return rc;
}

/* What is left of the embedding table when all else is taken, as transformers' Whisper files have it. */
static size_t count_languages(const fa_tok_about *about, size_t n_rank) {
    int64_t size = about ? fa_jint(fa_jget(about->model, "vocab_size"), -1) : -1;
    int64_t n = size - (int64_t)n_rank - N_TIME - N_WHISPER_REST;
    return n > 0 && n <= N_LANGUAGE ? (size_t)n : N_LANGUAGE - 1;
}

static bool is_llama31(const fa_tok_about *about) {
    if (!about) return false;
    for (const fa_jnode *e = fa_jfirst(fa_jget(about->model, "eos_token_id")); e; e = fa_jnext(e))
        if (fa_jint(e, -1) == 128008) return true;
    return false;
}

static int put_specials(fa_tok *t, const struct family *f, const fa_tok_about *about, fa_error *err) {
    const char *list = f->special;
    size_t n_rank = t->raw.n_id;
    bool own = about && fa_jlen(fa_jget(about->config, "added_tokens_decoder")) > 0;
    if (own) list = ""; /* the repository lists them */
    if (*list && listed(f->types, "llama", false) && is_llama31(about)) list = llama31;
    specials p = {NULL, (int64_t)n_rank, count_languages(about, n_rank), err, 0};
    put_all(&p, list);
    int rc = fa_tok_beside_added(t, about, p.n, err);
    p.t = t;
    return rc ? rc : put_all(&p, list);
}

/* ---- the file ---- */

/* A line "base64 rank": the two parts; false for anything else. */
static bool cut_line(const char *s, size_t n, size_t *n_token, uint64_t *rank) {
    size_t i = 0;
    while (i < n && s[i] != ' ' && s[i] != '\t') i++;
    *n_token = i;
    while (i < n && (s[i] == ' ' || s[i] == '\t')) i++;
    size_t digits = i;
    *rank = 0;
    for (; i < n && s[i] >= '0' && s[i] <= '9' && *rank < UINT32_MAX; i++) *rank = *rank * 10 + (uint64_t)(s[i] - '0');
    return *n_token && i > digits && i == n;
}

static size_t line_length(const char *s, const char *end, const char **next) {
    const char *stop = (const char *)memchr(s, '\n', (size_t)(end - s));
    *next = stop ? stop + 1 : end;
    if (!stop) stop = end;
    while (stop > s && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t')) stop--;
    return (size_t)(stop - s);
}

bool fa_tok_is_rank_file(const char *text, size_t len) {
    enum { MAX_LINE = 4096 };
    const char *next;
    size_t n, k = len < MAX_LINE ? len : MAX_LINE;
    uint64_t rank;
    if (!k) return false;
    n = line_length(text, text + k, &next);
    fa_buf b = {0};
    bool good = cut_line(text, n, &n, &rank) && fa_base64(text, n, &b);
    fa_buf_free(&b);
    return good;
}

static int read_lines(fa_tok *t, const char *text, size_t len, fa_buf *bytes, fa_buf *scratch, fa_error *err) {
    const char *end = text + len, *next;
    size_t line = 1, lines = 1;
    for (const char *s = text; (s = (const char *)memchr(s, '\n', (size_t)(end - s))); s++) lines++;
    for (const char *s = text; s < end; s = next, line++) {
        size_t n = line_length(s, end, &next), n_token;
        uint64_t rank;
        char where[40];
        if (!n) continue;
        snprintf(where, sizeof where, "line %zu", line);
        if (!cut_line(s, n, &n_token, &rank))
            return fa_fail(err, FFAI_EFORMAT, "%s: %s is not a token in base64 and a rank: \"%.*s\"", t->what, where,
                           (int)(n > 40 ? 40 : n), s);
        if (rank > (uint64_t)lines * 4 + FA_TOK_ID_SLACK)
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: rank %llu is too large for %zu lines", t->what, where,
                           (unsigned long long)rank, lines);
        bool nothing = n_token == 1 && *s == '='; /* whisper's multilingual file has such a line */
        if (nothing) bytes->len = 0;
        if (!nothing && !fa_base64(s, n_token, bytes) && !bytes->failed)
            return fa_fail(err, FFAI_EFORMAT, "%s: %s is not base64: \"%.*s\"", t->what, where,
                           (int)(n_token > 40 ? 40 : n_token), s);
        if (bytes->failed) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
        int rc = fa_tok_put_bytes(t, (uint32_t)rank, bytes, where, scratch, err);
        if (rc) return rc;
    }
    return t->raw.n_id ? FFAI_OK : fa_fail(err, FFAI_EFORMAT, "%s: the file has no tokens", t->what);
}

static int32_t named(const fa_tok *t, const char *s) { return s ? fa_tok_id(t, s, strlen(s)) : -1; }

static int load(fa_tok *t, const char *text, size_t len, const fa_tok_about *about, fa_error *err) {
    fa_buf bytes = {0}, scratch = {0};
    int rc = read_lines(t, text, len, &bytes, &scratch, err);
    fa_buf_free(&bytes);
    fa_buf_free(&scratch);
    if (!rc) rc = fa_tok_ranks_done(t, err);
    if (rc) return rc;
    size_t n_rank = 0;
    for (size_t i = 0; i < t->raw.n_id; i++) n_rank += t->raw.span[i].off != UINT32_MAX;
    const struct family *f = find_family(about, n_rank);
    if (f->nfc) rc = fa_tok_put_unicode(t, true, false, err);
    if (!rc) rc = fa_tok_put_words(t, f->pattern, strlen(f->pattern), err);
    if (!rc) rc = put_specials(t, f, about, err);
    if (rc) return rc;
    t->bos = named(t, f->bos);
    t->eos = named(t, f->eos);
    rc = fa_tok_beside_wrap(t, about, f->add_bos, false, err);
    return rc ? rc : fa_tok_finish(t, err);
}

int fa_tok_from_ranks(fa_tok **out, const char *text, size_t len, const fa_tok_about *about, const char *what,
                      fa_error *err) {
    fa_tok *t = fa_tok_alloc(what);
    int rc = t ? load(t, text, len, about, err) : fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", what);
    *out = rc ? NULL : t;
    if (rc) fa_tok_free(t);
    return rc;
}
