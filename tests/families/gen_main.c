/* gen_ckpt NAME DIR: writes the tiny checkpoint of tests/data/families/NAME into DIR (made when missing) and prints the
 * path for -m and the token ids, so that a fixture can be tried by hand. */
#define _POSIX_C_SOURCE 200809L
#include "families/gen.h"

#include <stdio.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    fx f;
    fa_error err = {0};
    char model[512];
    if (argc != 3) {
        fprintf(stderr, "usage: gen_ckpt NAME DIR\n");
        return 2;
    }
    mkdir(argv[2], 0777);
    int rc = fx_open(&f, FFAI_SOURCE_DIR "/tests/data/families", argv[1], &err);
    if (!rc) rc = fx_write(&f, argv[2], model, &err);
    if (rc) {
        fprintf(stderr, "gen_ckpt: %s\n", err.msg);
    } else {
        printf("%s\n", model);
        const char *comma = "";
        for (const fa_jnode *i = fa_jfirst(fa_jget(f.root, "ids")); i; i = fa_jnext(i), comma = ",")
            printf("%s%d", comma, (int)fa_jint(i, 0));
        printf("\n");
    }
    fx_close(&f);
    return rc ? 1 : 0;
}
