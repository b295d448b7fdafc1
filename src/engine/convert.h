/* Conversion of a checkpoint to mlx's layout. The plan (convert_plan.c, names in convert_names.c) says what every array
 * of the result is made of before anything is written; the run (convert_run.c) makes them row by row; convert_text.c
 * writes what stands beside the weights. */
#ifndef FA_ENGINE_CONVERT_H
#define FA_ENGINE_CONVERT_H

#include "base/pool.h"
#include "engine/model.h"
#include "io/out_dir.h"
#include "io/st_stream.h"
#include "text/match.h"

/* How a matrix of the result is stored: fmt F32 F16 BF16 AFFINE MXFP4 MXFP8 NVFP4. */
typedef struct cv_format {
    uint8_t fmt, bits;
    uint16_t group;
    uint8_t scale_dtype; /* affine: of the weight's own type */
    bool as_is;          /* planes are copied as they are stored */
    bool said;           /* a rule or the family's predicate said so: config.json gets an entry of its own */
    uint8_t round;       /* fa_dtype that values are rounded to before they are quantized */
} cv_format;

/* Rows of a stored matrix: of each of its n matrices rows from, from + step, ... (count of them). */
typedef struct cv_part {
    size_t source; /* into plan.stored */
    int64_t from, step, count;
    int64_t heads; /* > 0: rows are of that many heads, whose rotated pairs (2i, 2i + 1) go to (i, i + half) */
} cv_part;

/* An array of numbers, not quantized. */
typedef struct cv_vector {
    const fa_ckpt_tensor *t;
    float add;                        /* to every value */
    bool log_of_minus;                /* log(-v) */
    int64_t total, from, step, count; /* of the `total` values along the last dimension only from, from + step, ...
                                         (count of them); total 0: all */
    int64_t heads;                    /* see cv_part */
} cv_vector;

typedef struct cv_item {
    const char *name; /* module, without ".weight", or the whole name of a vector */
    /* a matrix or stack: [n_matrix, rows, cols] (stacked) or [rows, cols] */
    cv_part *part; /* [n_part]; NULL: a vector */
    size_t n_part;
    bool stacked;
    int64_t n_matrix, rows, cols;
    cv_format f;
    cv_vector v;
    /* the result: codes (or the vector), scales, biases: [n_out] */
    fa_st_out out[3];
    char *out_name[3];
    int n_out;
    int shard;
} cv_item;

typedef struct cv_rule {
    fa_match *regex;
    cv_format f; /* fmt FA_FMT_COUNT: not quantized */
} cv_rule;

typedef struct cv_plan {
    ffai_model *m;
    fa_mem mem;
    fa_stored_list stored;
    const uint8_t *used;     /* [tensors] */
    char body[64], head[64]; /* prefixes of the checkpoint */
    char out_body[64], out_head[64];
    bool experts;     /* the model has layers of experts */
    bool unsanitized; /* convolutions are stored as transformers has them */
    cv_item *item;    /* [n] */
    size_t n, cap;
    cv_format wanted; /* fmt FA_FMT_COUNT: nothing was asked for */
    bool dequantize;
    int dtype; /* fa_dtype of floats or -1: as they are */
    cv_rule *rule;
    size_t n_rule;
    bool untie;              /* config.json must say that the head is not the embedding */
    int64_t n_weight, bytes; /* of matrices that are quantized; of the result */
    double **input;          /* calibration, [stored]: weight of each column, or NULL; NULL: not calibrated */
    int n_shard;
    int n_requantized;
} cv_plan;

/* ---- names (convert_names.c) ---- */

enum { CV_NAME = 384 };

/* What a stored matrix becomes: up to two modules, each a share of its rows. */
typedef struct cv_target {
    char name[CV_NAME];
    int64_t from, step, count; /* of the rows of each matrix; count 0: all */
    int64_t expert;            /* the place in a stack that has a tensor each; -1: none */
} cv_target;

/* name: the checkpoint's, without ".weight". Returns how many. */
int cv_targets_of(const cv_plan *p, const char *name, int64_t rows, cv_target out[2]);
/* The result's spelling of another tensor's name; false: it is dropped. */
bool cv_rename(const cv_plan *p, const char *name, char out[CV_NAME]);
/* Modules that mlx-lm never quantizes, or quantizes in another way than the rest of the model: 0: as the rest, -1:
 * never, else bits of affine with groups of 64. */
int cv_predicate(const cv_plan *p, const char *module);
void cv_choose_prefixes(cv_plan *p, const fa_binder *b);

/* ---- calibration (convert_calib.c): p->input, and widths, before arrays are laid out ---- */

int cv_calibrate(cv_plan *p, const char *path, const ffai_convert_opts *o, fa_error *err);
/* Where row r of an item (over all its matrices) is stored: *w, without codes when it cannot be had from the file as it
 * is, and the row of it; the part. */
size_t cv_locate_row(const cv_plan *p, const cv_item *it, int64_t r, fa_weight *w, int64_t *row);

/* ---- plan, run, text ---- */

int cv_plan_make(cv_plan *p, const char *path, const ffai_convert_opts *o, fa_error *err);
void cv_plan_free(cv_plan *p);
int cv_run(cv_plan *p, const fa_out_dir *d, const ffai_convert_opts *o, fa_error *err);
int cv_write_text(cv_plan *p, const fa_out_dir *d, fa_error *err);
double cv_bits_per_weight(const cv_plan *p); /* of matrices, with their scales */

#endif
