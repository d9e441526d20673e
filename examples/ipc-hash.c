/* Prints a hash of each frame that an ipc-sink sends: a whole consumer.
 *
 *   cc -I shrbuf/include -o ipc-hash examples/ipc-hash.c && ./ipc-hash /tmp/shrbuf-camera   (of examples/ipc-out.toml)
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdio.h>

#include "shrbuf_ipc.h"

static struct memory { const unsigned char *start; size_t size; } memory[SHRBUF_MAX_BUFFERS][SHRBUF_MAX_PLANES];
static uint64_t waits[SHRBUF_MAX_BUFFERS]; /* frames that are there once a STATE follows, by their numbers */

static void say(int s, const void *message, size_t size) { if (shrbuf_send(s, message, size) < 0) err(1, "send"); }

static void map(const struct shrbuf_buffer *b, const int *fds) {
    for (uint32_t i = 0; i < b->segments; close(fds[i++])) {
        struct memory *to = &memory[b->index][i];
        if (to->start) munmap((void *)to->start, to->size); /* another buffer's, which has gone */
        if (!(to->start = shrbuf_map(fds[i], &to->size))) err(1, "buffer %" PRIu32, b->index);
    }
}

static void print_and_release(const struct shrbuf_link *l, uint32_t buffer, uint32_t state, uint64_t number) {
    waits[buffer] = number;
    if (state == SHRBUF_FILLING) return;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (int i = 0; i < SHRBUF_MAX_PLANES; i++)
        for (size_t n = 0; n < memory[buffer][i].size; n++)
            hash = (hash ^ memory[buffer][i].start[n]) * 0x100000001b3;
    printf("%" PRIu64 " %016" PRIx64 "%s\n", number, hash, state == SHRBUF_CORRUPT ? " damaged" : "");
    if (shrbuf_release(l, buffer, 0) < 0 && errno != EPIPE) err(1, "release");
}

int main(int argc, char **argv) {
    if (argc != 2) errx(2, "usage: ipc-hash SOCKET");
    int s = shrbuf_connect(argv[1]), fds[SHRBUF_MAX_PLANES];
    if (s < 0) err(1, "%s", argv[1]);
    struct shrbuf_hello hello = {SHRBUF_HELLO, "SHRB", SHRBUF_VERSION, SHRBUF_ROLE_CONSUMER, 0, 0, "ipc-hash"};
    struct shrbuf_ready ready = {SHRBUF_READY, 0};
    say(s, &hello, sizeof hello);
    union shrbuf_message m;
    ssize_t n;
    char why[SHRBUF_WHY];
    while ((n = shrbuf_receive(s, &m, fds)) > 0 && m.type != SHRBUF_CHANNEL && m.type != SHRBUF_BYE)
        if (m.type == SHRBUF_BUFFER) map(&m.buffer, fds), ready.buffers++;
    if (n <= 0 || m.type == SHRBUF_BYE) errx(1, "%s: %s", argv[1], shrbuf_why(n, &m, why));
    struct shrbuf_link l;
    if (shrbuf_open(&l, s, &m.channel, fds) < 0) err(1, "channel");
    say(s, &ready, sizeof ready);
    say(s, &(struct shrbuf_word){SHRBUF_START}, sizeof(struct shrbuf_word));
    while ((n = shrbuf_next(&l, &m, fds)) > 0 && m.type != SHRBUF_BYE) {
        if (m.type == SHRBUF_BUFFER) map(&m.buffer, fds);
        if (m.type == SHRBUF_FRAME) print_and_release(&l, m.frame.buffer, m.frame.state, m.frame.sequence);
        if (m.type == SHRBUF_STATE) print_and_release(&l, m.state.buffer, m.state.state, waits[m.state.buffer]);
    }
    if (n > 0 && m.bye.reason == SHRBUF_BYE_CHANGED) fflush(stdout), execv("/proc/self/exe", argv); /* connects again */
    if (n <= 0 || m.bye.reason != SHRBUF_BYE_ENDED) errx(1, "%s: %s", argv[1], shrbuf_why(n, &m, why));
}
