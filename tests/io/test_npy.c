/* NumPy files: the bytes that NumPy itself writes are read, what is written reads back, and malformed files are
 * refused. */
#define _GNU_SOURCE
#include "io/util.h"

#include "io/npy.h"

/* version 1 file: the dict as given, then the data */
static fa_buf image(const char *dict, const void *data, size_t n) {
    fa_buf b = {0};
    fa_buf_add(&b, "\x93NUMPY\x01\x00", 8);
    put_le(&b, strlen(dict), 2);
    fa_buf_puts(&b, dict);
    if (n) fa_buf_add(&b, data, n);
    return b;
}

static void refuse(const char *dict, size_t data, int code, const char *words) {
    static const uint8_t zeros[64];
    fa_npy a;
    fa_error err = {0};
    fa_buf b = image(dict, zeros, data);
    uint8_t *exact = (uint8_t *)malloc(b.len);
    memcpy(exact, b.data, b.len);
    int rc = fa_npy_parse(&a, exact, b.len, "x.npy", &err);
    if (rc != code) print_error("%s\n", dict);
    assert_failed(rc, &err, code, "x.npy");
    assert_failed(rc, &err, code, words);
    free(exact);
    fa_buf_free(&b);
}

static void read_forms(void **state) {
    (void)state;
    fa_npy a;
    fa_error err = {0};
    const int32_t i32[6] = {1, -2, 3, 4, 5, INT32_MIN};
    const int64_t i64[2] = {-1, INT64_MAX};
    const float f32[3] = {1.5f, -2.25f, 1e20f};
    const double f64[1] = {0.1};
    fa_buf b = image("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }     \n", i32, sizeof i32);
    assert_ok(fa_npy_parse(&a, (uint8_t *)b.data, b.len, "x.npy", &err), &err);
    assert_int_equal(a.dtype, FA_I32);
    assert_int_equal(a.n_dim, 2);
    assert_int_equal(a.dim[0], 2);
    assert_int_equal(a.dim[1], 3);
    assert_int_equal(a.n, 6);
    assert_int_equal(fa_npy_int(&a, 5), INT32_MIN);
    assert_true(fa_npy_num(&a, 1) == -2);
    fa_buf_free(&b);
    b = image("{\"shape\":(2,),\"fortran_order\":True,\"descr\":\"<i8\"}", i64,
              sizeof i64); /* Fortran order of one dimension is the same */
    assert_ok(fa_npy_parse(&a, (uint8_t *)b.data, b.len, "x.npy", &err), &err);
    assert_int_equal(fa_npy_int(&a, 0), -1);
    assert_true(fa_npy_int(&a, 1) == INT64_MAX);
    fa_buf_free(&b);
    b = image("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", f32, sizeof f32);
    assert_ok(fa_npy_parse(&a, (uint8_t *)b.data, b.len, "x.npy", &err), &err);
    assert_true(fa_npy_num(&a, 1) == -2.25);
    assert_int_equal(fa_npy_int(&a, 0), 1);
    assert_true(fa_npy_int(&a, 2) == INT64_MAX);
    fa_buf_free(&b);
    b = image("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", f64, sizeof f64);
    assert_ok(fa_npy_parse(&a, (uint8_t *)b.data, b.len, "x.npy", &err), &err);
    assert_int_equal(a.n_dim, 0);
    assert_int_equal(a.n, 1);
    assert_true(fa_npy_num(&a, 0) == 0.1);
    fa_buf_free(&b);
    b = image("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5), }", NULL, 0);
    assert_ok(fa_npy_parse(&a, (uint8_t *)b.data, b.len, "x.npy", &err), &err);
    assert_int_equal(a.n, 0);
    fa_buf_free(&b);
}

static void refused(void **state) {
    (void)state;
#define D(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"
    refuse(D("'<f2'", "False", "(2,)"), 4, FFAI_EFORMAT, "element type");
    refuse(D("'>f4'", "False", "(2,)"), 8, FFAI_EFORMAT, "element type");
    refuse(D("'|O'", "False", "(2,)"), 16, FFAI_EFORMAT, "element type");
    refuse(D("[('a', '<f4')]", "False", "(2,)"), 8, FFAI_EFORMAT, "element type");
    refuse(D("'<f4'", "True", "(2, 2)"), 16, FFAI_ENOTSUP, "Fortran");
    refuse(D("'<f4'", "0", "(2,)"), 8, FFAI_EFORMAT, "fortran_order");
    refuse(D("'<f4'", "False", "(-2,)"), 8, FFAI_EFORMAT, "shape");
    refuse(D("'<f4'", "False", "(2.0,)"), 8, FFAI_EFORMAT, "shape");
    refuse(D("'<f4'", "False", "2"), 8, FFAI_EFORMAT, "shape");
    refuse(D("'<f4'", "False", "(2"), 8, FFAI_EFORMAT, "");
    refuse(D("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)"), 4, FFAI_EFORMAT, "8 dimensions");
    refuse(D("'<f4'", "False", "(4294967296, 4294967296)"), 8, FFAI_EFORMAT, "overflow");
    refuse(D("'<f4'", "False", "(9223372036854775807,)"), 8, FFAI_EFORMAT, "overflow");
    refuse(D("'<f4'", "False", "(99999999999999999999,)"), 8, FFAI_EFORMAT, "shape");
    refuse(D("'<f4'", "False", "(1152921504606846976,)"), 8, FFAI_EFORMAT, "shape needs");
    refuse(D("'<f4'", "False", "(2,)"), 7, FFAI_EFORMAT, "shape needs 8");
    refuse(D("'<f4'", "False", "(2,)"), 9, FFAI_EFORMAT, "shape needs 8");
    refuse("{'descr': '<f4', 'shape': (2,)}", 8, FFAI_EFORMAT, "lacks");
    refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8, FFAI_EFORMAT, "unknown key");
    refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", 8, FFAI_EFORMAT, "malformed");
    refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", 8, FFAI_EFORMAT, "malformed");
    refuse("{'descr", 8, FFAI_EFORMAT, "malformed");
    refuse("", 8, FFAI_EFORMAT, "dict");
    fa_npy a;
    fa_error err = {0};
    static const uint8_t version9[12] = "\x93NUMPY\x09\x00\x00\x00\x00\x00", lying[12] = "\x93NUMPY\x01\x00\xFF\xFF{}",
                         lying2[12] = "\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF";
    assert_failed(fa_npy_parse(&a, version9, 12, "x.npy", &err), &err, FFAI_ENOTSUP, "x.npy|version 9");
    assert_failed(fa_npy_parse(&a, lying, 12, "x.npy", &err), &err, FFAI_EFORMAT, "x.npy|65535");
    assert_failed(fa_npy_parse(&a, lying2, 12, "x.npy", &err), &err, FFAI_EFORMAT, "x.npy|header");
    for (size_t n = 0; n < 12; n++)
        assert_failed(fa_npy_parse(&a, lying, n, "x.npy", &err), &err, FFAI_EFORMAT, "not a .npy");
}

static void write_and_read(void **state) {
    (void)state;
    char dir[256], path[512];
    fa_npy a;
    fa_error err = {0};
    make_dir(dir);
    path_in(path, dir, "x.npy");
    float f[6] = {0, 1, 2, 3, 4, -5.5f};
    for (int n_dim = 0; n_dim <= 8; n_dim++) {
        int64_t dim[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        if (n_dim > 1) dim[0] = 2, dim[1] = 3;
        assert_ok(fa_npy_write(path, FA_F32, n_dim, dim, f, &err), &err);
        assert_ok(fa_npy_read(&a, path, &err), &err);
        assert_int_equal(a.n_dim, n_dim);
        assert_memory_equal(a.dim, dim, (size_t)n_dim * sizeof *dim);
        assert_int_equal(a.n, n_dim > 1 ? 6 : 1);
        assert_int_equal((size_t)(a.data - (const uint8_t *)a.owned) % 64, 0);
        assert_memory_equal(a.data, f, (size_t)a.n * 4);
        fa_npy_free(&a);
    }
    /* in pieces */
    int64_t dim[2] = {3, 2};
    const int32_t v[6] = {1, 2, 3, 4, 5, 6};
    fa_npy_writer *w;
    assert_ok(fa_npy_begin(&w, path, FA_I32, 2, dim, &err), &err);
    assert_ok(fa_npy_put(w, v, 1, &err), &err);
    assert_ok(fa_npy_put(w, v + 1, 0, &err), &err);
    assert_ok(fa_npy_put(w, v + 1, 5, &err), &err);
    assert_ok(fa_npy_end(w, &err), &err);
    assert_ok(fa_npy_read(&a, path, &err), &err);
    assert_int_equal(fa_npy_int(&a, 5), 6);
    fa_npy_free(&a);
    assert_ok(fa_npy_begin(&w, path, FA_I32, 2, dim, &err), &err);
    assert_ok(fa_npy_put(w, v, 5, &err), &err);
    assert_failed(fa_npy_end(w, &err), &err, FFAI_EINTERNAL, "x.npy|1 values are missing");
    assert_ok(fa_npy_begin(&w, path, FA_I32, 2, dim, &err), &err);
    assert_failed(fa_npy_put(w, v, 7, &err), &err, FFAI_EINTERNAL, "x.npy|7 values");
    dim[0] = -1;
    assert_failed(fa_npy_write(path, FA_F32, 2, dim, f, &err), &err, FFAI_EINVAL, "x.npy");
    assert_failed(fa_npy_write(path, FA_F32, 9, dim, f, &err), &err, FFAI_EINVAL, "x.npy");
    assert_failed(fa_npy_write(path, FA_U8, 0, dim, f, &err), &err, FFAI_EINVAL, "x.npy");
    drop_file(dir, "x.npy");
    assert_failed(fa_npy_read(&a, path, &err), &err, FFAI_EIO, "x.npy");
    path_in(path, dir, "no/such/x.npy");
    assert_failed(fa_npy_write(path, FA_F32, 0, dim, f, &err), &err, FFAI_EIO, "no/such/x.npy|No such");
    rmdir(dir);
    if (access("/dev/full", W_OK) == 0) { /* a full disk is reported, at the latest when the file is closed */
        assert_failed(fa_npy_write("/dev/full", FA_F32, 0, dim, f, &err), &err, FFAI_EIO, "/dev/full|space");
    }
}

static uint32_t le32_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint32_t le16_at(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }

/* The plain definition of CRC-32. */
static uint32_t crc_bitwise(const uint8_t *p, size_t n) {
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
    }
    return ~c;
}

/* Walks the archive as a zip reader does: end record, directory, members. */
static void archive(void **state) {
    (void)state;
    char dir[256], path[512];
    fa_npz *z;
    fa_error err = {0};
    make_dir(dir);
    path_in(path, dir, "x.npz");
    const float f[5] = {1, 2, 3, 4, 5};
    const int32_t v[2] = {7, 8};
    int64_t d5 = 5, d2 = 2, d0 = 0;
    assert_ok(fa_npz_begin(&z, path, &err), &err);
    assert_ok(fa_npz_add(z, "layer_out.0", FA_F32, 1, &d5, f, &err), &err);
    assert_ok(fa_npz_add(z, "ids", FA_I32, 1, &d2, v, &err), &err);
    assert_ok(fa_npz_add(z, "none", FA_F32, 1, &d0, f, &err), &err);
    assert_ok(fa_npz_end(z, &err), &err);
    FILE *file = fopen(path, "rb");
    uint8_t b[4096];
    assert_non_null(file);
    size_t n = fread(b, 1, sizeof b, file);
    fclose(file);
    const uint8_t *end = b + n - 22;
    assert_int_equal(le32_at(end), 0x06054b50);
    assert_int_equal(le16_at(end + 10), 3);
    const uint8_t *entry = b + le32_at(end + 16);
    assert_ptr_equal(entry + le32_at(end + 12), end);
    static const char *const names[] = {"layer_out.0.npy", "ids.npy", "none.npy"};
    static const int64_t values[] = {5, 2, 0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(le32_at(entry), 0x02014b50);
        const uint8_t *local = b + le32_at(entry + 42), *data = local + 30 + le16_at(local + 26);
        uint32_t size = le32_at(entry + 24);
        assert_int_equal(le32_at(local), 0x04034b50);
        assert_memory_equal(local + 4, entry + 6, 26);
        assert_int_equal(le16_at(entry + 28), strlen(names[i]));
        assert_memory_equal(entry + 46, names[i], strlen(names[i]));
        assert_memory_equal(local + 30, names[i], strlen(names[i]));
        assert_int_equal(le32_at(entry + 16), crc_bitwise(data, size));
        fa_npy a;
        assert_ok(fa_npy_parse(&a, data, size, names[i], &err), &err);
        assert_int_equal(a.n, values[i]);
        if (a.n) assert_int_equal(fa_npy_int(&a, a.n - 1), i ? 8 : 5);
        entry += 46 + strlen(names[i]);
    }
    assert_ptr_equal(entry, end);
    assert_ok(fa_npz_begin(&z, path, &err), &err);
    int64_t huge = 1 << 30; /* refused before the data are touched */
    assert_failed(fa_npz_add(z, "big", FA_F32, 1, &huge, f, &err), &err, FFAI_ELIMIT, "x.npz|big|4 GiB");
    drop_file(dir, "x.npz");
    rmdir(dir);
    if (access("/dev/full", W_OK) == 0) {
        assert_ok(fa_npz_begin(&z, "/dev/full", &err), &err);
        int rc = fa_npz_add(z, "a", FA_F32, 1, &d5, f, &err);
        if (!rc) rc = fa_npz_end(z, &err);
        assert_failed(rc, &err, FFAI_EIO, "/dev/full|space");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(read_forms), cmocka_unit_test(refused),
                                       cmocka_unit_test(write_and_read), cmocka_unit_test(archive)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
