/* SentencePiece's unused pieces take part in merging and are taken apart again in the end: into the two parts that were
 * joined last, and so on. What was joined last is found by merging the piece by itself. */
#include "text/bpe_int.h"
#include "base/utf8.h"

#include <string.h>

enum { LONGEST = 256, DEEPEST = 100 }; /* bytes of a piece, parts of parts: beyond that it stays as it is */

typedef struct run {
    fa_enc *e;
    bool open; /* unknown characters wait for their token */
} run;

static void close_unknown(run *r) {
    if (r->open && r->e->t->bpe.unk >= 0 && fa_enc_room(r->e, 1)) r->e->ids[r->e->n++] = r->e->t->bpe.unk;
    r->open = false;
}

static void put_unknown(run *r, const char *s, size_t n) {
    const fa_bpe *m = &r->e->t->bpe;
    if (!m->byte_fallback || !m->all_bytes) {
        r->open = true;
        return;
    }
    if (!fa_enc_room(r->e, n)) return;
    for (size_t i = 0; i < n; i++) r->e->ids[r->e->n++] = m->byte_token[(unsigned char)s[i]];
}

static size_t char_len(const char *s, size_t n) {
    size_t k = fa_utf8_char_len(s);
    return k < n ? k : n;
}

/* Merges s[0..n) but not to the whole; returns where the second part begins, 0 when there is no second part. */
static size_t last_split(const fa_bpe *m, const char *s, size_t n) {
    uint16_t beg[LONGEST + 1];
    size_t k = 0;
    for (size_t i = 0; i < n; i += char_len(s + i, n - i)) beg[k++] = (uint16_t)i;
    beg[k] = (uint16_t)n;
    while (k > 2) {
        size_t best = 0;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < k; i++) {
            int32_t id;
            uint32_t r = fa_bpe_rank(m, -1, -1, s + beg[i], (size_t)(beg[i + 2] - beg[i]), &id);
            if (r < rank) rank = r, best = i;
        }
        if (rank == UINT32_MAX) break;
        memmove(beg + best + 1, beg + best + 2, (k - best - 1) * sizeof *beg);
        k--;
    }
    return k > 1 ? beg[1] : 0;
}

static void take_apart(run *r, const char *s, size_t n, int depth) {
    const fa_bpe *m = &r->e->t->bpe;
    int32_t id = fa_strtab_find(m->word, s, n);
    size_t at = 0;
    if (id >= 0 && m->id_rank[id] == UINT32_MAX) id = -1;
    if (id < 0 || (m->unused[id] && (n > LONGEST || depth > DEEPEST || !(at = last_split(m, s, n))))) {
        put_unknown(r, s, n);
    } else if (m->unused[id]) {
        take_apart(r, s, at, depth + 1);
        take_apart(r, s + at, n - at, depth + 1);
    } else {
        close_unknown(r);
        if (fa_enc_room(r->e, 1)) r->e->ids[r->e->n++] = id;
    }
}

bool fa_bpe_take_apart(fa_enc *e, const char *s, size_t n) {
    run r = {e, false};
    take_apart(&r, s, n, 0);
    return r.open;
}
