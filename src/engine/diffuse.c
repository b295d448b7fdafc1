/* Block diffusion and self-speculation: two ways of making several tokens with one pass of a model that was trained to
 * fill in masks. docs/diffusion.md has the algorithms and where they come from.
 *
 * A block is fed with every row seeing all of it and everything before it; its keys are of no further use, so the cache
 * is cut back after each such pass. The request is in one of three states:
 *
 *     PLAIN   it feeds what is not in the cache yet, causally, as any request; of the last row comes the next token
 *     FILL    it feeds a block that begins with that token and has masks behind it
 *     VERIFY  (self-speculation) it feeds the filled block causally, and compares
 *
 * Block diffusion: PLAIN, FILL until no mask is left; then the whole block becomes text and PLAIN feeds it.
 * Self-speculation: the token of PLAIN is text at once; FILL once, VERIFY; rows that were right stay in the cache. */
#include "engine/diffuse.h"
#include "base/alloc.h"

#include <math.h>
#include <string.h>

typedef enum phase { PLAIN, FILL, VERIFY } phase;

/* Which candidates of a pass are kept. */
typedef enum rule { NATIVE, FIXED, PREFIX, BOUND, CUMULATIVE, EVEN, RULES } rule;

static const char *const rule_names[RULES] = {
    "native", "fixed", "confidence_threshold_ref", "confidence_threshold_bound", "cumulative_error", "even"};

struct fa_diffuse {
    phase phase;
    bool speculates;
    int block;              /* most tokens of a block */
    float use[FA_ADAPTERS]; /* scales of adapters of FILL */
    int steps, n_transfer, max_transfer;
    rule rule;
    float least, bound, factor; /* confidence, min_confidence, factor */
    int window;                 /* tokens of the next draft */
    /* the block: token 0 is known */
    int32_t tok[FA_BLOCK_MAX];
    bool masked[FA_BLOCK_MAX];
    int n, n_masked, step, n_step;
};

/* A candidate for a masked position, by falling probability. */
typedef struct candidate {
    float prob;
    int at;
    int32_t id;
} candidate;

/* ---- options ---- */

const char *ffai_diffusion_sampler_at(size_t i) { return i < RULES ? rule_names[i] : NULL; }

static int read_block(fa_diffuse *d, const ffai_diffusion *o, const ffai_engine *e, fa_error *err) {
    int most = d->speculates ? FA_DRAFT_MAX : FA_BLOCK_MAX, own = e->m->dims.block;
    if (o->block < 0 || o->block > FA_BLOCK_MAX)
        return fa_fail(err, FFAI_EINVAL, "diffusion: a block of %d tokens, between 1 and %d are possible", o->block,
                       FA_BLOCK_MAX);
    d->block = o->block ? o->block : own < most ? own : most;
    if (d->block > e->n_chunk)
        return fa_fail(err, FFAI_ELIMIT, "diffusion: a block of %d tokens does not fit a step of %d (n_chunk)",
                       d->block, e->n_chunk);
    d->window = d->block < 8 ? d->block : 8;
    return 0;
}

static int number(float given, float otherwise, float most, const char *what, float *out, fa_error *err) {
    if (!(given >= 0 && given <= most))
        return fa_fail(err, FFAI_EINVAL, "diffusion: %s is %g, not between 0 and %g", what, (double)given,
                       (double)most);
    *out = given > 0 ? given : otherwise;
    return 0;
}

static int read_rule(fa_diffuse *d, const ffai_diffusion *o, fa_error *err) {
    d->rule = NATIVE;
    while (o->sampler && d->rule < RULES && strcmp(o->sampler, rule_names[d->rule])) d->rule++;
    if (d->rule == RULES)
        return fa_fail(err, FFAI_EINVAL, "diffusion: the sampler \"%s\" is none of native, fixed, %s, %s, %s, even",
                       o->sampler, rule_names[PREFIX], rule_names[BOUND], rule_names[CUMULATIVE]);
    if (o->steps < 0 || o->n_transfer < 0 || o->max_transfer < 0)
        return fa_fail(err, FFAI_EINVAL, "diffusion: %d steps, n_transfer %d, max_transfer %d: none may be negative",
                       o->steps, o->n_transfer, o->max_transfer);
    d->steps = o->steps ? o->steps : 32;
    d->n_transfer = o->n_transfer ? o->n_transfer : 1;
    d->max_transfer = o->max_transfer ? o->max_transfer : FA_BLOCK_MAX;
    int rc = number(o->confidence, 0.9f, 1, "confidence", &d->least, err);
    if (!rc) rc = number(o->min_confidence, 0.45f, 1, "min_confidence", &d->bound, err);
    if (!rc) rc = number(o->factor, d->rule == BOUND ? 2 : 1, 1e6f, "factor", &d->factor, err);
    return rc;
}

/* Blocks are not filled from left to right. */
static int check_order(const ffai_request *r, fa_error *err) {
    const char *what = r->grammar ? "a grammar" : r->mask ? "a token mask" : fa_sampler_order_bound(r->sampler);
    return what
               ? fa_fail(err, FFAI_ENOTSUP, "diffusion: blocks are not filled from left to right, as %s needs it", what)
               : 0;
}

static int read_draft(ffai_request *r, const ffai_diffusion *o, fa_error *err) {
    fa_diffuse *d = r->diffuse;
    int rc = fa_adapters_scales(r->e, o->draft, d->speculates ? o->n_draft : 0, d->use, err);
    for (int k = 0; k < FA_ADAPTERS; k++) d->use[k] += r->use[k];
    return rc;
}

int fa_diffuse_new(ffai_request *r, const ffai_request_opts *ro, fa_error *err) {
    const ffai_diffusion *o = ro->diffusion;
    const ffai_engine *e = r->e;
    if (!o || o->mode == FFAI_DIFFUSION_OFF) return 0;
    if (o->mode != FFAI_DIFFUSION_BLOCK && o->mode != FFAI_DIFFUSION_SELF_SPEC)
        return fa_fail(err, FFAI_EINVAL, "diffusion: there is no mode %d", (int)o->mode);
    if (!e->m->dims.block)
        return fa_fail(err, FFAI_ENOTSUP, "diffusion: %s models only go from left to right", e->m->family->name);
    if (e->kv->states || e->kept_len)
        return fa_fail(err, FFAI_ENOTSUP,
                       "diffusion: not with rotations that depend on the length, or recurrent layers");
    fa_diffuse *d = r->diffuse = FA_NEW(fa_diffuse);
    if (!d) return fa_fail(err, FFAI_ENOMEM, "no memory for a block");
    d->speculates = o->mode == FFAI_DIFFUSION_SELF_SPEC;
    r->device_picks = false;
    int rc = read_block(d, o, e, err);
    if (!rc && !d->speculates) rc = check_order(r, err);
    if (!rc && !d->speculates) rc = read_rule(d, o, err);
    if (!rc) rc = read_draft(r, o, err);
    return rc;
}

void fa_diffuse_free(fa_diffuse *d) { fa_free(d); }

bool fa_diffuse_uses(const ffai_request *r, int adapter) { return r->diffuse && r->diffuse->use[adapter] != 0; }

/* ---- feeding ---- */

bool fa_diffuse_fed(const ffai_request *r, fa_seq_rows *s) {
    const fa_diffuse *d = r->diffuse;
    if (!d || d->phase == PLAIN) return false;
    const bool fill = d->phase == FILL;
    *s = (fa_seq_rows){.slot = r->slot,
                       .ids = d->tok,
                       .n = d->n,
                       .n_out = fill ? d->n - 1 : d->n,
                       .use = fill ? d->use : r->use,
                       .whole = fill};
    return true;
}

/* A block of n tokens, at least 2, that begins with `first`. */
static void begin_block(ffai_request *r, int32_t first, int n) {
    fa_diffuse *d = r->diffuse;
    d->phase = FILL;
    d->n = n;
    d->n_masked = n - 1;
    d->step = 0;
    d->n_step = d->steps < n ? d->steps : n;
    for (int i = 0; i < n; i++) {
        d->tok[i] = i ? r->e->m->dims.mask_token : first;
        d->masked[i] = i > 0;
    }
}

static int room(const ffai_request *r, int most) {
    int64_t left = r->max_new - (r->n - r->n_prompt);
    return left < most ? (int)left : most;
}

/* What a pass appended to the cache behind n_fed goes. */
static bool cut_back(ffai_request *r) {
    fa_error err = {0};
    if (!fa_kv_truncate(r->e->kv, r->slot, (int32_t)r->n_fed, &err)) return true;
    fa_request_fail(r, &err);
    return false;
}

/* ---- block diffusion ---- */

/* How many of the n best candidates are kept: they are a prefix, for every rule asks less of better ones, or stops at
 * the first that fails. The best one always is. */
static int kept(const fa_diffuse *d, const candidate *c, int n) {
    const int most = d->rule == FIXED && d->n_transfer < d->max_transfer ? d->n_transfer : d->max_transfer;
    double sum = 0;
    int k = 0, left = d->n_step - d->step;
    if (d->rule == EVEN) k = (n + left - 1) / left;
    for (; d->rule != EVEN && k < n; k++) {
        const float p = c[k].prob, rank = k ? 1 - d->factor / (float)(k + 2) : -INFINITY;
        sum += log(p > 1e-12f ? (double)p : 1e-12);
        if (d->rule == PREFIX       ? p < d->least || p < rank
            : d->rule == BOUND      ? p < d->least && (p < d->bound || p < rank)
            : d->rule == CUMULATIVE ? sum < log((double)d->least)
                                    : p < d->least)
            break;
    }
    k = k > most ? most : k;
    return k < 1 ? 1 : k > n ? n : k;
}

static void commit(ffai_request *r) {
    fa_diffuse *d = r->diffuse;
    r->e->stats.blocks++;
    r->e->stats.block_proposed += d->n - 1;
    d->phase = PLAIN;
    for (int i = 0; i < d->n && r->finish == FFAI_RUNNING; i++) {
        r->e->stats.block_accepted += i > 0;
        fa_request_accept(r, d->tok[i]);
    }
}

/* rows [n - 1, vocab]: of the positions behind the first. */
static void fill(ffai_request *r, float *rows) {
    fa_diffuse *d = r->diffuse;
    const int64_t vocab = r->e->m->dims.vocab;
    candidate c[FA_BLOCK_MAX];
    int n = 0;
    for (int i = 1; i < d->n; i++) {
        candidate x = {.at = i};
        if (!d->masked[i]) continue;
        x.id = fa_request_candidate(r, i, d->step, rows + (i - 1) * vocab, &x.prob, r->e->sample_work);
        if (x.id < 0) {
            fa_request_accept(r, x.id); /* says why, and ends it */
            return;
        }
        int k = n++;
        for (; k > 0 && x.prob > c[k - 1].prob; k--) c[k] = c[k - 1];
        c[k] = x;
    }
    int take = d->step + 1 >= d->n_step ? n : kept(d, c, n);
    for (int k = 0; k < take; k++) {
        d->tok[c[k].at] = c[k].id;
        d->masked[c[k].at] = false;
    }
    d->n_masked -= take;
    d->step++;
    r->e->stats.block_passes++;
    if (!d->n_masked) commit(r);
}

/* ---- self-speculation ---- */

static void begin_draft(ffai_request *r) {
    int n = room(r, r->diffuse->window);
    r->diffuse->phase = PLAIN;
    if (r->finish == FFAI_RUNNING && n > 1) begin_block(r, r->ids[r->n - 1], n);
}

/* The likeliest token for each mask: what is drawn does not depend on drafts, and this is the best guess. */
static void draft(ffai_request *r, const float *rows) {
    fa_diffuse *d = r->diffuse;
    const int64_t vocab = r->e->m->dims.vocab;
    for (int i = 1; i < d->n; i++, rows += vocab) {
        int32_t best = 0;
        for (int32_t v = 1; v < vocab; v++)
            if (rows[v] > rows[best]) best = v;
        d->tok[i] = best;
    }
    d->phase = VERIFY;
    r->e->stats.block_passes++;
}

/* One token of the row of the last one that is text. False: the request has ended. */
static bool next(ffai_request *r, float *row) {
    const uint32_t *allowed;
    if (fa_request_allowed(r, &allowed)) fa_request_accept(r, fa_request_next(r, row, allowed, r->e->sample_work));
    return r->finish == FFAI_RUNNING;
}

/* rows [n, vocab]. Each row gives the token behind its own, as one step each would; where that is not the draft's, the
 * rows behind saw something else. */
static void verify(ffai_request *r, float *rows) {
    fa_diffuse *d = r->diffuse;
    int n = 0;
    r->e->stats.blocks++;
    r->e->stats.block_proposed += d->n - 1;
    for (bool right = true; right && n < d->n; n++) {
        r->n_fed++;
        right = next(r, rows + n * r->e->m->dims.vocab);
        right = right && n + 1 < d->n && r->ids[r->n - 1] == d->tok[n + 1];
        r->e->stats.block_accepted += right;
    }
    if (r->finish != FFAI_RUNNING || !cut_back(r)) return;
    if (n == d->n)
        d->window = 2 * d->window < d->block ? 2 * d->window : d->block;
    else if (n <= (d->n / 2 > 1 ? d->n / 2 : 1) && d->window > 8)
        d->window = d->window / 2 > 8 ? d->window / 2 : 8;
    begin_draft(r);
}

/* ---- reading ---- */

static void read_plain(ffai_request *r, float *row, int fed) {
    const uint32_t *allowed;
    r->n_fed += fed;
    if (r->diffuse->speculates) {
        if (next(r, row)) begin_draft(r);
        return;
    }
    if (!fa_request_allowed(r, &allowed)) return;
    int32_t id = fa_request_next(r, row, allowed, r->e->sample_work);
    int n = room(r, r->diffuse->block);
    if (id < 0 || n < 2 || (!r->ignore_eos && fa_model_is_eos(r->e->m, id)))
        fa_request_accept(r, id); /* nothing behind it would become text */
    else
        begin_block(r, id, n);
}

void fa_diffuse_read(ffai_request *r, float *rows, int fed) {
    fa_diffuse *d = r->diffuse;
    if (d->phase == PLAIN)
        read_plain(r, rows, fed);
    else if (d->phase == VERIFY)
        verify(r, rows);
    else if (cut_back(r) && d->speculates)
        draft(r, rows);
    else if (r->finish == FFAI_RUNNING)
        fill(r, rows);
}
