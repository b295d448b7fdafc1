/* Products of a row range of a weight with an input in one of its forms. */
#include "backend/cpu/matmul.h"

enum { TURNED_ROWS = 64 /* weight rows per item: the same for matrices of any height, which share a record */ };

unsigned cpu_form_of(const fa_cpu *cpu, const fa_weight *w, int64_t M) {
    if (cpu->be.exact) return 0;
    if (fa_qfmts[w->fmt].unpack) return w->cols % 32 == 0 ? CPU_Q8 : 0;
    return w->fmt == FA_FMT_BF16 && cpu->k.linear_bf16 && M > CPU_FEW_ROWS ? CPU_BF16 : 0;
}

unsigned cpu_forms_of(const fa_cpu *cpu, const fa_weight *w, int64_t M) {
    unsigned form = cpu_form_of(cpu, w, M);
    int turn = form == CPU_Q8 && cpu->k.turn_of ? cpu->k.turn_of(w, M) : 0;
    return turn ? form | (unsigned)CPU_TURN << turn / 32 : form;
}

size_t cpu_act_bytes(int64_t M, int64_t K) {
    size_t mk = (size_t)(M * K);
    return cpu_up64(mk) + 2 * cpu_up64(mk / 32 * 4) + cpu_up64(mk / 16 * 4);
}

fa_act cpu_act_at(uint8_t *mem, int64_t M, int64_t K) {
    size_t mk = (size_t)(M * K), q = cpu_up64(mk), g = cpu_up64(mk / 32 * 4);
    return (fa_act){(int8_t *)mem,
                    (float *)(void *)(mem + q),
                    (float *)(void *)(mem + q + g),
                    (float *)(void *)(mem + q + 2 * g),
                    M,
                    K,
                    NULL,
                    0};
}

fa_act cpu_act_slice(const fa_act *a, int64_t m, int64_t n) {
    int64_t g = m * (a->K / 32);
    return (fa_act){a->q + m * a->K, a->scale + g, a->sum32 + g, a->sum16 + 2 * g, n, a->K, NULL, 0};
}

int64_t cpu_item_rows(const fa_cpu *cpu, const fa_weight *w, int64_t M) {
    int64_t share = w->rows / (8 * cpu->be.n_thread), tile = cpu->k.row_tile;
    if (cpu->k.turn_of && cpu->k.turn_of(w, M)) return TURNED_ROWS;
    if (M > CPU_FEW_ROWS) return share >= 2 * tile ? 2 * tile : tile;
    int64_t bytes = (int64_t)(w->row_bytes + 2 * w->scale_row_bytes), rows = ((int64_t)128 << 10) / (bytes ? bytes : 1);
    if (rows > share) rows = share;
    return rows < 8 ? 8 : rows;
}

fa_linear cpu_linear_slice(const fa_linear *lin, int64_t r0, int64_t r1) {
    fa_linear part = *lin;
    part.w.rows = r1 - r0;
    part.w.codes += (size_t)r0 * lin->w.row_bytes;
    if (part.w.scales) part.w.scales += (size_t)r0 * lin->w.scale_row_bytes;
    if (part.w.biases) part.w.biases += (size_t)r0 * lin->w.scale_row_bytes;
    if (part.bias) part.bias += r0;
    return part;
}

static void add_bias(const fa_linear *lin, int64_t r0, int64_t r1, int64_t M, float *y, int64_t ldy) {
    if (!lin->bias) return;
    for (int64_t m = 0; m < M; m++)
        for (int64_t r = r0; r < r1; r++) y[m * ldy + r] += lin->bias[r];
}

void cpu_linear_range(const cpu_task *t, unsigned form, const cpu_input *in, const fa_linear *lin, int64_t r0,
                      int64_t r1, int64_t M, float *y, int64_t ldy, bool add) {
    if (form == CPU_Q8)
        t->k->linear_q8(t->k, &lin->w, r0, r1, &in->act, y, ldy, add, t->scratch);
    else if (form == CPU_BF16)
        t->k->linear_bf16(t->k, &lin->w, r0, r1, in->bf16, lin->w.cols, M, y, ldy, add, t->scratch);
    else
        t->k->linear_f32(t->k, &lin->w, r0, r1, in->x, lin->w.cols, M, y, ldy, add, t->scratch);
    add_bias(lin, r0, r1, M, y, ldy);
}
