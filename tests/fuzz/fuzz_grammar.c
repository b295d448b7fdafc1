/* Any bytes as a grammar: the first chooses the notation, the second how the walk over allowed tokens goes; the rest is
 * the text. What compiles is walked: a token of the mask must be accepted, one that is not must be refused. */
#include "base/rng.h"
#include "text/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_WORD = 24, N = 128 + N_WORD, EOS = N, STEPS = 24 };

static fa_vocab *vocab(void) {
    static const char *const words[N_WORD] = {
        "\"",   "\"}",  "\",\"",    "{\"", "\":", "true", "null", "12", "ab", "the", " a",  "\n  ",
        "\xC3", "\xA9", "\xC3\xA9", "[[",  "]]",  "\\u",  "00",   "-1", ".5", "()",  "e+1", "aaaaaaaaaaaaaaaaaaaa"};
    static char bytes[128];
    static fa_vocab_token list[N + 1];
    const int32_t eos = EOS;
    fa_vocab *v;
    for (int i = 0; i < 128; i++) {
        bytes[i] = (char)i;
        list[i] = (fa_vocab_token){bytes + i, 1};
    }
    for (int i = 0; i < N_WORD; i++) list[128 + i] = (fa_vocab_token){words[i], strlen(words[i])};
    return fa_vocab_from_list(&v, list, N + 1, &eos, 1, NULL) ? NULL : v;
}

static void walk(fa_gram *g, uint64_t seed) {
    fa_gram_run *r;
    fa_rng rng = {.seed = seed};
    if (fa_gram_run_new(&r, g, NULL)) return;
    for (int step = 0; step < STEPS; step++) {
        const uint32_t *bits;
        size_t n, seen = 0;
        int pick = -1, not = -1;
        if (fa_gram_mask(r, &bits, &n, NULL)) break;
        if ((bits[EOS / 32] >> (EOS % 32) & 1) != fa_gram_complete(r)) abort();
        for (int i = 0; i < N; i++) {
            if (!(bits[i / 32] >> (i % 32) & 1))
                not = i;
            else if (fa_rng_next(&rng) % ++seen == 0)
                pick = i;
        }
        if (seen != n) abort();
        if (not >= 0 && fa_gram_accept(r, not, NULL) != FFAI_EINVAL) abort();
        if (pick < 0) break;
        fa_error err;
        if (fa_gram_accept(r, pick, &err)) {
            if (err.code == FFAI_ELIMIT) break;
            abort();
        }
    }
    fa_gram_run_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const kinds[] = {"gbnf", "json-schema", "regex"};
    static fa_vocab *v;
    fa_gram *g;
    fa_error err = {0};
    if (!v && !(v = vocab())) abort();
    if (size < 2) return 0;
    const char *kind = kinds[data[0] % 3];
    int rc = fa_gram_compile(&g, v, kind, (const char *)data + 2, size - 2, &err);
    if (rc) {
        if (g || err.code != rc || !err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    walk(g, data[1]);
    walk(g, data[1] + 1000u);
    fa_gram_free(g);
    return 0;
}
