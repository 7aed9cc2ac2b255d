/* The beginning of a turn in C: every socket that has something is read, past its transport, in one go.
 *
 * A set of sockets is an epoll of its own, which a loop watches like a socket. What many of them have is read without the
 * interpreter's lock, which a transport lets go of and wants back for each of them: beside a busy thread, such as the
 * one that commits messages, that is a wait for each message. `intake.py` says what is promised. Linux only.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_intake.h"

#ifdef __linux__

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* So many sockets are read in one go at most. */
#define SOCKETS_IN_A_GO 256

/* For fewer of them than this the interpreter's lock is kept: to get it back may take longer than to read. */
#define FEW_SOCKETS 8

/* What one of them brings at most, and how much all of a go have room for. */
#define BYTES_OF_ONE (64 * 1024)
#define BYTES_IN_A_GO (512 * 1024)

typedef struct {
    int fd;
    int failed; /* errno; 0 for none */
    ssize_t size;
    Py_ssize_t place; /* in the buffer */
    PyObject *owner;  /* held while a go lasts */
} Got;

typedef struct {
    PyObject_HEAD
    int epoll;
    char reading;      /* whether a go is under way */
    Py_ssize_t count;  /* of sockets */
    Py_ssize_t room;   /* of `owners` */
    PyObject **owners; /* by the number of their socket; NULL for none */
    char *buffer;
    struct epoll_event events[SOCKETS_IN_A_GO];
    Got got[SOCKETS_IN_A_GO];
} Intake;

static PyObject *intake_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names)) {
        return NULL;
    }
    Intake *self = (Intake *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    self->buffer = PyMem_RawMalloc(BYTES_IN_A_GO);
    if (self->buffer == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static int intake_traverse(Intake *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t fd = 0; fd < self->room; fd++) {
        Py_VISIT(self->owners[fd]);
    }
    return 0;
}

static int intake_clear(Intake *self) {
    for (Py_ssize_t fd = 0; fd < self->room; fd++) {
        Py_CLEAR(self->owners[fd]);
    }
    self->count = 0;
    return 0;
}

static void intake_dealloc(Intake *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    intake_clear(self);
    PyMem_RawFree(self->owners);
    PyMem_RawFree(self->buffer);
    if (self->epoll >= 0) {
        close(self->epoll);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static Py_ssize_t intake_length(Intake *self) { return self->count; }

/* Nobody's any more; whether it was the owner's. */
static int let_go(Intake *self, int fd, PyObject *owner) {
    if (fd < 0 || fd >= self->room || self->owners[fd] == NULL || self->owners[fd] != owner) {
        return 0;
    }
    self->count--;
    Py_CLEAR(self->owners[fd]);
    return 1;
}

static int grow(Intake *self, int fd) {
    Py_ssize_t room = self->room ? self->room : 64;
    while (room <= fd) {
        room *= 2;
    }
    PyObject **owners = PyMem_RawRealloc(self->owners, room * sizeof(PyObject *));
    if (owners == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(owners + self->room, 0, (room - self->room) * sizeof(PyObject *));
    self->owners = owners;
    self->room = room;
    return 0;
}

static PyObject *intake_add(Intake *self, PyObject *args) {
    int fd;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "iO", &fd, &owner)) {
        return NULL;
    }
    if (fd < 0) {
        return PyErr_Format(PyExc_ValueError, "expected the number of a socket, got %d", fd);
    }
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    int failed = epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event);
    if (failed && errno == EEXIST) { /* under the same number, one that is closed here and that a child still has */
        failed = epoll_ctl(self->epoll, EPOLL_CTL_MOD, fd, &event);
    }
    if (failed) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (fd >= self->room && grow(self, fd) < 0) {
        epoll_ctl(self->epoll, EPOLL_CTL_DEL, fd, &event);
        return NULL;
    }
    if (self->owners[fd] == NULL) {
        self->count++;
    }
    Py_INCREF(owner);
    Py_XSETREF(self->owners[fd], owner);
    Py_RETURN_NONE;
}

static PyObject *intake_remove(Intake *self, PyObject *args) {
    int fd;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "iO", &fd, &owner)) {
        return NULL;
    }
    if (!let_go(self, fd, owner)) {
        Py_RETURN_FALSE;
    }
    struct epoll_event none = {0};
    epoll_ctl(self->epoll, EPOLL_CTL_DEL, fd, &none); /* closed already is as good */
    Py_RETURN_TRUE;
}

/* Take a mask of four bytes off, in place. */
static void unmask(char *data, Py_ssize_t size, const char *mask) {
    uint32_t four;
    memcpy(&four, mask, 4);
    uint64_t eight = ((uint64_t)four << 32) | four, word;
    Py_ssize_t n = 0;
    for (; n + 8 <= size; n += 8) {
        memcpy(&word, data + n, 8);
        word ^= eight;
        memcpy(data + n, &word, 8);
    }
    for (; n < size; n++) {
        data[n] ^= mask[n & 3];
    }
}

/* The text of the one frame that the data is: masked, whole, unfragmented, uncompressed, up to `longest` bytes (RFC 6455,
 * section 5.2). A new reference; None for anything else, be it right or wrong; NULL with an exception. Spoils the data. */
static PyObject *whole_text(char *data, Py_ssize_t size, Py_ssize_t longest) {
    const unsigned char *head = (const unsigned char *)data;
    if (size < 6 || head[0] != 0x81 || head[1] < 0x80 || head[1] == 0xFF) {
        Py_RETURN_NONE;
    }
    Py_ssize_t length = head[1] & 0x7F, before = 6;
    if (length == 126) {
        if (size < 8) {
            Py_RETURN_NONE;
        }
        length = head[2] << 8 | head[3];
        before = 8;
        if (length < 126) {
            Py_RETURN_NONE;
        }
    }
    if (length > longest || size != before + length) {
        Py_RETURN_NONE;
    }
    unmask(data + before, length, data + before - 4);
    PyObject *text = PyUnicode_DecodeUTF8(data + before, length, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return text;
}

/* Whether the data is one pong without payload, as what the silent send nearly always is (RFC 6455, section 5.5.3). */
static int is_pong(const char *data, Py_ssize_t size) { return size == 6 && !memcmp(data, "\x8A\x80", 2); }

/* What a socket has brought, as it is told; NULL with an exception. */
static PyObject *told(Intake *self, Got *got, Py_ssize_t longest) {
    if (got->size <= 0) {
        return PyTuple_Pack(3, got->owner, Py_None, Py_None);
    }
    char *data = self->buffer + got->place;
    PyObject *bytes = PyBytes_FromStringAndSize(data, got->size);
    PyObject *text = NULL;
    if (bytes != NULL) {
        text = is_pong(data, got->size) ? Py_NewRef(Py_False) : whole_text(data, got->size, longest);
    }
    PyObject *entry = text ? PyTuple_Pack(3, got->owner, bytes, text) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(bytes);
    return entry;
}

/* Read what so many sockets have that are ready; returns how many of them there was room for. */
static int read_all(Intake *self, int ready) {
    Py_ssize_t place = 0;
    for (int n = 0; n < ready; n++) {
        if (BYTES_IN_A_GO - place < BYTES_OF_ONE) {
            return n; /* the others still have it in the next turn */
        }
        Got *got = &self->got[n];
        got->fd = self->events[n].data.fd;
        got->place = place;
        got->size = recv(got->fd, self->buffer + place, BYTES_OF_ONE, MSG_DONTWAIT);
        got->failed = got->size < 0 ? errno : 0;
        if (got->size > 0) {
            place += got->size;
        }
    }
    return ready;
}

static PyObject *intake_read(Intake *self, PyObject *limit) {
    Py_ssize_t longest = PyNumber_AsSsize_t(limit, PyExc_OverflowError);
    if (longest == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (self->reading) {
        PyErr_SetString(PyExc_RuntimeError, "expected one read at a time");
        return NULL;
    }
    int count = epoll_wait(self->epoll, self->events, SOCKETS_IN_A_GO, 0);
    if (count < 0) {
        return errno == EINTR ? PyList_New(0) : PyErr_SetFromErrno(PyExc_OSError);
    }
    if (count < FEW_SOCKETS) {
        count = read_all(self, count);
    } else {
        self->reading = 1;
        Py_BEGIN_ALLOW_THREADS
        count = read_all(self, count);
        Py_END_ALLOW_THREADS
        self->reading = 0;
    }
    for (int n = 0; n < count; n++) {
        Got *got = &self->got[n];
        got->owner = got->fd < self->room ? Py_XNewRef(self->owners[got->fd]) : NULL;
        if (got->size == 0 || (got->failed && got->failed != EAGAIN && got->failed != EINTR)) {
            struct epoll_event none = {0}; /* its transport is to find out: it ends there, or has failed */
            epoll_ctl(self->epoll, EPOLL_CTL_DEL, got->fd, &none);
            let_go(self, got->fd, got->owner);
        }
    }
    PyObject *all = PyList_New(0);
    for (int n = 0; n < count; n++) {
        Got *got = &self->got[n];
        int is_news = got->owner != NULL && got->failed != EAGAIN && got->failed != EINTR;
        PyObject *entry = all && is_news ? told(self, got, longest) : NULL;
        if (all && is_news && (entry == NULL || PyList_Append(all, entry) < 0)) {
            Py_CLEAR(all);
        }
        Py_XDECREF(entry);
        Py_CLEAR(got->owner);
    }
    return all;
}

static PyObject *intake_fileno(Intake *self, PyObject *nothing) { return PyLong_FromLong(self->epoll); }

static PyMethodDef intake_methods[] = {
    {"add", (PyCFunction)intake_add, METH_VARARGS, "Read a socket from now on, by its number, for its owner."},
    {"remove", (PyCFunction)intake_remove, METH_VARARGS,
     "Read a socket no more; False, with nothing done, where it is not read for this owner."},
    {"read", (PyCFunction)intake_read, METH_O,
     "What came: owner, bytes, and the text where they are one whole frame, False where they are one empty pong, or None;"
     " None for both where nothing comes any more."},
    {"fileno", (PyCFunction)intake_fileno, METH_NOARGS, "What a loop watches: it is readable when a socket is."},
    {NULL},
};

static PyType_Slot intake_slots[] = {
    {Py_tp_doc, "Sockets that are read past their transports; see hubbub.gateway.intake."},
    {Py_tp_new, intake_new},
    {Py_tp_traverse, intake_traverse},
    {Py_tp_clear, intake_clear},
    {Py_tp_dealloc, intake_dealloc},
    {Py_tp_methods, intake_methods},
    {Py_sq_length, intake_length},
    {0, NULL},
};

static PyType_Spec intake_spec = {
    .name = "hubbub.gateway._accelerator.Intake",
    .basicsize = sizeof(Intake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = intake_slots,
};

int add_intake(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &intake_spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, "Intake", type);
    Py_XDECREF(type);
    return failed;
}

#else

int add_intake(PyObject *module) { return PyModule_AddObjectRef(module, "Intake", Py_None); }

#endif
