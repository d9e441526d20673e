/* Prints a hash of each frame that an ipc-sink sends: a whole consumer.
 *
 *   cc -I shrbuf/include -o ipc-hash examples/ipc-hash.c && ./ipc-hash /tmp/shrbuf-camera   (of examples/ipc-out.toml)
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdio.h>

#include "shrbuf_ipc.h"

static struct { const unsigned char *start; size_t size; } memory[SHRBUF_MAX_BUFFERS][SHRBUF_MAX_PLANES];
static uint64_t sequence[SHRBUF_MAX_BUFFERS];
static int filling[SHRBUF_MAX_BUFFERS]; /* a STATE follows when the picture is there */

static void say(int s, const void *message, size_t size) {
    if (shrbuf_send(s, message, size) < 0) err(1, "send");
}

static void print_and_release(const struct shrbuf_link *l, uint32_t buffer, uint32_t state) {
    filling[buffer] = state == SHRBUF_FILLING;
    if (filling[buffer]) return;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (int i = 0; i < SHRBUF_MAX_PLANES; i++)
        for (size_t n = 0; n < memory[buffer][i].size; n++)
            hash = (hash ^ memory[buffer][i].start[n]) * 0x100000001b3;
    printf("%" PRIu64 " %016" PRIx64 "%s\n", sequence[buffer], hash, state == SHRBUF_CORRUPT ? " damaged" : "");
    if (shrbuf_release(l, buffer, 0) < 0 && errno != EPIPE) err(1, "release");
}

int main(int argc, char **argv) {
    if (argc != 2) errx(2, "usage: ipc-hash SOCKET");
    int s = shrbuf_connect(argv[1]), fds[SHRBUF_MAX_PLANES];
    if (s < 0) err(1, "%s", argv[1]);
    struct shrbuf_hello hello = {SHRBUF_HELLO, "SHRB", SHRBUF_VERSION, SHRBUF_ROLE_CONSUMER, 0, 0, "ipc-hash"};
    say(s, &hello, sizeof hello);
    uint32_t buffers = 0;
    union shrbuf_message m;
    do {
        if (shrbuf_receive(s, &m, fds) <= 0) err(1, "%s: nothing from the producer", argv[1]);
        if (m.type == SHRBUF_BYE) errx(1, "refused, reason %" PRIu32, m.bye.reason);
        if (m.type == SHRBUF_BUFFER) buffers++;
        for (uint32_t i = 0; m.type == SHRBUF_BUFFER && i < m.buffer.segments; i++) {
            memory[m.buffer.index][i].start = shrbuf_map(fds[i], &memory[m.buffer.index][i].size);
            if (!memory[m.buffer.index][i].start) err(1, "buffer %" PRIu32, m.buffer.index);
            close(fds[i]);
        }
    } while (m.type != SHRBUF_CHANNEL);
    struct shrbuf_link l;
    if (shrbuf_open(&l, s, &m.channel, fds) < 0) err(1, "channel");
    say(s, &(struct shrbuf_ready){SHRBUF_READY, buffers}, sizeof(struct shrbuf_ready));
    say(s, &(struct shrbuf_word){SHRBUF_START}, sizeof(struct shrbuf_word));
    while (shrbuf_next(&l, &m) > 0) {
        if (m.type == SHRBUF_FRAME) sequence[m.frame.buffer] = m.frame.sequence;
        if (m.type == SHRBUF_FRAME) print_and_release(&l, m.frame.buffer, m.frame.state);
        if (m.type == SHRBUF_STATE && filling[m.state.buffer]) print_and_release(&l, m.state.buffer, m.state.state);
        if (m.type == SHRBUF_BYE) return m.bye.reason == SHRBUF_BYE_ENDED ? 0 : 1;
    }
    err(1, "%s: no more from the producer", argv[1]);
}
