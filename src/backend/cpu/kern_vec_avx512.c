/* Row operations, and the vector group's init, for avx512. */
#include "backend/cpu/kern_simd_avx512.h"
#include "backend/cpu/kern_body_vec.h"
#include "backend/cpu/kern_sample.h"
#include "backend/cpu/kern_scan.h"

void fa_kern_vec_init_avx512(fa_kernels *k) {
    vec_init(k);
    fa_attend_init_avx512(k);
    fa_scan_init_avx512(k);
    fa_sample_init_avx512(k);
}
