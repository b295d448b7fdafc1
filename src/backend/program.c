/* Names of the operations, for messages on both sides of a module. */
#include "backend/program.h"

const char *fa_op_name(fa_op op) {
    static const char *const names[] = {
#define FA_X(id, text) text,
        FA_OPS(FA_X)
#undef FA_X
    };
    return op < FA_OP_COUNT ? names[op] : "?";
}
