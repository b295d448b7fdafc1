/* The list of families and the search in it. */
#include "families/family.h"

#include <string.h>

#define X(name) extern const fa_family fa_family_##name;
#include "families/families.inc"
#undef X

const fa_family *const fa_families[] = {
#define X(name) &fa_family_##name,
#include "families/families.inc"
#undef X
};
const size_t fa_n_family = sizeof fa_families / sizeof fa_families[0];

/* Is word an item of a comma-separated list? */
static bool listed(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; n && p; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == 0)) return true;
    }
    return false;
}

const fa_family *fa_family_find(const char *model_type, const char *arch) {
    for (size_t i = 0; model_type && i < fa_n_family; i++)
        if (listed(fa_families[i]->model_types, model_type)) return fa_families[i];
    for (size_t i = 0; arch && i < fa_n_family; i++)
        if (listed(fa_families[i]->archs, arch)) return fa_families[i];
    return NULL;
}
