/* Ranks of tokens that merge by score: the best score first, equal scores are equal. */
#include "text/tok_steps.h"
#include "base/alloc.h"

#include <string.h>

uint32_t fa_tok_score_key(float score) {
    uint32_t u;
    if (score == 0.0f) score = 0.0f; /* one zero */
    memcpy(&u, &score, 4);
    return ~(u & 0x80000000u ? ~u : u | 0x80000000u);
}

/* Least significant digit first, 11 bits at a time, by the upper half of each value. */
static void sort_by_key(uint64_t *v, uint64_t *tmp, size_t n) {
    for (int shift = 32; shift < 65; shift += 11) {
        size_t at[2049] = {0};
        for (size_t i = 0; i < n; i++) at[(v[i] >> shift & 2047) + 1]++;
        for (size_t i = 0; i < 2048; i++) at[i + 1] += at[i];
        for (size_t i = 0; i < n; i++) tmp[at[v[i] >> shift & 2047]++] = v[i];
        uint64_t *swap = v;
        v = tmp;
        tmp = swap;
    }
}

int fa_tok_put_ranks(fa_tok *t, uint64_t *v, size_t k, fa_error *err) {
    uint32_t rank = 0;
    t->bpe.id_rank = FA_NEWN(uint32_t, t->name.n_id + 1);
    if (!t->bpe.id_rank) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
    memset(t->bpe.id_rank, 0xFF, t->name.n_id * sizeof *t->bpe.id_rank);
    sort_by_key(v, v + k, k); /* three passes: the result is in the second half */
    const uint64_t *sorted = v + k;
    for (size_t i = 0; i < k; i++) {
        if (i && sorted[i] >> 32 != sorted[i - 1] >> 32) rank++;
        t->bpe.id_rank[(uint32_t)sorted[i]] = rank;
    }
    t->bpe.n_rank = rank + 1;
    return FFAI_OK;
}
