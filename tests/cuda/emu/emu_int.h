/* What the emulator's two halves share: running kernels (emu.cpp) and the runtime API (emu_rt.cpp). */
#ifndef FA_CUDA_EMU_INT_H
#define FA_CUDA_EMU_INT_H

#include "emu.h"

enum { EMU_SMEM_MAX = 227 << 10 };

/* Runs all blocks; seed 0: in order. */
void emu_run(const char *name, dim3 grid, dim3 block, size_t smem, const std::function<void()> &body, unsigned seed);

#endif
