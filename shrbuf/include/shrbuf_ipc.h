/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Frames from a shrbuf producer: the messages of protocol version 1, for programs in C. shrbuf/PROTOCOL.md says in which
 * order they come; examples/ipc-hash.c is a whole consumer.
 *
 * A message is one packet of a SOCK_SEQPACKET socket and has the size of its struct. Numbers are the machine's own.
 */
#ifndef SHRBUF_IPC_H
#define SHRBUF_IPC_H

#include <stdint.h>

#define SHRBUF_VERSION 1u
#define SHRBUF_MAX_BUFFERS 64
#define SHRBUF_MAX_PLANES 4
#define SHRBUF_MAX_MESSAGE 640

/* From a consumer. */
enum { SHRBUF_HELLO = 1, SHRBUF_READY, SHRBUF_START, SHRBUF_STOP, SHRBUF_RELEASE, SHRBUF_QUERY };
/* From a producer. */
enum {
    SHRBUF_WELCOME = 0x81,
    SHRBUF_BUFFER,
    SHRBUF_FRAME,
    SHRBUF_STATE,
    SHRBUF_BYE,
    SHRBUF_OVERVIEW,
    SHRBUF_CONSUMER
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
    SHRBUF_BYE_RESOURCES
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

/* START, STOP, QUERY. */
struct shrbuf_word {
    uint32_t type;
};

#define SHRBUF_RELEASE_SKIPPED 1u /* not looked at */

struct shrbuf_release {
    uint32_t type;
    uint32_t buffer;
    uint32_t flags;
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

/* Brings as many descriptors as it has segments. */
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
    uint32_t reserved;
};

struct shrbuf_state {
    uint32_t type;
    uint32_t buffer;
    uint32_t state;
};

struct shrbuf_bye {
    uint32_t type;
    uint32_t reason;
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

#endif
