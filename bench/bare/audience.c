/* Listeners and publishers that only count, so that the load costs little beside the server: one epoll loop.
 *
 *     audience PORT PATH STALLED_MS
 *
 * It is told what to do on its input, a line at a time, and answers each with a line:
 *
 *     open COUNT REPLIES   COUNT lines follow, `TOKEN<tab>TEXT`: connections that show the token, if it is not `-`, send
 *                          the text, if it is not empty, and wait for REPLIES texts. Answer: `opened`.
 *     run COUNT IN_FLIGHT LEAST PUBLISHERS
 *                          PUBLISHERS lines follow, `CONNECTION<tab>LISTENERS<tab>TEXT`: each sends its text COUNT times,
 *                          and no more than IN_FLIGHT of them that not all its listeners have. A text of at least LEAST
 *                          bytes is a delivery, of the publisher whose number it has in it, as in `~003~`, or of the only
 *                          one. Answer: `done NANOSECONDS DELIVERIES CPU_NANOSECONDS`, or `stalled DELIVERIES` when
 *                          nothing came for STALLED_MS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PUBLISHERS 1000
#define MAX_CONNECTIONS 200000
#define EVENTS 1024
#define AT_ONCE 64

typedef struct {
    int publisher;
    long texts; /* of its that came in this run */
} Count;

typedef struct {
    int fd;
    int is_open; /* whether 101 came */
    Count *counts;
    int publishers; /* how many counts that is */
    long texts;
    char *text; /* to be sent when it is open; NULL for none */
    char *kept; /* what came of a frame or of the answer; NULL for nothing */
    size_t size;
} Connection;

typedef struct {
    int connection;
    long listeners, sent, arrived; /* what has arrived is what all listeners have */
    long *have;                    /* how many listeners have its text, by the text's number */
    char *frame;
    size_t size;
} Publisher;

static Connection connections[MAX_CONNECTIONS];
static int opened;
static Publisher publishers[MAX_PUBLISHERS];
static int publishing;
static long deliveries;
static size_t least = SIZE_MAX;
static int epoll;
static const char *path;
static int port;
static int stalled_ms;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *needed(void *memory) {
    if (memory == NULL) {
        fail("audience");
    }
    return memory;
}

static long long now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
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
            fail("send");
        }
    }
}

/* A text frame as a client sends it, masked with zeros, which change nothing. */
static char *framed(const char *text, size_t *size) {
    size_t length = strlen(text), head = length < 126 ? 2 : 4;
    char *frame = needed(calloc(1, head + 4 + length));
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | (length < 126 ? length : 126));
    if (length >= 126) {
        frame[2] = (char)(length >> 8);
        frame[3] = (char)length;
    }
    memcpy(frame + head + 4, text, length);
    *size = head + 4 + length;
    return frame;
}

static void count_delivery(Connection *connection, int who) {
    int n = 0;
    while (n < connection->publishers && connection->counts[n].publisher != who) {
        n++;
    }
    if (n == connection->publishers) {
        connection->counts = needed(realloc(connection->counts, ++connection->publishers * sizeof(Count)));
        connection->counts[n] = (Count){who, 0};
    }
    Publisher *publisher = &publishers[who];
    long number = connection->counts[n].texts++;
    if (number >= publisher->sent) {
        fprintf(stderr, "expected no text twice, got more of publisher %d than it sent\n", who);
        exit(1);
    }
    if (++publisher->have[number] == publisher->listeners) {
        publisher->arrived = number + 1;
    }
    deliveries++;
}

static void count_text(Connection *connection, const char *payload, size_t size) {
    if (size < least) {
        return;
    }
    int who = 0;
    if (publishing > 1) {
        const char *mark = memmem(payload, size, "~", 1);
        if (mark == NULL || mark + 4 >= payload + size) {
            return;
        }
        who = (mark[1] - '0') * 100 + (mark[2] - '0') * 10 + (mark[3] - '0');
        if (who < 0 || who >= publishing) {
            return;
        }
    }
    count_delivery(connection, who);
}

/* Take what is whole; how many bytes that was. */
static size_t take(Connection *connection, char *data, size_t size) {
    size_t at = 0;
    if (!connection->is_open) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end == NULL) {
            return 0;
        }
        if (strncmp(data, "HTTP/1.1 101", 12) != 0) {
            fprintf(stderr, "expected 101, got %.60s\n", data);
            exit(1);
        }
        connection->is_open = 1;
        at = end + 4 - data;
        if (connection->text != NULL) {
            size_t length;
            char *frame = framed(connection->text, &length);
            write_all(connection->fd, frame, length);
            free(frame);
        }
    }
    while (size - at >= 2) {
        uint8_t *head = (uint8_t *)data + at;
        size_t payload = head[1], begin = 2;
        if (payload == 126) {
            if (size - at < 4) {
                break;
            }
            payload = (size_t)head[2] << 8 | head[3];
            begin = 4;
        } else if (payload == 127) {
            if (size - at < 10) {
                break;
            }
            payload = 0;
            for (int n = 2; n < 10; n++) {
                payload = payload << 8 | head[n];
            }
            begin = 10;
        }
        if (size - at < begin + payload) {
            break;
        }
        if ((head[0] & 15) == 1) {
            connection->texts++;
            count_text(connection, (char *)head + begin, payload);
        } else if ((head[0] & 15) == 9) {
            char pong[131] = {(char)0x8A, (char)(0x80 | payload)};
            memcpy(pong + 6, head + begin, payload);
            write_all(connection->fd, pong, 6 + payload);
        } else if ((head[0] & 15) == 8) {
            fprintf(stderr, "expected no CLOSE, got %d\n", payload > 1 ? head[begin] << 8 | head[begin + 1] : 1005);
            exit(1);
        }
        at += begin + payload;
    }
    return at;
}

static void readable(Connection *connection) {
    static char buffer[1 << 20];
    size_t kept = connection->size;
    if (kept) {
        memcpy(buffer, connection->kept, kept);
    }
    ssize_t got = recv(connection->fd, buffer + kept, sizeof buffer - kept, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        fprintf(stderr, "expected the server to stay, and it has closed a connection\n");
        exit(1);
    }
    size_t taken = take(connection, buffer, kept + got);
    connection->size = kept + got - taken;
    if (connection->size) {
        connection->kept = needed(realloc(connection->kept, connection->size));
        memcpy(connection->kept, buffer + taken, connection->size);
    }
}

/* Wait for what comes; 0 when nothing has for too long. */
static int turn(void) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, stalled_ms);
    for (int n = 0; n < ready; n++) {
        readable(&connections[events[n].data.u32]);
    }
    return ready != 0;
}

static char *line(void) {
    static char *text;
    static size_t space;
    ssize_t size = getline(&text, &space, stdin);
    if (size < 0) {
        exit(0);
    }
    if (size && text[size - 1] == '\n') {
        text[size - 1] = 0;
    }
    return text;
}

static void connect_one(const char *token, const char *text) {
    if (opened == MAX_CONNECTIONS) {
        fprintf(stderr, "expected at most %d connections\n", MAX_CONNECTIONS);
        exit(1);
    }
    Connection *connection = &connections[opened];
    /* Each address of the loopback network has ports of its own. */
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(opened / 20000))};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(connection->fd, (struct sockaddr *)&here, sizeof here) ||
        connect(connection->fd, (struct sockaddr *)&there, sizeof there)) {
        fail("connect");
    }
    char *head;
    int size = asprintf(&head,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s%s%s\r\n",
                        path, port, *token == '-' ? "" : "Authorization: Bearer ", *token == '-' ? "" : token,
                        *token == '-' ? "" : "\r\n");
    write_all(connection->fd, head, size);
    free(head);
    connection->text = *text ? strdup(text) : NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)opened++};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

static void open_all(int count, long replies) {
    int first = opened, ready = opened;
    for (int n = 0; n < count; n++) {
        char *token = line(), *text = strchr(token, '\t');
        if (text == NULL) {
            fprintf(stderr, "expected TOKEN<tab>TEXT, got %s\n", token);
            exit(2);
        }
        *text++ = 0;
        connect_one(token, text);
        while (opened - ready >= AT_ONCE || (n == count - 1 && ready < opened)) {
            while (ready < opened && connections[ready].is_open && connections[ready].texts >= replies) {
                ready++;
            }
            if ((opened - ready >= AT_ONCE || n == count - 1) && ready < opened && !turn()) {
                fprintf(stderr, "expected %d to be open, %d are\n", opened - first, ready - first);
                exit(1);
            }
        }
    }
    printf("opened\n");
}

static void run(long count, long in_flight) {
    deliveries = 0;
    for (int n = 0; n < opened; n++) {
        connections[n].publishers = 0;
    }
    for (int n = 0; n < publishing; n++) {
        char *text = line();
        Publisher *publisher = &publishers[n];
        free(publisher->frame);
        free(publisher->have);
        *publisher = (Publisher){.connection = (int)strtol(text, &text, 10)};
        publisher->listeners = strtol(text, &text, 10);
        publisher->have = needed(calloc(count, sizeof *publisher->have));
        publisher->frame = framed(text + 1, &publisher->size);
    }
    long long began = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int left = publishing; left;) {
        left = 0;
        for (int n = 0; n < publishing; n++) {
            Publisher *publisher = &publishers[n];
            long may = publisher->arrived + in_flight;
            for (; publisher->sent < count && publisher->sent < may; publisher->sent++) {
                write_all(connections[publisher->connection].fd, publisher->frame, publisher->size);
            }
            left += publisher->arrived < count;
        }
        if (left && !turn()) {
            printf("stalled %ld\n", deliveries);
            return;
        }
    }
    printf("done %lld %ld %lld\n", now_ns(CLOCK_MONOTONIC) - began, deliveries,
           now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: audience PORT PATH STALLED_MS\n");
        return 2;
    }
    port = atoi(arguments[1]);
    path = arguments[2];
    stalled_ms = atoi(arguments[3]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    for (;;) {
        char *said = line();
        long first, second, third;
        int fourth;
        if (sscanf(said, "open %ld %ld", &first, &second) == 2) {
            open_all((int)first, second);
        } else if (sscanf(said, "run %ld %ld %ld %d", &first, &second, &third, &fourth) == 4 && fourth > 0 &&
                   fourth <= MAX_PUBLISHERS) {
            least = (size_t)third;
            publishing = fourth;
            run(first, second);
        } else {
            fprintf(stderr, "expected open or run, got %s\n", said);
            return 2;
        }
        fflush(stdout);
    }
}
