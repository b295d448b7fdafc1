/* The options of a sampler: names and default order, the parser of an order, ranges. */
#include "engine/sample_int.h"

#include <stdio.h>
#include <string.h>

/* In the default order: what reshapes by history, then what transformers does in its order (temperature before the
 * cuts), xtc last because it is meant to see what the other cuts left. */
static const char *const names[FA_SAMPLE_KINDS] = {
    [FA_SAMPLE_PENALTIES] = "penalties", [FA_SAMPLE_DRY] = "dry",     [FA_SAMPLE_TOP_N_SIGMA] = "top_n_sigma",
    [FA_SAMPLE_TEMP] = "temp",           [FA_SAMPLE_TOP_H] = "top_h", [FA_SAMPLE_TOP_K] = "top_k",
    [FA_SAMPLE_TOP_P] = "top_p",         [FA_SAMPLE_MIN_P] = "min_p", [FA_SAMPLE_TYPICAL] = "typical",
    [FA_SAMPLE_EPSILON] = "epsilon",     [FA_SAMPLE_ETA] = "eta",     [FA_SAMPLE_XTC] = "xtc"};

const char *ffai_sampler_at(size_t i) { return i < FA_SAMPLE_KINDS ? names[i] : NULL; }

/* ---- the order ---- */

static int unknown_name(const char *name, size_t n, fa_error *err) {
    char list[200] = "";
    for (size_t i = 0, at = 0; i < FA_SAMPLE_KINDS; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i]);
    return fa_fail(err, FFAI_EINVAL, "samplers: \"%.*s\" is none of %s", n < 40 ? (int)n : 40, name, list);
}

/* A name as written in `names`, with "-" for "_" too, or llama.cpp's longer one. */
static int find_name(const char *text, size_t n) {
    static const struct {
        const char *name;
        int kind;
    } others[] = {{"temperature", FA_SAMPLE_TEMP},       {"typical_p", FA_SAMPLE_TYPICAL},
                  {"typ_p", FA_SAMPLE_TYPICAL},          {"top_sigma", FA_SAMPLE_TOP_N_SIGMA},
                  {"epsilon_cutoff", FA_SAMPLE_EPSILON}, {"eta_cutoff", FA_SAMPLE_ETA}};
    char name[32];
    if (n >= sizeof name) return -1;
    for (size_t i = 0; i < n; i++) name[i] = text[i] == '-' ? '_' : text[i];
    name[n] = 0;
    for (int i = 0; i < FA_SAMPLE_KINDS; i++)
        if (!strcmp(name, names[i])) return i;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (!strcmp(name, others[i].name)) return others[i].kind;
    return -1;
}

int fa_sampler_order(const char *text, uint8_t *order, int *n, fa_error *err) {
    *n = 0;
    if (!text) {
        for (int i = 0; i < FA_SAMPLE_KINDS; i++) order[i] = (uint8_t)i;
        *n = FA_SAMPLE_KINDS;
        return 0;
    }
    unsigned used = 0;
    text += strspn(text, " ");
    while (*text) {
        size_t len = strcspn(text, ",;"), bare = len;
        while (bare && text[bare - 1] == ' ') bare--;
        int kind = find_name(text, bare);
        if (kind < 0) return unknown_name(text, bare, err);
        if (used & 1u << kind) return fa_fail(err, FFAI_EINVAL, "samplers: \"%s\" is named twice", names[kind]);
        used |= 1u << kind;
        order[(*n)++] = (uint8_t)kind;
        if (!text[len]) break;
        text += len + 1;
        text += strspn(text, " ");
        if (!*text) return unknown_name(text, 0, err); /* a comma at the end */
    }
    return 0;
}

/* ---- ranges ---- */

static int range(const char *name, float v, double lo, double hi, fa_error *err) {
    if ((double)v >= lo && (double)v <= hi) return 0;
    return fa_fail(err, FFAI_EINVAL, "%s: %g is not between %g and %g", name, (double)v, lo, hi);
}

static int least_zero(const char *name, int v, fa_error *err) {
    return v >= 0 ? 0 : fa_fail(err, FFAI_EINVAL, "%s: %d is negative", name, v);
}

static int check_id(const char *name, int32_t id, int64_t vocab, fa_error *err) {
    if (id >= 0 && id < vocab) return 0;
    return fa_fail(err, FFAI_EINVAL, "%s: token %d is not between 0 and %lld", name, (int)id, (long long)vocab - 1);
}

static int check_ids(const ffai_sampling *s, int64_t vocab, fa_error *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < s->n_bias; i++) {
        rc = check_id("logit-bias", s->bias[i].id, vocab, err);
        if (!rc && isnan(s->bias[i].bias))
            rc = fa_fail(err, FFAI_EINVAL, "logit-bias: the bias of token %d is not a number", (int)s->bias[i].id);
    }
    for (size_t i = 0; !rc && i < s->n_begin_suppress; i++)
        rc = check_id("begin-suppress", s->begin_suppress[i], vocab, err);
    for (size_t i = 0; !rc && i < s->n_bad_word; i++) {
        if (!s->bad_words[i].n) rc = fa_fail(err, FFAI_EINVAL, "bad-words: an empty sequence");
        for (size_t j = 0; !rc && j < s->bad_words[i].n; j++)
            rc = check_id("bad-words", s->bad_words[i].ids[j], vocab, err);
    }
    return rc;
}

int fa_sampling_check(const ffai_sampling *s, int64_t vocab, fa_error *err) {
    const struct {
        const char *name;
        float v;
        double lo, hi;
    } nums[] = {{"temp", s->temp, 0, 1000},
                {"dynatemp-range", s->temp_range, 0, 1000},
                {"dynatemp-exp", s->temp_exponent, 0, 1000},
                {"top-p", s->top_p, 0, 1},
                {"min-p", s->min_p, 0, 1},
                {"typical", s->typical, 0, 1},
                {"top-n-sigma", s->top_n_sigma, 0, 1e6},
                {"xtc-prob", s->xtc_prob, 0, 1},
                {"xtc-threshold", s->xtc_threshold, 0, 1},
                {"repeat-penalty", s->repeat_penalty, 0, 1000},
                {"presence-penalty", s->presence_penalty, -1000, 1000},
                {"frequency-penalty", s->frequency_penalty, -1000, 1000},
                {"dry-multiplier", s->dry_multiplier, 0, 1000},
                {"mirostat-tau", s->mirostat_tau, 0, 1000},
                {"mirostat-eta", s->mirostat_eta, 0, 1000},
                {"top-h", s->top_h, 0, 1},
                {"epsilon-cutoff", s->epsilon_cutoff, 0, 1},
                {"eta-cutoff", s->eta_cutoff, 0, 1}};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof nums / sizeof nums[0]; i++)
        rc = range(nums[i].name, nums[i].v, nums[i].lo, nums[i].hi, err);
    if (!rc && s->dry_base != 0) rc = range("dry-base", s->dry_base, 1, 1000, err);
    if (!rc) rc = least_zero("top-k", s->top_k, err);
    if (!rc) rc = least_zero("repeat-last", s->repeat_last, err);
    if (!rc) rc = least_zero("dry-allowed-length", s->dry_allowed_length, err);
    if (!rc) rc = least_zero("dry-last", s->dry_last, err);
    if (!rc) rc = least_zero("no-repeat-ngram", s->no_repeat_ngram, err);
    if (!rc) rc = least_zero("min-new", s->min_new, err);
    if (!rc) rc = least_zero("min-length", s->min_length, err);
    return rc ? rc : check_ids(s, vocab, err);
}
