/* Prints a hash of each frame that an ipc-sink sends: a whole consumer.
 *
 *   cc -I shrbuf/include -o ipc-hash examples/ipc-hash.c && ./ipc-hash /run/user/1000/camera
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shrbuf_ipc.h"

/* Receives a message and up to four descriptors; returns its size, 0 at the end. */
static size_t receive(int s, void *message, int fds[4]) {
    union { struct cmsghdr head; char room[CMSG_SPACE(4 * sizeof(int))]; } control = {0};
    struct iovec part = {message, SHRBUF_MAX_MESSAGE};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(s, &m, MSG_CMSG_CLOEXEC);
    if (n < 0) err(1, "recvmsg");
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return (size_t)n;
}

static void say(int s, const void *message, size_t size) {
    if (send(s, message, size, MSG_NOSIGNAL) < 0) err(1, "send");
}

int main(int argc, char **argv) {
    if (argc != 2) errx(2, "usage: ipc-hash SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(argv[1]) >= sizeof to.sun_path) errx(2, "%s: too long for a socket", argv[1]);
    strcpy(to.sun_path, argv[1]);
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fds[4];
    if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof to) < 0) err(1, "%s", argv[1]);
    struct shrbuf_hello hello = {SHRBUF_HELLO, "SHRB", SHRBUF_VERSION, SHRBUF_ROLE_CONSUMER, 0, 0, "ipc-hash"};
    say(s, &hello, sizeof hello);

    union { uint32_t type; struct shrbuf_welcome welcome; struct shrbuf_buffer buffer; struct shrbuf_frame frame;
            struct shrbuf_bye bye; char room[SHRBUF_MAX_MESSAGE]; } m;
    struct { const unsigned char *start; size_t size; } memory[SHRBUF_MAX_BUFFERS][4] = {0};
    uint32_t buffers = 0;
    while (receive(s, &m, fds) > 0) switch (m.type) {
        case SHRBUF_WELCOME:
            buffers = m.welcome.buffers;
            break;
        case SHRBUF_BUFFER:
            for (uint32_t i = 0; i < m.buffer.segments && i < 4 && m.buffer.index < SHRBUF_MAX_BUFFERS; i++) {
                off_t size = lseek(fds[i], 0, SEEK_END); /* of a dma-buf too, for which fstat says 0 */
                void *start = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fds[i], 0);
                if (start == MAP_FAILED) err(1, "mmap");
                memory[m.buffer.index][i].start = start;
                memory[m.buffer.index][i].size = (size_t)size;
                close(fds[i]);
            }
            if (m.buffer.index + 1 == buffers) {
                say(s, &(struct shrbuf_ready){SHRBUF_READY, buffers}, sizeof(struct shrbuf_ready));
                say(s, &(struct shrbuf_word){SHRBUF_START}, sizeof(struct shrbuf_word));
            }
            break;
        case SHRBUF_FRAME: {
            uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
            for (int i = 0; i < 4 && m.frame.buffer < SHRBUF_MAX_BUFFERS; i++)
                for (size_t n = 0; n < memory[m.frame.buffer][i].size; n++)
                    hash = (hash ^ memory[m.frame.buffer][i].start[n]) * 0x100000001b3;
            printf("%" PRIu64 " %016" PRIx64 "\n", m.frame.sequence, hash);
            struct shrbuf_release release = {SHRBUF_RELEASE, m.frame.buffer, 0};
            say(s, &release, sizeof release);
            break;
        }
        case SHRBUF_BYE:
            return m.bye.reason == SHRBUF_BYE_ENDED ? 0 : 1;
    }
    errx(1, "the producer has gone");
}
