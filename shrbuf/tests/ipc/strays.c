/* Receives as a consumer does until an error, which it prints, and how many descriptors more it has than before. */
#define _GNU_SOURCE
#include <stdio.h>

#include "shrbuf_ipc.h"

/* The lowest number that is free. */
static int lowest(void) {
    int fd = dup(0);
    close(fd);
    return fd;
}

int main(int argc, char **argv) {
    struct shrbuf_hello hello = {SHRBUF_HELLO, "SHRB", SHRBUF_VERSION, SHRBUF_ROLE_CONSUMER, 0, 0, "strays"};
    union shrbuf_message m;
    struct shrbuf_link l;
    int fds[SHRBUF_MAX_PLANES], s = shrbuf_connect(argv[argc - 1]), before;
    if (s < 0 || shrbuf_send(s, &hello, sizeof hello) < 0) return 1;
    do if (shrbuf_receive(s, &m, fds) <= 0) return 1;
    while (m.type != SHRBUF_CHANNEL);
    if (shrbuf_open(&l, s, &m.channel, fds) < 0) return 1;
    before = lowest();
    ssize_t n;
    while ((n = shrbuf_next(&l, &m, fds)) > 0);
    printf("%zd %s, %d more\n", n, strerror(errno), lowest() - before);
}
