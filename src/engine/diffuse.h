/* Requests whose model fills in blocks of masks: what they feed, and what becomes of the logits. */
#ifndef FA_ENGINE_DIFFUSE_H
#define FA_ENGINE_DIFFUSE_H

#include "engine/request.h"

enum { FA_BLOCK_MAX = 64, FA_DRAFT_MAX = 32 };

typedef struct fa_diffuse fa_diffuse;

/* Sets r->diffuse from the options, NULL when there are none. The sampler is there already. */
int fa_diffuse_new(ffai_request *r, const ffai_request_opts *o, fa_error *err);
void fa_diffuse_free(fa_diffuse *d);
/* Does the request feed a block next? Then *s is all of it; else it feeds what any request does. */
bool fa_diffuse_fed(const ffai_request *r, fa_seq_rows *s);
/* Takes the logits of what the request was fed, `fed` tokens. It may end. */
void fa_diffuse_read(ffai_request *r, float *rows, int fed);
/* Do its drafts use this adapter? */
bool fa_diffuse_uses(const ffai_request *r, int adapter);

#endif
