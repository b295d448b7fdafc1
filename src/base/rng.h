/* Counter-based random numbers: splitmix64 (Steele, Lea, Flood 2014). Also the specified generator of test weights:
 * value i of a stream is fa_rng_at(seed, i), the same in tools/fixtures (Python) and here. */
#ifndef FA_BASE_RNG_H
#define FA_BASE_RNG_H

#include <stdint.h>

static inline uint64_t fa_rng_at(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

typedef struct fa_rng {
    uint64_t seed, i;
} fa_rng;

static inline uint64_t fa_rng_next(fa_rng *r) { return fa_rng_at(r->seed, r->i++); }
/* [0, 1), 24 bits: exact in float */
static inline float fa_rng_f32(fa_rng *r) { return (float)(fa_rng_next(r) >> 40) * 0x1p-24f; }

#endif
