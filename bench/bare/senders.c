/* Senders for `bench.sends`: many WebSocket connections in one process on epoll, so that the load costs little.
 *
 * Each connection sends a message and, when it is acknowledged, the next one; or, with a rate, all of them together send
 * so many a second whatever is acknowledged, and a message's time runs from when it was due, not from when it was sent.
 *
 *     senders PORT PATH SECONDS RATE ROOM TEXT_BYTES < tokens
 *
 * One connection for each line of the standard input up to an empty one, which is its token. RATE 0 waits for
 * acknowledgements. Written out is `ready` when all are connected, and in the end a line of JSON: what was acknowledged,
 * how long it took in microseconds, and this process's CPU time. The connections stay until the standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, IN_BYTES = 65536, WAITING = 4096, HEAD = 8 };

struct sender {
    int fd;
    size_t held;                /* bytes of `in` that are no whole frame yet */
    uint32_t first, last;       /* places in `due` of the messages that are not acknowledged */
    double due[WAITING];        /* when each was to be sent */
    unsigned char in[IN_BYTES];
};

static struct sender *senders[MOST];
static unsigned char *message;
static size_t message_bytes;
static uint32_t *times_us;
static size_t times, times_room, failures, unsent;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double cpu_s(const struct rusage *used)
{
    return used->ru_utime.tv_sec + used->ru_stime.tv_sec + (used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "senders: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A masked text frame, as clients send them. */
static void make_message(const char *room, size_t text_bytes)
{
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x11, 0x7e};
    char *text = malloc(text_bytes + 1), *body = malloc(text_bytes + 256);
    memset(text, 'x', text_bytes);
    text[text_bytes] = 0;
    int size = sprintf(body, "{\"action\":\"send\",\"room\":\"%s\",\"text\":\"%s\",\"ref\":\"r\"}", room, text);
    size_t head = size < 126 ? 2 : 4;
    message = malloc(size + HEAD);
    message[0] = 0x81;
    if (size < 126) {
        message[1] = 0x80 | size;
    } else {
        message[1] = 0x80 | 126;
        message[2] = size >> 8;
        message[3] = size & 255;
    }
    memcpy(message + head, mask, 4);
    for (int n = 0; n < size; n++)
        message[head + 4 + n] = body[n] ^ mask[n & 3];
    message_bytes = head + 4 + size;
    free(text);
    free(body);
}

static struct sender *join(int port, const char *path, const char *token)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sender *one = calloc(1, sizeof *one);
    int yes = 1;
    size_t got = 0, asked = strlen(token) + strlen(path) + 512;
    char *ask = malloc(asked);
    if (one == NULL || ask == NULL)
        die("no memory");
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&at, sizeof at) < 0)
        die("connect");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    int size = snprintf(ask, asked,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                        "Authorization: Bearer %s\r\n\r\n",
                        path, port, token);
    if (write(one->fd, ask, size) != size)
        die("handshake");
    free(ask);
    while (memmem(one->in, got, "\r\n\r\n", 4) == NULL) {
        ssize_t more = read(one->fd, one->in + got, IN_BYTES - got);
        if (more <= 0)
            die("no answer to a handshake");
        got += more;
    }
    if (memcmp(one->in, "HTTP/1.1 101", 12) != 0) {
        fprintf(stderr, "senders: refused: %.*s\n", (int)got, one->in);
        exit(1);
    }
    fcntl(one->fd, F_SETFL, O_NONBLOCK);
    return one;
}

/* Send one message that was due then; False when there is no room for it. */
static int send_one(struct sender *one, double due)
{
    if (one->last - one->first == WAITING)
        return 0;
    ssize_t sent = write(one->fd, message, message_bytes);
    if (sent != (ssize_t)message_bytes) {
        if (sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            die("a message was not sent as a whole");
        return 0;
    }
    one->due[one->last++ % WAITING] = due;
    return 1;
}

static void acknowledged(struct sender *one, double at)
{
    if (one->first == one->last)
        return;
    if (times == times_room) {
        times_room = times_room ? 2 * times_room : 1 << 20;
        times_us = realloc(times_us, times_room * sizeof *times_us);
        if (times_us == NULL)
            die("no memory");
    }
    times_us[times++] = (uint32_t)((at - one->due[one->first++ % WAITING]) * 1e6);
}

/* Take the frames that came; how many of them were answers. */
static int take(struct sender *one)
{
    int answers = 0;
    ssize_t more = read(one->fd, one->in + one->held, IN_BYTES - one->held);
    if (more == 0 || (more < 0 && errno != EAGAIN))
        die("a connection ended");
    if (more < 0)
        return 0;
    size_t end = one->held + more, at = 0;
    double when = now();
    while (end - at >= 2) {
        unsigned char *frame = one->in + at;
        size_t size = frame[1] & 127, head = size < 126 ? 2 : size == 126 ? 4 : 10;
        if (end - at < head)
            break;
        if (size == 126)
            size = frame[2] << 8 | frame[3];
        else if (size == 127) {
            size = 0;
            for (int n = 2; n < 10; n++)
                size = size << 8 | frame[n];
        }
        if (end - at < head + size)
            break;
        if ((frame[0] & 15) == 9) {
            static const unsigned char pong[6] = {0x8a, 0x80};
            if (write(one->fd, pong, sizeof pong) != sizeof pong)
                die("pong");
        } else if ((frame[0] & 15) == 8) {
            errno = 0;
            die("a connection was closed");
        } else if (memmem(frame + head, size, "\"type\":\"ok\"", 11) != NULL) {
            acknowledged(one, when);
            answers++;
        } else if (memmem(frame + head, size, "\"type\":\"error\"", 14) != NULL) {
            if (!failures++)
                fprintf(stderr, "senders: %.*s\n", (int)size, frame + head);
            one->first++;
            answers++;
        }
        at += head + size;
    }
    one->held = end - at;
    memmove(one->in, one->in + at, one->held);
    return answers;
}

static int by_size(const void *one, const void *other)
{
    uint32_t first = *(const uint32_t *)one, second = *(const uint32_t *)other;
    return first < second ? -1 : first > second;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: senders PORT PATH SECONDS RATE ROOM TEXT_BYTES < tokens\n");
        return 2;
    }
    int port = atoi(argv[1]), count = 0, poll = epoll_create1(0);
    double seconds = atof(argv[3]), rate = atof(argv[4]);
    static char line[65536];
    make_message(argv[5], atoi(argv[6]));
    while (count < MOST && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\r\n")] = 0;
        if (line[0] == 0)
            break;
        struct sender *one = senders[count++] = join(port, argv[2], line);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, one->fd, &event) < 0)
            die("epoll");
    }
    if (count == 0) {
        fprintf(stderr, "senders: expected a token on each line of the standard input, got none\n");
        return 2;
    }
    struct rusage before, used;
    getrusage(RUSAGE_SELF, &before);
    puts("ready");
    fflush(stdout);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event events[256], ringing = {.events = EPOLLIN, .data.ptr = NULL};
    if (timer < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, timer, &ringing) < 0)
        die("timerfd");
    double began = now(), ends = began + seconds, next = began;
    size_t due = 0, waiting = 0;
    if (rate == 0)
        for (; waiting < (size_t)count; waiting++)
            send_one(senders[waiting], began);
    for (;;) {
        double at = now();
        if (rate > 0)
            while (next <= at && next < ends) {
                if (send_one(senders[due % count], next))
                    waiting++;
                else
                    unsent++;
                next = began + ++due / rate;
            }
        if ((at >= ends && waiting == 0) || at >= ends + 30)
            break;
        if (rate > 0 && at < ends) {
            struct itimerspec when = {.it_value.tv_sec = (time_t)next, .it_value.tv_nsec = (long)((next - (time_t)next) * 1e9)};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        }
        int ready = epoll_wait(poll, events, 256, 10);
        for (int n = 0; n < ready; n++) {
            struct sender *one = events[n].data.ptr;
            uint64_t rung;
            if (one == NULL) {
                if (read(timer, &rung, sizeof rung) < 0 && errno != EAGAIN)
                    die("timer");
                continue;
            }
            int answers = take(one);
            waiting -= answers;
            if (rate == 0 && now() < ends)
                while (answers--)
                    waiting += send_one(one, now());
        }
    }
    getrusage(RUSAGE_SELF, &used);
    qsort(times_us, times, sizeof *times_us, by_size);
    printf("{\"acks\":%zu,\"failures\":%zu,\"unsent\":%zu,\"unanswered\":%zu,\"seconds\":%.3f,"
           "\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"cpu_s\":%.3f}\n",
           times, failures, unsent, waiting, seconds, times ? times_us[times / 2] : 0,
           times ? times_us[times * 99 / 100] : 0, times ? times_us[times - 1] : 0,
           cpu_s(&used) - cpu_s(&before));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        ;
    return failures || waiting ? 1 : 0;
}
