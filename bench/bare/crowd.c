/* Many idle WebSocket clients in one process, cheap enough to stand beside the server that they are counted at.
 *
 * crowd PORT SOURCE TOKENS: connects to 127.0.0.1:PORT from the address SOURCE and others that differ in the second
 * number, one connection for each line of the file TOKENS, says `sync` on each, answers pings, and counts text frames. It
 * is told what to do on its standard input, a line each, and says how far it is on its standard output, a line of JSON
 * twice a second and after every order, of which it tells the number:
 *
 *   open N AT_ONCE   have N connections, at most AT_ONCE of them under way at a time; who is refused comes again later
 *   storm AT_ONCE    break all connections and open them again
 *   count BYTES      count text frames of at least BYTES from now on
 *   quit
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
#include <time.h>
#include <unistd.h>

enum phase { NONE, WAITING, CONNECTING, ASKED, SYNCING, LIVE };

struct client {
    int fd;
    uint8_t phase;
    uint8_t tries;
    uint16_t kept;      /* how many bytes of an unfinished head or short frame are in `rest` */
    uint64_t skip;      /* bytes of a frame's payload that are still to come */
    uint64_t due;       /* when it is to be looked at: the end of its patience, or of its rest; nanoseconds */
    char *rest;
};

/* Over so many addresses a crowd is spread: the more ports of one are taken, the longer the kernel looks for a free one,
 * which for thousands takes more of the machine than all else that happens at it. */
#define ADDRESSES 64

#define KEPT 4096
#define READ (1 << 18)
#define PATIENCE 30000000000ull /* for each step: to be connected, to be answered, to have what was missed */

static struct client *clients;
static char **tokens;
static uint32_t known, wanted, at_once, under_way, live, cursor, orders;
static uint64_t refused, broken, late, closed, errors, frames, bytes, last_frame, least, handshakes, began, all_live;
static int poller;
static struct sockaddr_in server, source;
static char buffer[READ + KEPT];

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000ull + (uint64_t)at.tv_nsec;
}

static void say(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"orders\":%u,\"wanted\":%u,\"live\":%u,\"under_way\":%u,\"handshakes\":%lu,\"refused\":%lu,\"broken\":%lu,\"late\":%lu,"
           "\"closed\":%lu,\"errors\":%lu,\"frames\":%lu,\"bytes\":%lu,\"last_frame_ns\":%lu,\"took_ns\":%lu,"
           "\"cpu_s\":%.3f}\n",
           orders, wanted, live, under_way, handshakes, refused, broken, late, closed, errors, frames, bytes, last_frame,
           all_live ? all_live - began : 0,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
               + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

static void let_go(struct client *client, int harshly) {
    if (client->phase == LIVE)
        live--;
    else if (client->phase >= CONNECTING)
        under_way--;
    if (client->fd >= 0) {
        if (harshly) {
            struct linger none = {1, 0};
            setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
        }
        close(client->fd);
    }
    free(client->rest);
    client->rest = NULL;
    client->fd = -1;
    client->kept = 0;
    client->skip = 0;
    client->phase = NONE;
}

/* Come again after a while: a random part of a time that doubles, as clients do. */
static void rest(struct client *client) {
    let_go(client, 1);
    uint64_t longest = 500000000ull << (client->tries < 6 ? client->tries : 6);
    if (client->tries < 200)
        client->tries++;
    client->due = now() + 50000000ull + (uint64_t)((double)longest * drand48());
    client->phase = WAITING;
}

static void connect_one(struct client *client) {
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        perror("socket");
        exit(1);
    }
    int one = 1;
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    under_way++;
    client->phase = CONNECTING;
    client->due = now() + PATIENCE;
    struct sockaddr_in from = source;
    from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + ((uint32_t)(client - clients) % ADDRESSES << 16));
    if (bind(client->fd, (struct sockaddr *)&from, sizeof from) < 0
        || (connect(client->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)) {
        broken++;
        rest(client);
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)(client - clients)};
    epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event);
}

/* A client's frame, masked with zeros: at most 125 bytes. */
static void send_frame(struct client *client, uint8_t opcode, const char *text, size_t size) {
    char frame[131] = {(char)(0x80 | opcode), (char)(0x80 | size), 0, 0, 0, 0};
    memcpy(frame + 6, text, size);
    if (send(client->fd, frame, size + 6, MSG_NOSIGNAL) != (ssize_t)(size + 6)) {
        broken++;
        rest(client);
    }
}

static void ask(struct client *client) {
    char request[4096];
    int size = snprintf(request, sizeof request,
                        "GET /ws HTTP/1.1\r\nHost: hubbub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Authorization: Bearer %s\r\n\r\n",
                        tokens[client - clients]);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(client - clients)};
    epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event);
    client->phase = ASKED;
    client->due = now() + PATIENCE;
    if (size >= (int)sizeof request || send(client->fd, request, (size_t)size, MSG_NOSIGNAL) != size) {
        broken++;
        rest(client);
    }
}

/* The answer to the handshake; how many bytes of it were used, 0 while it is not complete. */
static size_t answered(struct client *client, char *data, size_t size) {
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12) != 0) {
        if (refused++ == 0)
            fprintf(stderr, "refused: %.*s\n", (int)size, data);
        char *after = memmem(data, size, "Retry-After: ", 13);
        uint64_t seconds = after ? strtoul(after + 13, NULL, 10) : 0;
        rest(client);
        if (seconds)
            client->due = now() + (uint64_t)(((double)seconds + drand48()) * 1e9);
        return 0;
    }
    handshakes++;
    client->phase = SYNCING;
    client->due = now() + PATIENCE;
    static const char sync[] = "{\"action\":\"sync\",\"ref\":\"sync\"}";
    send_frame(client, 1, sync, sizeof sync - 1);
    return (size_t)(end + 4 - data);
}

static void text(struct client *client, const char *start, uint64_t size) {
    if (client->phase == SYNCING) {
        if (memcmp(start, "{\"type\":\"ok\"", 12) == 0) {
            client->phase = LIVE;
            client->tries = 0;
            under_way--;
            live++;
        } else if (memcmp(start, "{\"type\":\"err", 12) == 0) {
            if (errors++ == 0)
                fprintf(stderr, "sync was answered by %.*s\n", (int)(size > 500 ? 500 : size), start);
            rest(client);
        }
    } else if (size >= least) {
        frames++;
        bytes += size;
        last_frame = now();
    }
}

static void take(struct client *client, char *data, size_t size) {
    if (client->phase == ASKED) {
        size_t used = answered(client, data, size);
        if (client->phase == SYNCING) {
            data += used;
            size -= used;
        }
    }
    while (client->phase >= SYNCING && size > 0) {
        if (client->skip) {
            size_t skipped = client->skip < size ? client->skip : size;
            client->skip -= skipped;
            data += skipped;
            size -= skipped;
            continue;
        }
        if (size < 2)
            break;
        uint64_t length = (uint8_t)data[1] & 0x7F;
        size_t head = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (size < head)
            break;
        if (length == 126)
            length = (uint64_t)(uint8_t)data[2] << 8 | (uint8_t)data[3];
        else if (length == 127) {
            length = 0;
            for (int i = 2; i < 10; i++)
                length = length << 8 | (uint8_t)data[i];
        }
        if (size < head + (length < 64 ? length : 64))
            break; /* what kind of frame it is shows in its first bytes */
        uint8_t opcode = (uint8_t)data[0] & 0x0F;
        if (opcode == 1 && length >= 12)
            text(client, data + head, length < size - head ? length : size - head);
        else if (opcode == 9)
            send_frame(client, 10, data + head, length < 125 ? length : 125);
        else if (opcode == 8) {
            if (closed++ == 0)
                fprintf(stderr, "closed with %d %.*s\n", ((uint8_t)data[head] << 8) | (uint8_t)data[head + 1],
                        (int)(length > 2 ? length - 2 : 0), data + head + 2);
            rest(client);
        }
        if (client->phase < SYNCING)
            return;
        data += head;
        size -= head;
        client->skip = length;
        if (client->skip == 0)
            continue;
    }
    if (client->phase < ASKED || size == 0) {
        client->kept = 0;
        return;
    }
    if (size > KEPT) {
        broken++;
        rest(client);
        return;
    }
    if (client->rest == NULL)
        client->rest = malloc(KEPT);
    memmove(client->rest, data, size);
    client->kept = (uint16_t)size;
}

static void readable(struct client *client) {
    size_t kept = client->kept;
    if (kept)
        memcpy(buffer, client->rest, kept);
    ssize_t got = recv(client->fd, buffer + kept, READ, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        broken++;
        rest(client);
        return;
    }
    client->kept = 0;
    take(client, buffer, kept + (size_t)got);
    if (client->kept == 0 && client->rest != NULL) {
        free(client->rest);
        client->rest = NULL;
    }
}

/* Connect those whose turn has come, and give up those who wait for too long; some of all at a time. */
static void look(uint64_t at) {
    for (uint32_t looked = 0; looked < known; looked++) {
        if (cursor >= known)
            cursor = 0;
        struct client *client = &clients[cursor++];
        if (client - clients >= wanted)
            continue;
        if (client->phase >= CONNECTING && client->phase < LIVE && client->due <= at) {
            late++;
            rest(client);
        }
        if (under_way < at_once && (client->phase == NONE || (client->phase == WAITING && client->due <= at)))
            connect_one(client);
    }
}

static int obey(char *line) {
    unsigned first = 0, second = 0;
    orders++;
    if (sscanf(line, "open %u %u", &first, &second) == 2) {
        wanted = first < known ? first : known;
        at_once = second;
        refused = broken = late = closed = errors = handshakes = 0;
    } else if (sscanf(line, "storm %u", &first) == 1) {
        for (uint32_t i = 0; i < wanted; i++)
            if (clients[i].phase != NONE)
                let_go(&clients[i], 1);
        at_once = first;
        refused = broken = late = closed = errors = handshakes = 0;
    } else if (sscanf(line, "count %u", &first) == 1) {
        least = first;
        frames = bytes = last_frame = 0;
        say();
        return 1;
    } else
        return 0;
    began = now();
    all_live = 0;
    say();
    return 1;
}

static void read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, file)) > 0) {
        if (line[size - 1] == '\n')
            line[size - 1] = 0;
        tokens = realloc(tokens, (known + 1) * sizeof *tokens);
        tokens[known++] = strdup(line);
    }
    free(line);
    fclose(file);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "expected PORT SOURCE TOKENS, got %d arguments\n", count - 1);
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    source = (struct sockaddr_in){.sin_family = AF_INET};
    if (inet_pton(AF_INET, arguments[2], &source.sin_addr) != 1) {
        fprintf(stderr, "expected an IPv4 address, got %s\n", arguments[2]);
        return 2;
    }
    read_tokens(arguments[3]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max != RLIM_INFINITY && files.rlim_max < known + 16) {
        fprintf(stderr, "expected to be allowed %u open files, got %lu\n", known + 16, (unsigned long)files.rlim_max);
        return 2;
    }
    clients = calloc(known ? known : 1, sizeof *clients);
    for (uint32_t i = 0; i < known; i++)
        clients[i].fd = -1;
    srand48(getpid());
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event orders = {.events = EPOLLIN, .data.u32 = UINT32_MAX}, events[1024];
    fcntl(0, F_SETFL, O_NONBLOCK);
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &orders);
    uint64_t looked = 0, said = 0;
    char line[256];
    size_t filled = 0;
    for (;;) {
        int ready = epoll_wait(poller, events, 1024, under_way || live < wanted ? 10 : 500);
        for (int i = 0; i < ready; i++) {
            uint32_t which = events[i].data.u32;
            if (which == UINT32_MAX) {
                ssize_t got = read(0, line + filled, sizeof line - 1 - filled);
                if (got == 0)
                    return 0; /* whoever told it what to do is gone */
                filled += got > 0 ? (size_t)got : 0;
                char *end;
                while ((end = memchr(line, '\n', filled)) != NULL) {
                    *end = 0;
                    if (strcmp(line, "quit") == 0)
                        return 0;
                    if (!obey(line)) {
                        fprintf(stderr, "expected open, storm, count or quit, got %s\n", line);
                        return 2;
                    }
                    filled -= (size_t)(end + 1 - line);
                    memmove(line, end + 1, filled);
                }
                continue;
            }
            struct client *client = &clients[which];
            if (client->phase == CONNECTING) {
                int failure = 0;
                socklen_t size = sizeof failure;
                getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
                if (failure) {
                    broken++;
                    rest(client);
                } else
                    ask(client);
            } else if (client->phase >= ASKED)
                readable(client);
        }
        uint64_t at = now();
        if (at - looked >= 10000000ull) {
            looked = at;
            if (live < wanted)
                look(at);
        }
        if (live == wanted && wanted && !all_live) {
            all_live = at;
            say();
        }
        if (at - said >= 500000000ull) {
            said = at;
            say();
        }
    }
}
