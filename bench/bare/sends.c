/* One send() on each of some sockets, and nothing else: what the end of a turn is compared with. */
#include <stddef.h>
#include <sys/socket.h>

/* On how many of them not all was sent. */
int send_all(const int *sockets, int count, const char *data, size_t size) {
    int wrong = 0;
    for (int n = 0; n < count; n++) {
        wrong += send(sockets[n], data, size, MSG_NOSIGNAL) != (ssize_t)size;
    }
    return wrong;
}
