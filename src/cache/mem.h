/* Memory of caches: one reservation each, on the host or on a device. */
#ifndef FA_CACHE_MEM_H
#define FA_CACHE_MEM_H

#include "backend/device.h"

/* Zeros. A device's memory is taken and zeroed at once: what stands behind a sequence's end is multiplied by zero, and
 * must not be an infinity that someone left there. The host's (dev NULL) is resident as it is written. what: for
 * the message. *mem is to be released even after an error. */
int fa_cache_reserve(fa_device *dev, void **mem, size_t bytes, const char *what, fa_error *err);
void fa_cache_release(fa_device *dev, void *mem, size_t bytes);

#endif
