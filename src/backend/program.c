/* Names of the operations, for messages on both sides of a module; what lies where in a batch's block. */
#include "backend/program.h"

const char *fa_op_name(fa_op op) {
    static const char *const names[] = {
#define FA_X(id, text) text,
        FA_OPS(FA_X)
#undef FA_X
    };
    return op < FA_OP_COUNT ? names[op] : "?";
}

/* Takes n ints out of the block, or only counts them while there is none. */
static int32_t *ints(fa_batch *b, int64_t n) {
    int32_t *p = b->block ? (int32_t *)(void *)(b->block + b->block_bytes) : NULL;
    b->block_bytes += ((size_t)n * sizeof *p + 15) / 16 * 16;
    return p;
}

void fa_batch_lay_out(fa_batch *b, int64_t rows, int64_t n_seq) {
    b->block_bytes = 0;
    b->tok = ints(b, rows);
    b->pos = ints(b, rows * b->n_axes);
    b->row_start = ints(b, n_seq + 1);
    b->row_seq = ints(b, rows);
    b->slot = ints(b, n_seq);
    b->len = ints(b, n_seq);
    b->rope_len = ints(b, n_seq);
    b->place = ints(b, rows);
    for (int g = 0; g < b->n_group; g++) b->kv_lo[g] = ints(b, rows);
    b->kv_hi = ints(b, rows);
    b->out_row = ints(b, rows);
    b->tile_seq = ints(b, rows);
    b->tile_row = ints(b, rows);
    b->adapt = (float *)(void *)ints(b, n_seq * FA_ADAPTERS);
    b->state_in = ints(b, n_seq);
    b->state_out = ints(b, n_seq);
    b->keep = ints(b, rows);
    b->cut = ints(b, rows + 1);
    b->seq_cut = ints(b, n_seq + 1);
    int32_t *pages = ints(b, n_seq * b->page_stride);
    b->page[0] = pages; /* where the integers end, if there are no groups */
    for (int g = 0; g < b->n_group; g++) b->page[g] = pages ? pages + g * (b->page_stride / b->n_group) : NULL;
}
