/* Monotonic time in seconds. */
#ifndef FA_BASE_CLOCK_H
#define FA_BASE_CLOCK_H

double fa_now(void);

#endif
