/* The amx level's kernels on a machine without the tiles. */
#ifndef FA_TEST_AMX_EMULATED_H
#define FA_TEST_AMX_EMULATED_H

#include "backend/cpu/kern.h"

/* The amx level with emulated tiles, over avx512vnni; false where the machine lacks that. For one thread. */
bool amx_emulated_init(fa_kernels *k);
/* Whether the tiles were given back. */
bool amx_emulated_at_rest(void);

#endif
