/* stub */
#include "text/grammar/gram_int.h"
void fa_schema_read(fa_gb *b) { fa_gb_fail(b, FFAI_ENOTSUP, SIZE_MAX, "not yet"); }
