/* The bare broadcaster that deliveries are compared with: one epoll loop, one send() for each listener of a message.
 *
 *     broadcaster PORT [joined]
 *
 * A text `listen` makes its connection a listener of room 0, `listen 3 17` of these rooms. Every other text is sent to
 * the listeners of the room whose number it begins with, as in `~003~`, or of room 0. With `joined` all texts of one
 * turn of the loop that are for a room are one send() for each of its listeners. Nothing is stored or checked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOMS 1000
#define MAX_BYTES 65536 /* of a request's head, or of what came of a frame */
#define EVENTS 1024

typedef struct {
    int fd;
    int is_open; /* whether it was answered */
    char *kept;  /* what came of a frame or of the request; NULL for nothing */
    size_t size;
} Connection;

typedef struct {
    Connection **listeners;
    int count, space;
    char *pending; /* frames of this turn, with `joined` */
    size_t size, room;
} Room;

static Room rooms[ROOMS];
static int dirty[ROOMS], dirties;
static int is_joined;

static void *needed(void *memory) {
    if (memory == NULL) {
        perror("broadcaster");
        exit(1);
    }
    return memory;
}

static void write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent >= 0) {
            data += sent;
            size -= sent;
        } else if (errno == EAGAIN) {
            struct pollfd full = {fd, POLLOUT, 0};
            poll(&full, 1, -1);
        } else if (errno != EINTR) {
            return; /* its end comes by epoll */
        }
    }
}

/* SHA-1 (RFC 3174) of up to 119 bytes, in base64: what a handshake is answered with (RFC 6455, section 4.2.2). */
static uint32_t turned(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static void accept_key(const char *key, char out[29]) {
    uint8_t block[128] = {0};
    size_t size = (size_t)snprintf((char *)block, sizeof block, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    size_t blocks = size < 56 ? 1 : 2;
    block[size] = 0x80;
    block[blocks * 64 - 2] = (uint8_t)(size * 8 >> 8);
    block[blocks * 64 - 1] = (uint8_t)(size * 8);
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    for (size_t n = 0; n < blocks; n++) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int t = 0; t < 16; t++) {
            const uint8_t *at = block + n * 64 + t * 4;
            w[t] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        }
        for (int t = 16; t < 80; t++) {
            w[t] = turned(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
        }
        for (int t = 0; t < 80; t++) {
            uint32_t f = t < 20 ? (b & c) | (~b & d) : t < 40 || t >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t k = t < 20 ? 0x5A827999 : t < 40 ? 0x6ED9EBA1 : t < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t next = turned(a, 5) + f + e + k + w[t];
            e = d, d = c, c = turned(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t sum[21] = {0};
    for (int n = 0; n < 20; n++) {
        sum[n] = (uint8_t)(h[n / 4] >> (24 - n % 4 * 8));
    }
    for (int n = 0; n < 7; n++) {
        uint32_t three = (uint32_t)sum[n * 3] << 16 | (uint32_t)sum[n * 3 + 1] << 8 | sum[n * 3 + 2];
        for (int m = 0; m < 4; m++) {
            out[n * 4 + m] = digits[three >> (18 - m * 6) & 63];
        }
    }
    out[27] = '=';
    out[28] = 0;
}

static void join(Connection *connection, int number) {
    Room *room = &rooms[number];
    if (room->count == room->space) {
        room->space = room->space * 2 + 16;
        room->listeners = needed(realloc(room->listeners, room->space * sizeof *room->listeners));
    }
    room->listeners[room->count++] = connection;
}

static void leave_all(Connection *connection) {
    for (int n = 0; n < ROOMS; n++) {
        for (int m = 0; m < rooms[n].count; m++) {
            if (rooms[n].listeners[m] == connection) {
                rooms[n].listeners[m--] = rooms[n].listeners[--rooms[n].count];
            }
        }
    }
}

static void to_all(Room *room, const char *data, size_t size) {
    for (int n = 0; n < room->count; n++) {
        write_all(room->listeners[n]->fd, data, size);
    }
}

static void publish(const char *text, size_t size) {
    char frame[MAX_BYTES + 4];
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(size < 126 ? size : 126);
    if (size >= 126) {
        frame[2] = (char)(size >> 8);
        frame[3] = (char)size;
    }
    memcpy(frame + head, text, size);
    int number = size > 4 && text[0] == '~' ? (int)(strtoul(text + 1, NULL, 10) % ROOMS) : 0;
    Room *room = &rooms[number];
    if (!is_joined) {
        to_all(room, frame, head + size);
        return;
    }
    if (room->size == 0) {
        dirty[dirties++] = number;
    }
    if (room->size + head + size > room->room) {
        room->room = (room->size + head + size) * 2;
        room->pending = needed(realloc(room->pending, room->room));
    }
    memcpy(room->pending + room->size, frame, head + size);
    room->size += head + size;
}

static void end_turn(void) {
    for (int n = 0; n < dirties; n++) {
        to_all(&rooms[dirty[n]], rooms[dirty[n]].pending, rooms[dirty[n]].size);
        rooms[dirty[n]].size = 0;
    }
    dirties = 0;
}

static void take_text(Connection *connection, char *text, size_t size) {
    if (size >= 6 && memcmp(text, "listen", 6) == 0) {
        char *at = text + 6, *end = text + size;
        char last = *end;
        *end = 0;
        if (size == 6) {
            join(connection, 0);
        }
        for (char *next; at < end; at = next) {
            unsigned long number = strtoul(at, &next, 10);
            if (next == at) {
                break; /* no number */
            }
            join(connection, (int)(number % ROOMS));
        }
        *end = last;
    } else {
        publish(text, size);
    }
}

/* Take what is whole; how many bytes that was, or -1 where the connection ends. */
static ssize_t take(Connection *connection, char *data, size_t size) {
    size_t at = 0;
    if (!connection->is_open) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end == NULL) {
            return 0;
        }
        *end = 0;
        char *key = strcasestr(data, "sec-websocket-key:"), accepted[29], answer[160];
        if (key == NULL) {
            return -1;
        }
        key += 18;
        accept_key(key + strspn(key, " "), accepted);
        int length = snprintf(answer, sizeof answer,
                              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Accept: %s\r\n\r\n", accepted);
        write_all(connection->fd, answer, length);
        connection->is_open = 1;
        at = end + 4 - data;
    }
    while (size - at >= 6) {
        uint8_t *head = (uint8_t *)data + at;
        size_t payload = head[1] & 127, begin = 6;
        if (payload == 126) {
            payload = (size_t)head[2] << 8 | head[3];
            begin = 8;
        } else if (payload == 127) {
            return -1;
        }
        if (size - at < begin + payload) {
            break;
        }
        for (size_t n = 0; n < payload; n++) {
            head[begin + n] ^= head[begin - 4 + (n & 3)];
        }
        if ((head[0] & 15) == 8) {
            return -1;
        }
        if ((head[0] & 15) == 1) {
            take_text(connection, (char *)head + begin, payload);
        }
        at += begin + payload;
    }
    return (ssize_t)at;
}

/* Whether the connection goes on. */
static int readable(Connection *connection) {
    static char buffer[MAX_BYTES * 4 + 1];
    size_t kept = connection->size;
    if (kept) {
        memcpy(buffer, connection->kept, kept);
    }
    ssize_t got = recv(connection->fd, buffer + kept, sizeof buffer - 1 - kept, 0);
    if (got <= 0) {
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    }
    ssize_t taken = take(connection, buffer, kept + got);
    if (taken < 0 || kept + got - taken > MAX_BYTES) {
        return 0;
    }
    connection->size = kept + got - taken;
    if (connection->size) {
        connection->kept = needed(realloc(connection->kept, connection->size));
        memcpy(connection->kept, buffer + taken, connection->size);
    } else if (connection->kept) {
        free(connection->kept);
        connection->kept = NULL;
    }
    return 1;
}

static void accept_all(int listening, int epoll) {
    for (int fd; (fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int yes = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Connection *connection = needed(calloc(1, sizeof *connection));
        connection->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: broadcaster PORT [joined]\n");
        return 2;
    }
    is_joined = count > 2 && strcmp(arguments[2], "joined") == 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 4096)) {
        perror("broadcaster");
        return 1;
    }
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int n = 0; n < ready; n++) {
            Connection *connection = events[n].data.ptr;
            if (connection == NULL) {
                accept_all(listening, epoll);
            } else if (!readable(connection)) {
                leave_all(connection);
                close(connection->fd);
                free(connection->kept);
                free(connection);
            }
        }
        end_turn();
    }
}
