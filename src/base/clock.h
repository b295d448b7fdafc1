/* Time in seconds: monotonic, and what the processor spent on the calling thread (for limits that a busy machine must
 * not trip). */
#ifndef FA_BASE_CLOCK_H
#define FA_BASE_CLOCK_H

double fa_now(void);
double fa_thread_now(void);

#endif
