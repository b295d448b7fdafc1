/* Compiled grammars and the texts that are written under them. What the machine of a grammar has worked out is shared
 * by all runs (a lock guards it); when it has grown too large a new one is begun, and each run carries its state over.
 */
#include "text/grammar/machine.h"
#include "base/alloc.h"

#include <string.h>

enum { FLUSH_BYTES = 128 << 20 };

struct fa_gram {
    fa_gnet net;
    const fa_vocab *v;
    pthread_mutex_t lock;
    fa_gm *m;
};

struct fa_gram_run {
    fa_gram *g;
    fa_gm *m;
    uint32_t state;
    bool first; /* no token yet */
    bool complete, ended;
    uint32_t *bits;
};

static int nomem(fa_error *err) { return fa_fail(err, FFAI_ENOMEM, "grammar: no memory"); }

static void unref(fa_gm *m) {
    if (m && --m->refs == 0) fa_gm_free(m);
}

int fa_gram_compile(fa_gram **out, const fa_vocab *v, const char *kind, const char *text, size_t len, fa_error *err) {
    static const struct {
        const char *kind, *what;
        void (*read)(fa_gb *b);
    } kinds[] = {{"gbnf", "grammar", fa_gbnf_read},
                 {"json-schema", "schema", fa_schema_read},
                 {"regex", "regex", fa_regex_read}};
    size_t k = 0;
    *out = NULL;
    while (k < 3 && strcmp(kinds[k].kind, kind) != 0) k++;
    if (k == 3)
        return fa_fail(err, FFAI_EINVAL, "grammar: unknown kind \"%.40s\"; there are gbnf, json-schema and regex",
                       kind);
    if (len > 16 << 20) return fa_fail(err, FFAI_ELIMIT, "%s: %zu bytes, the limit is 16 MiB", kinds[k].what, len);
    fa_gram *g = FA_NEW(fa_gram);
    if (!g) return nomem(err);
    pthread_mutex_init(&g->lock, NULL);
    g->v = v;
    fa_gb b = {.text = text, .len = len, .what = kinds[k].what, .v = v, .err = err};
    kinds[k].read(&b);
    int rc = b.rc ? b.rc : fa_gnet_build(&g->net, &b);
    fa_gb_free(&b);
    if (!rc && !(g->m = fa_gm_new(&g->net, v))) rc = nomem(err);
    if (rc)
        fa_gram_free(g);
    else
        *out = g;
    return rc;
}

void fa_gram_free(fa_gram *g) {
    if (!g) return;
    unref(g->m);
    fa_gnet_free(&g->net);
    pthread_mutex_destroy(&g->lock);
    fa_free(g);
}

const fa_vocab *fa_gram_vocab(const fa_gram *g) { return g->v; }

static int report(const fa_gm *m, fa_error *err) { return fa_fail(err, m->rc, "grammar: %s", m->why); }

static void take_state(fa_gram_run *r, uint32_t state) {
    const fa_gmstate *s = &r->m->state[state];
    r->state = state;
    r->complete = (s->flags & FA_G_ACCEPT) != 0;
    r->ended = r->complete && !s->n;
}

/* Moves the run to the grammar's machine of today. */
static int carry(fa_gram_run *r, fa_error *err) {
    fa_gm *m = r->g->m;
    fa_gm_begin(m);
    uint32_t s = fa_gm_carry(m, r->m, r->state);
    if (m->rc) return report(m, err);
    m->refs++;
    unref(r->m);
    r->m = m;
    r->state = s;
    return 0;
}

static int renew(fa_gram_run *r, fa_error *err) {
    fa_gm *m = fa_gm_new(&r->g->net, r->g->v);
    if (!m) return nomem(err);
    unref(r->g->m);
    r->g->m = m;
    return carry(r, err);
}

/* Before each call, with the lock held. */
static int begin(fa_gram_run *r, fa_error *err) {
    int rc = 0;
    if (r->g->m == r->m && fa_gm_bytes(r->m) > FLUSH_BYTES)
        rc = renew(r, err);
    else if (r->g->m != r->m)
        rc = carry(r, err);
    fa_gm_begin(r->m);
    return rc;
}

int fa_gram_run_new(fa_gram_run **out, fa_gram *g, fa_error *err) {
    *out = NULL;
    fa_gram_run *r = FA_NEW(fa_gram_run);
    if (!r || !(r->bits = FA_NEWN(uint32_t, fa_mask_words(g->v->n_id) + 1))) {
        fa_free(r);
        return nomem(err);
    }
    r->g = g;
    r->first = true;
    pthread_mutex_lock(&g->lock);
    r->m = g->m;
    r->m->refs++;
    fa_gm_begin(r->m);
    uint32_t s = fa_gm_start(r->m);
    int rc = r->m->rc ? report(r->m, err) : 0;
    if (!rc) take_state(r, s);
    pthread_mutex_unlock(&g->lock);
    if (rc)
        fa_gram_run_free(r);
    else
        *out = r;
    return rc;
}

void fa_gram_run_free(fa_gram_run *r) {
    if (!r) return;
    pthread_mutex_lock(&r->g->lock);
    unref(r->m);
    pthread_mutex_unlock(&r->g->lock);
    fa_free(r->bits);
    fa_free(r);
}

int fa_gram_mask(fa_gram_run *r, const uint32_t **bits, size_t *n, fa_error *err) {
    pthread_mutex_lock(&r->g->lock);
    int rc = begin(r, err);
    const fa_gfull *f = rc ? NULL : fa_gm_mask(r->m, r->state, r->first);
    if (!rc && !f && r->m->rc == FFAI_ELIMIT && !(rc = renew(r, err))) { /* once more, in an empty machine */
        fa_gm_begin(r->m);
        f = fa_gm_mask(r->m, r->state, r->first);
    }
    if (!rc && !f) rc = report(r->m, err);
    if (!rc) {
        memcpy(r->bits, f->bits, fa_mask_words(r->g->v->n_id) * sizeof *r->bits);
        *n = f->n;
        *bits = r->bits;
    }
    pthread_mutex_unlock(&r->g->lock);
    return rc;
}

/* The state after a token, DEAD when it is not allowed: by its bytes, and by its name. */
static uint32_t after(fa_gram_run *r, int32_t id) {
    const fa_vocab *v = r->g->v;
    fa_gm *m = r->m;
    const char *s = v->pool + v->off[id];
    size_t n = v->off[id + 1] - v->off[id], i = r->first && v->eat_space && n && s[0] == ' ';
    uint32_t by_text = n > i ? r->state : FA_G_DEAD;
    bool named = false;
    for (; i < n && by_text; i++) by_text = fa_gm_delta(m, by_text, m->net->cls[(unsigned char)s[i]]);
    if (!fa_gm_expand(m, r->state)) return FA_G_DEAD;
    fa_gm_clear(m);
    for (uint32_t k = 0; k < m->state[r->state].n_scan; k++) {
        fa_gconf c = m->conf[m->state[r->state].scan + k];
        for (uint32_t j = m->net->edge_of[c.q]; j < m->net->edge_of[c.q + 1]; j++) {
            const fa_gedge *e = &m->net->edge[j];
            if (!(e->kind == FA_GE_TOKEN && e->arg == (uint32_t)id) &&
                !(e->kind == FA_GE_NOT_TOKEN && e->arg != (uint32_t)id && n))
                continue;
            named = true;
            fa_gm_push(m, e->to, c.node);
        }
    }
    if (!named) return by_text;
    for (uint32_t k = 0; k < m->state[by_text].n; k++) {
        fa_gconf c = m->conf[m->state[by_text].off + k];
        fa_gm_push(m, c.q, c.node);
    }
    if (m->state[by_text].flags & FA_G_ACCEPT) fa_gm_push(m, m->net->rule[m->net->root].end, FA_G_BOTTOM);
    return fa_gm_settle(m);
}

int fa_gram_accept(fa_gram_run *r, int32_t id, fa_error *err) {
    const fa_vocab *v = r->g->v;
    if (id < 0 || (size_t)id >= v->n_id)
        return fa_fail(err, FFAI_EINVAL, "grammar: token %d is not in the vocabulary", (int)id);
    pthread_mutex_lock(&r->g->lock);
    int rc = begin(r, err);
    if (!rc) {
        uint32_t s = after(r, id);
        if (r->m->rc)
            rc = report(r->m, err);
        else if (s == FA_G_DEAD)
            rc = fa_fail(err, FFAI_EINVAL, "grammar: token %d is not allowed here", (int)id);
        else
            take_state(r, s);
        if (!rc) r->first = false;
    }
    pthread_mutex_unlock(&r->g->lock);
    return rc;
}

bool fa_gram_complete(const fa_gram_run *r) { return r->complete; }
bool fa_gram_ended(const fa_gram_run *r) { return r->ended; }
