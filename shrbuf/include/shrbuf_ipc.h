/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Frames from a shrbuf producer: the messages of protocol version 4, for programs in C. shrbuf/PROTOCOL.md says in which
 * order they come; examples/ipc-hash.c is a whole consumer.
 *
 * A message is one packet of a SOCK_SEQPACKET socket, or a record in a pipe, and has the size of its struct. Numbers are the
 * machine's own. Needs GCC's or Clang's atomic built-ins.
 */
#ifndef SHRBUF_IPC_H
#define SHRBUF_IPC_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SHRBUF_VERSION 4u
#define SHRBUF_MAX_BUFFERS 64
#define SHRBUF_MAX_PLANES 4
#define SHRBUF_MAX_MESSAGE 640

/* From a consumer. */
enum { SHRBUF_HELLO = 1, SHRBUF_READY, SHRBUF_START, SHRBUF_STOP, SHRBUF_WAKE, SHRBUF_QUERY };
/* From a producer. */
enum {
    SHRBUF_WELCOME = 0x81,
    SHRBUF_BUFFER,
    SHRBUF_FRAME,
    SHRBUF_STATE,
    SHRBUF_BYE,
    SHRBUF_OVERVIEW,
    SHRBUF_CONSUMER,
    SHRBUF_CHANNEL
};

enum { SHRBUF_ROLE_CONSUMER, SHRBUF_ROLE_MONITOR };
enum { SHRBUF_LAG_DEFAULT, SHRBUF_LAG_BLOCK, SHRBUF_LAG_DROP_OLDEST, SHRBUF_LAG_LATEST };
enum { SHRBUF_EMPTY, SHRBUF_FILLING, SHRBUF_FILLED, SHRBUF_CORRUPT };
enum {
    SHRBUF_BYE_ENDED,
    SHRBUF_BYE_NOT_ALLOWED,
    SHRBUF_BYE_FULL,
    SHRBUF_BYE_VERSION,
    SHRBUF_BYE_PROTOCOL,
    SHRBUF_BYE_RATE,
    SHRBUF_BYE_RESOURCES,
    SHRBUF_BYE_CHANGED /* the frames are others from now on: connect again */
};

struct shrbuf_hello {
    uint32_t type;
    char magic[4]; /* "SHRB" */
    uint32_t version;
    uint32_t role;
    uint32_t lag;
    uint32_t window; /* frames to hold at once; 0: what the producer allows */
    char name[32];
};

struct shrbuf_ready {
    uint32_t type;
    uint32_t buffers;
};

/* START, STOP, WAKE, QUERY. */
struct shrbuf_word {
    uint32_t type;
};

struct shrbuf_welcome {
    uint32_t type;
    uint32_t version;
    uint32_t id;
    uint32_t lag;
    uint32_t window;
    uint32_t buffers;
    uint32_t rate_num; /* 0: unknown */
    uint32_t rate_den;
};

#define SHRBUF_BUFFER_NO_MODIFIER 1u

/* Brings as many descriptors as it has segments. After CHANNEL: what the next FRAME is in, one buffer more, or another in the
 * place of one that has gone, which is not held. */
struct shrbuf_buffer {
    uint32_t type;
    uint32_t index;
    char format[8]; /* such as "NV12", padded with zeros */
    uint64_t modifier;
    uint32_t width;
    uint32_t height;
    uint32_t segments;
    uint32_t flags;
    struct {
        uint32_t segment;
        uint32_t offset;
        uint32_t stride;
    } planes[SHRBUF_MAX_PLANES];
};

/* Brings the page's descriptor and, where `pipe` is 1, that of the pipe which frames come by. */
struct shrbuf_channel {
    uint32_t type;
    uint32_t pipe;
};

/* What is in the page; only ever to be changed by atomic operations. */
struct shrbuf_page {
    uint64_t released; /* a bit for each buffer */
    uint64_t skipped;  /* of those given back: not looked at */
    uint32_t wake;     /* not 0: the producer is to be woken */
    uint32_t reserved;
    uint64_t dropped; /* frames not sent to this consumer so far, as the producer says; 0 of version 3 */
};

#define SHRBUF_FRAME_CORRUPT 1u
#define SHRBUF_FRAME_CROP 2u
#define SHRBUF_FRAME_FULL_RANGE 4u

struct shrbuf_frame {
    uint32_t type;
    uint32_t buffer;
    uint64_t sequence;
    uint64_t timestamp; /* ns of CLOCK_MONOTONIC */
    uint64_t dropped;   /* frames not sent to this consumer so far */
    uint32_t flags;
    uint32_t matrix; /* MatrixCoefficients of ITU-T H.273 */
    uint32_t state;
    uint32_t crop[4]; /* x, y, width, height */
    uint32_t late;    /* how many BUFFERs there were since CHANNEL; where that is one more, the frame is in that */
};

struct shrbuf_state {
    uint32_t type;
    uint32_t buffer;
    uint32_t state;
    uint32_t reserved[13];
};

struct shrbuf_bye {
    uint32_t type;
    uint32_t reason; /* with SHRBUF_BYE_VERSION the lowest version that the producer speaks, in the upper 16 bits */
};

/* Answers QUERY, followed by `consumers` of struct shrbuf_consumer. Times are ns of CLOCK_MONOTONIC. */
struct shrbuf_overview {
    uint32_t type;
    uint32_t consumers;
    uint32_t buffers;
    uint32_t pid;
    uint64_t frames;
    uint64_t unseen;
    uint64_t refused;
    uint64_t now;
    uint64_t since;
};

struct shrbuf_consumer {
    uint32_t type;
    uint32_t id;
    uint32_t pid;
    uint32_t uid;
    uint32_t lag;
    uint32_t started;
    uint32_t window;
    uint32_t pending;
    char name[32];
    uint64_t since;
    uint64_t sent;
    uint64_t released;
    uint64_t dropped;
    uint64_t skipped;
    uint64_t held_since[SHRBUF_MAX_BUFFERS]; /* 0: does not hold it */
};

/* Any message from a producer. */
union shrbuf_message {
    uint32_t type;
    struct shrbuf_welcome welcome;
    struct shrbuf_buffer buffer;
    struct shrbuf_channel channel;
    struct shrbuf_frame frame;
    struct shrbuf_state state;
    struct shrbuf_bye bye;
    struct shrbuf_overview overview;
    struct shrbuf_consumer consumer;
    char room[SHRBUF_MAX_MESSAGE];
};

/* Connects to the producer at `path`: a descriptor, or -1 and errno. */
static inline int shrbuf_connect(const char *path) {
    struct sockaddr_un to;
    int s, why;
    if (strlen(path) >= sizeof to.sun_path) return errno = ENAMETOOLONG, -1;
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    strcpy(to.sun_path, path);
    s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, (const struct sockaddr *)&to, sizeof to) == 0) return s;
    why = errno;
    close(s);
    return errno = why, -1;
}

/* Whether a message of `size` bytes with `fds` descriptors is one that a producer sends. */
static inline int shrbuf_is_message(const union shrbuf_message *m, size_t size, unsigned fds) {
    switch (size < sizeof m->type ? 0 : m->type) {
        case SHRBUF_WELCOME: return size == sizeof m->welcome && fds == 0 && m->welcome.buffers <= SHRBUF_MAX_BUFFERS;
        case SHRBUF_BUFFER:
            return size == sizeof m->buffer && m->buffer.index < SHRBUF_MAX_BUFFERS && m->buffer.segments == fds;
        case SHRBUF_CHANNEL:
            return size == sizeof m->channel && m->channel.pipe <= 1 && fds == 1 + m->channel.pipe;
        case SHRBUF_FRAME: return size == sizeof m->frame && fds == 0 && m->frame.buffer < SHRBUF_MAX_BUFFERS;
        case SHRBUF_STATE: return size == sizeof m->state && fds == 0 && m->state.buffer < SHRBUF_MAX_BUFFERS;
        case SHRBUF_BYE: return size == sizeof m->bye && fds == 0;
        case SHRBUF_OVERVIEW: return size == sizeof m->overview && fds == 0;
        case SHRBUF_CONSUMER: return size == sizeof m->consumer && fds == 0;
        default: return 0;
    }
}

/* As shrbuf_receive, which waits; with MSG_DONTWAIT in `flags` it does not, and EAGAIN is the errno where there is none. */
static inline ssize_t shrbuf_take(int s, union shrbuf_message *m, int fds[SHRBUF_MAX_PLANES], int flags) {
    union { struct cmsghdr head; char room[CMSG_SPACE(SHRBUF_MAX_PLANES * sizeof(int))]; } control;
    struct iovec part;
    struct msghdr h;
    struct cmsghdr *c;
    unsigned count = 0, i;
    ssize_t n;
    memset(&h, 0, sizeof h);
    memset(m, 0, sizeof *m);
    part.iov_base = m;
    part.iov_len = sizeof *m;
    h.msg_iov = &part;
    h.msg_iovlen = 1;
    h.msg_control = &control;
    h.msg_controllen = sizeof control;
    do n = recvmsg(s, &h, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n <= 0) return n;
    for (c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)); /* room for more than four there is not */
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    }
    if (!(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && shrbuf_is_message(m, (size_t)n, count)) return n;
    for (i = 0; i < count; i++) close(fds[i]);
    return errno = EPROTO, -1;
}

/* Waits for a message, whose descriptors are the caller's to close: its size; 0 at the end; -1 and errno, which is EPROTO
 * for anything that no producer sends, with no descriptor left open. Nothing of a message is more certain than its size,
 * its number of descriptors, and that a buffer's number is below SHRBUF_MAX_BUFFERS. */
static inline ssize_t shrbuf_receive(int s, union shrbuf_message *m, int fds[SHRBUF_MAX_PLANES]) {
    return shrbuf_take(s, m, fds, 0);
}

#define SHRBUF_WHY 96 /* room for the text of shrbuf_why */

/* In words, why there is no more after shrbuf_receive or shrbuf_next returned `n`, with BYE in `m` where that is above 0. */
static inline const char *shrbuf_why(ssize_t n, const union shrbuf_message *m, char text[SHRBUF_WHY]) {
    static const char *const reasons[] = {
        "the stream has ended",
        "this user is not on the producer's list",
        "the producer has as many consumers, or monitors, as it takes",
        "",
        "the producer says that the protocol was broken",
        "asked, or connected, more often than the producer allows",
        "the socket was full, or the producer had no descriptors left",
        "the frames are others from now on, for those who connect again",
    };
    uint32_t reason;
    if (n < 0) return strerror(errno);
    if (n == 0) return "the producer has gone";
    reason = m->bye.reason & 0xffff;
    if (reason == SHRBUF_BYE_VERSION)
        snprintf(text, SHRBUF_WHY, "the producer speaks version %u of the protocol, this program version %u",
                 (unsigned)m->bye.reason >> 16, SHRBUF_VERSION);
    else if (reason < sizeof reasons / sizeof *reasons)
        snprintf(text, SHRBUF_WHY, "%s", reasons[reason]);
    else
        snprintf(text, SHRBUF_WHY, "the producer gives a reason that this program does not know, %u", (unsigned)reason);
    return text;
}

#define SHRBUF_GET_SEALS 1034 /* F_GET_SEALS of linux/fcntl.h */
#define SHRBUF_SEAL_SHRINK 2  /* F_SEAL_SHRINK */
#define SHRBUF_DMA_BUF_MAGIC 0x444d4142

/* Maps a buffer's memory for reading, and its size into `size`: NULL and errno, which is EPROTO for what is neither a dma-buf
 * nor a memfd that cannot shrink, as access to such could raise SIGBUS. The descriptor stays open. */
static inline const unsigned char *shrbuf_map(int fd, size_t *size) {
    struct statfs fs;
    int seals = fcntl(fd, SHRBUF_GET_SEALS);
    off_t end;
    void *start;
    if (seals >= 0 ? !(seals & SHRBUF_SEAL_SHRINK) : fstatfs(fd, &fs) < 0 || fs.f_type != SHRBUF_DMA_BUF_MAGIC)
        return errno = EPROTO, (const unsigned char *)NULL;
    end = lseek(fd, 0, SEEK_END); /* of a dma-buf too, for which fstat says 0 */
    if (end < 0) return NULL;
    start = mmap(NULL, (size_t)end, PROT_READ, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) return NULL;
    *size = (size_t)end;
    return (const unsigned char *)start;
}

/* Sends a message: 0, or -1 and errno. */
static inline int shrbuf_send(int s, const void *message, size_t size) {
    return send(s, message, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}

/* What a consumer and its producer share for frames. */
struct shrbuf_link {
    int socket;
    int frames; /* the pipe, or the socket: readable when something has come; of the end the socket tells */
    struct shrbuf_page *page;
    uint32_t late;             /* BUFFERs received since CHANNEL */
    struct shrbuf_frame frame; /* comes next, after the BUFFER that it is in; its type is 0 where there is none */
};

/* Opens the channel that CHANNEL brought with `fds`, and closes those: 0, or -1 and errno, which is EPROTO for a page that
 * could fault, and for what is no pipe or one of another user, who could stop this process by it. */
static inline int shrbuf_open(struct shrbuf_link *l, int s, const struct shrbuf_channel *c, const int fds[2]) {
    struct { pid_t pid; uid_t uid; gid_t gid; } who;
    socklen_t size = sizeof who;
    char path[32], name[6];
    int seals = fcntl(fds[0], SHRBUF_GET_SEALS), why = EPROTO;
    memset(l, 0, sizeof *l);
    l->socket = l->frames = s;
    l->page = (struct shrbuf_page *)MAP_FAILED;
    if (seals >= 0 && (seals & SHRBUF_SEAL_SHRINK) && lseek(fds[0], 0, SEEK_END) >= 4096) {
        l->page = (struct shrbuf_page *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
        why = l->page == MAP_FAILED ? errno : 0;
    }
    if (c->pipe && !why) {
        /* Anew, so that nobody else has its flags. Its name says that it is a pipe, without asking a file system. */
        snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
        if (getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 || who.uid != geteuid()
            || readlink(path, name, sizeof name) < 6 || memcmp(name, "pipe:[", 6) != 0)
            why = EPROTO;
        else if ((l->frames = open(path, O_RDONLY | O_CLOEXEC)) < 0)
            why = errno;
    }
    close(fds[0]);
    if (c->pipe) close(fds[1]);
    if (why && l->page != MAP_FAILED) munmap(l->page, 4096);
    return why ? (errno = why, -1) : 0;
}

/* Waits for FRAME, STATE, a BUFFER that is new, with its descriptors, or the last message, BYE: as shrbuf_receive, with EPROTO for
 * any other, and 0 where the producer has gone without a word. */
static inline ssize_t shrbuf_next(struct shrbuf_link *l, union shrbuf_message *m, int fds[SHRBUF_MAX_PLANES]) {
    /* The socket first: what was written into the pipe before it had something to say is seen then. */
    struct pollfd ways[2] = {{l->socket, POLLIN, 0}, {l->frames, POLLIN, 0}};
    ssize_t n;
    if (l->frame.type) {
        memset(m, 0, sizeof *m);
        m->frame = l->frame;
        l->frame.type = 0;
        return sizeof m->frame;
    }
    do n = poll(ways, 2, -1);
    while (n < 0 && errno == EINTR);
    if (n < 0) return n;
    /* A producer that has died closes the socket, even where the pipe's other end is still open elsewhere. */
    if (l->frames != l->socket && ways[1].revents) {
        memset(m, 0, sizeof *m);
        do n = read(l->frames, m, sizeof m->frame);
        while (n < 0 && errno == EINTR);
        if (n < 0) return n;
        if (n > 0 && (n != sizeof m->frame || !shrbuf_is_message(m, (size_t)n, 0))) return errno = EPROTO, -1;
        if (n > 0 && (m->type != SHRBUF_FRAME || (int32_t)(m->frame.late - l->late) <= 0)) return n;
        if (n > 0 && m->frame.late - l->late != 1) return errno = EPROTO, -1;
        if (n > 0) l->frame = m->frame;
    }
    /* A frame's BUFFER was sent just before, so it is there. */
    n = shrbuf_take(l->socket, m, fds, l->frame.type ? MSG_DONTWAIT : 0);
    /* Said once, where the producer closed before it had read all of ours. */
    if (n < 0 && errno == ECONNRESET) n = shrbuf_take(l->socket, m, fds, l->frame.type ? MSG_DONTWAIT : 0);
    if (n > 0 && m->type == SHRBUF_BUFFER) return l->late++, n;
    if (!l->frame.type && (n <= 0 || m->type == SHRBUF_BYE)) return n;
    /* Here a frame's BUFFER came before it. */
    if (l->frames == l->socket && m->type == SHRBUF_STATE) return n;
    if (l->frames == l->socket && m->type == SHRBUF_FRAME && (int32_t)(m->frame.late - l->late) <= 0) return n;
    /* Of what has no place here a CHANNEL alone brings descriptors. */
    if (n > 0 && m->type == SHRBUF_CHANNEL) {
        close(fds[0]);
        if (m->channel.pipe) close(fds[1]);
    }
    l->frame.type = 0;
    return errno = EPROTO, -1;
}

/* Gives back a buffer, from any thread; `skipped` where it was not looked at. 0, or -1 and errno. */
static inline int shrbuf_release(const struct shrbuf_link *l, uint32_t buffer, int skipped) {
    struct shrbuf_word wake = {SHRBUF_WAKE};
    if (skipped) __atomic_fetch_or(&l->page->skipped, (uint64_t)1 << buffer, __ATOMIC_RELAXED);
    __atomic_fetch_or(&l->page->released, (uint64_t)1 << buffer, __ATOMIC_ACQ_REL);
    if (!__atomic_load_n(&l->page->wake, __ATOMIC_RELAXED)) return 0;
    return __atomic_exchange_n(&l->page->wake, 0, __ATOMIC_RELAXED) ? shrbuf_send(l->socket, &wake, sizeof wake) : 0;
}

#endif
