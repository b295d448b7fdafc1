/* Characters whose upper or title case has several characters (generated: tools/make_case_tables.py). */
#ifndef FA_TEXT_JINJA_CASE_TAB_H
#define FA_TEXT_JINJA_CASE_TAB_H

#include <stddef.h>
#include <stdint.h>

typedef struct fa_jjcase {
    uint32_t cp, to[3]; /* to ends with 0 */
} fa_jjcase;

extern const fa_jjcase fa_jj_upper_case[], fa_jj_title_case[]; /* by cp */
extern const size_t fa_jj_n_upper_case, fa_jj_n_title_case;

#endif
