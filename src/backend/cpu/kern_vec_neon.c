/* Row operations, and the vector group's init, for neon. */
#include "backend/cpu/kern_simd_neon.h"
#include "backend/cpu/kern_body_vec.h"
#include "backend/cpu/kern_sample.h"
#include "backend/cpu/kern_scan.h"

void fa_kern_vec_init_neon(fa_kernels *k) {
    vec_init(k);
    fa_attend_init_neon(k);
    fa_scan_init_neon(k);
    fa_sample_init_neon(k);
}
