// Prints the frequency of the host's time stamp counter in kHz, for the kernel parameter tsc_early_khz.
//
// An emulated guest sees the host's counter, but has to measure its rate against emulated timers, which are late when
// the host is busy: on a loaded machine the guest's clock was seen to run at twice the speed.
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct moment {
    uint64_t ticks;
    double ns;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

// Both clocks at once: of many tries the one between whose two readings of the clock the least time passed.
static struct moment moment(void)
{
    struct moment best = {0, 0};
    double least = 1e18;

    for (int i = 0; i < 2000; i++) {
        double before = now();
        uint64_t ticks = __rdtsc();
        double after = now();

        if (after - before < least) {
            least = after - before;
            best = (struct moment){ticks, (before + after) / 2};
        }
    }
    return best;
}

int main(void)
{
    struct moment first = moment(), second;
    struct timespec pause = {0, 200000000};

    nanosleep(&pause, NULL);
    second = moment();
    printf("%.0f\n", (second.ticks - first.ticks) / (second.ns - first.ns) * 1e6);
    return 0;
}
