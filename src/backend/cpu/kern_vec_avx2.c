/* Row operations, and the vector group's init, for avx2. */
#include "backend/cpu/kern_simd_avx2.h"
#include "backend/cpu/kern_body_vec.h"
#include "backend/cpu/kern_sample.h"
#include "backend/cpu/kern_scan.h"

void fa_kern_vec_init_avx2(fa_kernels *k) {
    vec_init(k);
    fa_attend_init_avx2(k);
    fa_scan_init_avx2(k);
    fa_sample_init_avx2(k);
}
