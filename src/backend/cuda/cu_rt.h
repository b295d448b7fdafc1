/* The CUDA runtime as the kernels see it: NVIDIA's, or (FA_CUDA_EMU) the test suite's emulation of it on the host, in
 * which the same sources run without a GPU. Differences stay in this file and in cu_ptx.h. */
#ifndef FA_CUDA_RT_H
#define FA_CUDA_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef FA_CUDA_EMU
#include "emu.h"
#define CU_COLD static __attribute__((noinline)) /* a device function that is called, not inlined */
/* The block's dynamic shared memory. */
#define CU_DYN_SMEM(name) uint8_t *name = (uint8_t *)emu_dyn_smem()
#define CU_TRAP()         emu_fault() /* the device is lost */
#else
#include <cuda.h> /* types only: nothing links to the driver */
#include <cuda_runtime.h>
#define CU_COLD           static __device__ __noinline__
#define CU_DYN_SMEM(name) extern __shared__ __align__(128) uint8_t name[]
#define CU_TRAP()         __trap()
#endif

#endif
