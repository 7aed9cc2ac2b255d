/* The end of a turn in C: the frames of the turn joined, and each connection written to once, past its transport.
 *
 * It does what `outlets.py` does, which says what is promised, and is held to it by the same tests. What it adds is that
 * it writes to a socket itself where nothing waits to be written: the transport is asked whether it is closing, since
 * only then may the number of its socket be another's, and is given what the kernel does not take.
 *
 * Many sockets are written to in one volley, without Python's lock, so that other threads run while the kernel works,
 * such as the one that commits messages. Sockets are closed by the loop's thread alone, which is here meanwhile.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "_intake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* What `accelerator.py` expects: one more, there and here, when an older one would not do any more. */
#define VERSION 5

/* So many writes are a volley at most, and so many bytes that were put together for it. */
#define VOLLEY 256
#define VOLLEY_BYTES (128 * 1024)

/* So many bytes are encrypted before they are sent, at most: all of them are kept until then. */
#define SEALED_BYTES (512 * 1024)

/* For fewer writes the lock is kept: to get it back may take longer than they do. */
#define FEW_WRITES 8

/* So many batches of one connection are merged by comparing their heads; more are sorted. */
#define FEW_BATCHES 8

typedef struct {
    PyObject_HEAD
    int fd;
    char congested;
    PyObject *transport;
    PyObject *write;
    PyObject *seal;          /* how what is written is encrypted: see outlets.py; NULL for not at all */
    unsigned long long mark; /* of the batch or flush that saw it last */
    Py_ssize_t place;        /* its place among those of a flush */
} Outlet;

/* What this module keeps, in each interpreter for itself. */
typedef struct {
    PyTypeObject *outlet_type;
    PyTypeObject *known_type; /* the first subclass of it that was seen: a gateway has one */
    PyTypeObject *asked_type; /* of the transport that was asked last whether it is closing */
    PyObject *asked;          /* the method that this was */
    vectorcallfunc ask;       /* calls it, without asking again how that is done; NULL where it is called otherwise */
    unsigned long long marks; /* that were given */
} State;

static inline int is_known(State *state, PyObject *object) { return Py_TYPE(object) == state->known_type; }

static int is_outlet(State *state, PyObject *object) {
    if (is_known(state, object)) {
        return 1;
    }
    if (!PyObject_TypeCheck(object, state->outlet_type)) {
        return 0;
    }
    if (state->known_type == NULL && Py_TYPE(object) != state->outlet_type) {
        Py_INCREF(Py_TYPE(object));
        state->known_type = Py_TYPE(object);
    }
    return 1;
}

static PyObject *outlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Outlet *self = (Outlet *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->fd = -1;
    }
    return (PyObject *)self;
}

static int outlet_init(Outlet *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"write", "transport", "fd", "seal", NULL};
    PyObject *write, *transport = Py_None, *seal = Py_None;
    int fd = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OiO", names, &write, &transport, &fd, &seal)) {
        return -1;
    }
    if (seal != Py_None && (!PyTuple_Check(seal) || PyTuple_GET_SIZE(seal) != 4 ||
                            !PyLong_Check(PyTuple_GET_ITEM(seal, 3)))) {
        PyErr_Format(PyExc_TypeError, "expected a tuple of three functions and a size, got %R", seal);
        return -1;
    }
    if (seal != Py_None && PyLong_AsSsize_t(PyTuple_GET_ITEM(seal, 3)) == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (fd >= 0 && transport == Py_None) {
        PyErr_SetString(PyExc_ValueError, "expected a transport beside the number of its socket, got None");
        return -1;
    }
    Py_INCREF(write);
    Py_XSETREF(self->write, write);
    Py_INCREF(transport);
    Py_XSETREF(self->transport, transport);
    Py_XSETREF(self->seal, seal == Py_None ? NULL : Py_NewRef(seal));
    self->fd = fd;
    self->congested = 0;
    return 0;
}

static int outlet_traverse(Outlet *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->write);
    Py_VISIT(self->transport);
    Py_VISIT(self->seal);
    return 0;
}

static int outlet_clear(Outlet *self) {
    self->fd = -1;
    Py_CLEAR(self->write);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->seal);
    return 0;
}

static void outlet_dealloc(Outlet *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    outlet_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *outlet_detach(Outlet *self, PyObject *nothing) {
    self->fd = -1;
    Py_CLEAR(self->seal);
    Py_RETURN_NONE;
}

static PyMethodDef outlet_methods[] = {
    {"detach", (PyCFunction)outlet_detach, METH_NOARGS, "The socket is gone: its number may be another's."},
    {NULL},
};

static PyMemberDef outlet_members[] = {
    {"write", T_OBJECT_EX, offsetof(Outlet, write), 0, "writes bytes to the socket"},
    {"congested", T_BOOL, offsetof(Outlet, congested), 0, "whether something waits to be written"},
    {NULL},
};

static PyType_Slot outlet_slots[] = {
    {Py_tp_doc, "The way out to one connection; see hubbub.gateway.outlets."},
    {Py_tp_new, outlet_new},
    {Py_tp_init, outlet_init},
    {Py_tp_traverse, outlet_traverse},
    {Py_tp_clear, outlet_clear},
    {Py_tp_dealloc, outlet_dealloc},
    {Py_tp_methods, outlet_methods},
    {Py_tp_members, outlet_members},
    {0, NULL},
};

static PyType_Spec outlet_spec = {
    .name = "hubbub.gateway._accelerator.Outlet",
    .basicsize = sizeof(Outlet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = outlet_slots,
};

/* What is written to one outlet, or to several in a row that get the same. */
typedef struct {
    const char *data;
    Py_ssize_t size;
    PyObject *bytes; /* the same as an object; NULL until somebody needs it */
} Payload;

static PyObject *payload_bytes(Payload *payload) {
    if (payload->bytes == NULL) {
        payload->bytes = PyBytes_FromStringAndSize(payload->data, payload->size);
    }
    return payload->bytes;
}

/* Note whom nothing was written to: `raised` is stolen, NULL for nothing. */
static int leave(PyObject *left, Outlet *outlet, Payload *payload, PyObject *raised) {
    PyObject *bytes = payload_bytes(payload);
    PyObject *entry = bytes ? PyTuple_Pack(3, (PyObject *)outlet, bytes, raised ? raised : Py_None) : NULL;
    Py_XDECREF(raised);
    if (entry == NULL) {
        return -1;
    }
    int failed = PyList_Append(left, entry);
    Py_DECREF(entry);
    return failed;
}

/* The exception that was raised, if it is one of those that a socket may raise; NULL with it still set if not. */
static PyObject *caught(void) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL) {
        PyException_SetTraceback(value, trace);
    }
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
#endif
}

/* Whether the transport is closing: 1, 0, or -1 for an exception. It is asked by the method of its type, which is looked
 * up once; both are held meanwhile, as Python code may run. */
static inline int is_closing(State *state, PyObject *transport) {
    if (Py_TYPE(transport) != state->asked_type) {
        PyObject *found = PyObject_GetAttrString((PyObject *)Py_TYPE(transport), "is_closing");
        if (found == NULL) {
            return -1;
        }
        PyObject *old = state->asked, *old_type = (PyObject *)state->asked_type;
        Py_INCREF(Py_TYPE(transport));
        state->asked_type = Py_TYPE(transport);
        state->asked = found;
        state->ask = PyVectorcall_Function(found);
        Py_XDECREF(old);
        Py_XDECREF(old_type);
    }
    PyObject *asked = state->asked;
    Py_INCREF(asked);
    Py_INCREF(transport);
    PyObject *answer = state->ask != NULL ? state->ask(asked, &transport, 1, NULL)
                                          : PyObject_CallOneArg(asked, transport);
    Py_DECREF(transport);
    Py_DECREF(asked);
    if (answer == NULL) {
        return -1;
    }
    int yes = answer == Py_True ? 1 : answer == Py_False ? 0 : PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}

/* send() without being a point where a thread may be cancelled, which the C library pays for in each call. */
static inline ssize_t send_now(int fd, const char *data, size_t size) {
#ifdef SYS_sendto
    return syscall(SYS_sendto, fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
#else
    return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
#endif
}

/* A payload encrypted, a new reference; NULL with an exception. */
static PyObject *encrypted(PyObject *seal, Payload *payload) {
    PyObject *bytes = payload_bytes(payload);
    PyObject *done = bytes ? PyObject_CallOneArg(PyTuple_GET_ITEM(seal, 0), bytes) : NULL;
    PyObject *record = done ? PyObject_CallNoArgs(PyTuple_GET_ITEM(seal, 1)) : NULL;
    Py_XDECREF(done);
    if (record != NULL && !PyBytes_Check(record)) {
        PyErr_Format(PyExc_TypeError, "expected what is encrypted to be bytes, got %R", record);
        Py_CLEAR(record);
    }
    return record;
}

/* Note that something was raised in writing to an outlet; -1 with it still set where no socket raises such a thing. */
static int leave_broken(PyObject *left, Outlet *outlet, Payload *payload) {
    PyObject *raised = caught();
    return raised ? leave(left, outlet, payload, raised) : -1;
}

/* Give an outlet's transport a payload, but for as much of it as the socket has. */
static int hand(Outlet *outlet, Payload *payload, Py_ssize_t sent, PyObject *left) {
    PyObject *rest;
    if (sent > 0) {
        rest = PyBytes_FromStringAndSize(payload->data + sent, payload->size - sent);
    } else {
        rest = Py_XNewRef(payload_bytes(payload));
    }
    if (rest == NULL) {
        return -1;
    }
    PyObject *write = outlet->write;
    if (write == NULL) {
        Py_DECREF(rest);
        PyErr_SetString(PyExc_RuntimeError, "expected an outlet that was initialised");
        return -1;
    }
    Py_INCREF(write);
    PyObject *done = PyObject_CallOneArg(write, rest);
    Py_DECREF(write);
    Py_DECREF(rest);
    if (done == NULL) {
        return leave_broken(left, outlet, payload);
    }
    Py_DECREF(done);
    return 0;
}

/* Write a payload to an outlet through its transport, or note that it was not. */
static int put(Outlet *outlet, Payload *payload, PyObject *left) {
    return outlet->congested ? leave(left, outlet, payload, NULL) : hand(outlet, payload, 0, left);
}

/* A write past a transport that is to be made. */
typedef struct {
    Outlet *outlet; /* held */
    Payload *payload;
    PyObject *record; /* held: the payload encrypted, which is sent instead; NULL for as it is */
    int fd;           /* -1 for not past the transport after all */
    ssize_t sent;
} Shot;

/* Those that are made together, and what they need until then. */
typedef struct {
    int count;
    int given; /* to so many outlets, those included that were written to in another way */
    int payloads;
    Py_ssize_t sealed; /* bytes of payloads that are to be encrypted */
    Shot shot[VOLLEY];
    Payload payload[VOLLEY];
    char *buffer; /* what was put together for them; it stays where it is until they are made */
    Py_ssize_t used, room;
} Volley;

typedef struct {
    PyObject *outlets; /* a list */
    int *positions;    /* in the log, ascending */
    int count;
    PyObject *bytes; /* its frames joined; NULL until somebody gets them and nothing else */
} Batch;

typedef struct {
    Outlet *outlet;
    int last; /* its last link */
} Place;

typedef struct {
    int batch;
    int before; /* the link before it; -1 for none */
} Link;

/* One flush: what `log` and `batches` say. Python code that runs meanwhile may change these lists, so each is read once,
 * but for a single batch's outlets, which are looked at anew. */
typedef struct {
    State *state;
    PyObject *log;     /* a tuple */
    PyObject *batches; /* read before anything is written */
    Py_ssize_t frames; /* in the log */
    Py_ssize_t count;  /* of batches */
    Batch *batch;
    int *positions; /* of all batches */
    Place *places;
    Py_ssize_t placed;
    Link *links;
    int *merged; /* positions of one outlet, which is in several batches */
    Volley *volley;
} Flush;

static void volley_clear(Volley *volley) {
    for (int n = 0; n < volley->count; n++) {
        Py_DECREF(volley->shot[n].outlet);
        Py_XDECREF(volley->shot[n].record);
    }
    for (int n = 0; n < volley->payloads; n++) {
        Py_XDECREF(volley->payload[n].bytes);
    }
    volley->count = volley->given = volley->payloads = 0;
    volley->used = volley->sealed = 0;
}

static inline int is_full(Volley *volley) { return volley->given == VOLLEY || volley->sealed >= SEALED_BYTES; }

static void flush_free(Flush *flush) {
    for (Py_ssize_t n = 0; flush->batch != NULL && n < flush->count; n++) {
        Py_XDECREF(flush->batch[n].bytes);
        Py_XDECREF(flush->batch[n].outlets);
    }
    for (Py_ssize_t n = 0; n < flush->placed; n++) {
        Py_DECREF(flush->places[n].outlet);
    }
    free(flush->batch);
    free(flush->positions);
    free(flush->places);
    free(flush->links);
    free(flush->merged);
    volley_clear(flush->volley);
    free(flush->volley->buffer);
    Py_XDECREF(flush->log);
}

static PyObject *frame_at(Flush *flush, int position) {
    return PyTuple_GET_ITEM(flush->log, position);
}

/* Read the batches; -1 with an exception for what is none. `memberships` gets how many outlets they have together. */
static int flush_read(Flush *flush, Py_ssize_t *memberships) {
    flush->frames = PyTuple_GET_SIZE(flush->log);
    flush->count = PyList_GET_SIZE(flush->batches);
    for (Py_ssize_t n = 0; n < flush->frames; n++) {
        if (!PyBytes_Check(PyTuple_GET_ITEM(flush->log, n))) {
            PyErr_Format(PyExc_TypeError, "expected frames to be bytes, got %R", PyTuple_GET_ITEM(flush->log, n));
            return -1;
        }
    }
    Py_ssize_t positions = 0;
    for (Py_ssize_t n = 0; n < flush->count; n++) {
        PyObject *pair = PyList_GET_ITEM(flush->batches, n);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 || !PyList_Check(PyTuple_GET_ITEM(pair, 0)) ||
            !PyList_Check(PyTuple_GET_ITEM(pair, 1)) || PyList_GET_SIZE(PyTuple_GET_ITEM(pair, 1)) == 0) {
            PyErr_Format(PyExc_TypeError, "expected a list of outlets and one of positions, not empty, got %R", pair);
            return -1;
        }
        *memberships += PyList_GET_SIZE(PyTuple_GET_ITEM(pair, 0));
        positions += PyList_GET_SIZE(PyTuple_GET_ITEM(pair, 1));
    }
    flush->batch = calloc(flush->count + 1, sizeof(Batch));
    flush->positions = malloc((positions + 1) * sizeof(int));
    if (flush->batch == NULL || flush->positions == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int *next = flush->positions;
    for (Py_ssize_t n = 0; n < flush->count; n++) {
        Batch *batch = &flush->batch[n];
        PyObject *pair = PyList_GET_ITEM(flush->batches, n), *listed = PyTuple_GET_ITEM(pair, 1);
        batch->outlets = PyTuple_GET_ITEM(pair, 0);
        Py_INCREF(batch->outlets);
        batch->positions = next;
        batch->count = (int)PyList_GET_SIZE(listed);
        for (int m = 0; m < batch->count; m++) {
            PyObject *number = PyList_GET_ITEM(listed, m);
            if (!PyLong_Check(number)) { /* another might run Python code to become one */
                PyErr_Format(PyExc_TypeError, "expected positions to be int, got %R", number);
                return -1;
            }
            long position = PyLong_AsLong(number);
            if (position == -1 && PyErr_Occurred()) {
                return -1;
            }
            if (position < 0 || position >= flush->frames || (m && position <= next[-1])) {
                PyErr_Format(PyExc_ValueError, "expected ascending positions below %zd, got %R", flush->frames, listed);
                return -1;
            }
            *next++ = (int)position;
        }
        unsigned long long mark = ++flush->state->marks;
        for (Py_ssize_t m = 0; m < PyList_GET_SIZE(batch->outlets); m++) {
            PyObject *outlet = PyList_GET_ITEM(batch->outlets, m);
            if (!is_known(flush->state, outlet) && !is_outlet(flush->state, outlet)) {
                PyErr_Format(PyExc_TypeError, "expected an Outlet, got %R", outlet);
                return -1;
            }
            if (((Outlet *)outlet)->mark == mark) {
                PyErr_Format(PyExc_ValueError, "expected each outlet once in a batch, got %R twice", outlet);
                return -1;
            }
            ((Outlet *)outlet)->mark = mark;
        }
    }
    return 0;
}

static Py_ssize_t joined_size(Flush *flush, const int *positions, int count) {
    Py_ssize_t size = 0;
    for (int n = 0; n < count; n++) {
        size += PyBytes_GET_SIZE(frame_at(flush, positions[n]));
    }
    return size;
}

static void join_to(Flush *flush, const int *positions, int count, char *end) {
    for (int n = 0; n < count; n++) {
        PyObject *frame = frame_at(flush, positions[n]);
        memcpy(end, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame));
        end += PyBytes_GET_SIZE(frame);
    }
}

static void payload_is(Payload *payload, PyObject *bytes) {
    payload->bytes = Py_NewRef(bytes);
    payload->data = PyBytes_AS_STRING(bytes);
    payload->size = PyBytes_GET_SIZE(bytes);
}

/* The frames of one batch, joined once for all who get nothing else: the frame itself where there is but one. */
static int batch_payload(Flush *flush, Batch *batch, Payload *payload) {
    if (batch->bytes == NULL && batch->count == 1) {
        batch->bytes = Py_NewRef(frame_at(flush, batch->positions[0]));
    } else if (batch->bytes == NULL) {
        Py_ssize_t size = joined_size(flush, batch->positions, batch->count);
        batch->bytes = PyBytes_FromStringAndSize(NULL, size);
        if (batch->bytes == NULL) {
            return -1;
        }
        if (size) { /* else it is every empty one */
            join_to(flush, batch->positions, batch->count, PyBytes_AS_STRING(batch->bytes));
        }
    }
    payload_is(payload, batch->bytes);
    return 0;
}

/* Frames of several batches, joined in the volley's buffer, where there is room for them. */
static int merged_payload(Flush *flush, int count, Py_ssize_t size, Payload *payload) {
    Volley *volley = flush->volley;
    if (size > volley->room) { /* only the first of a volley is so long */
        Py_ssize_t room = size > VOLLEY_BYTES ? size : VOLLEY_BYTES;
        char *larger = realloc(volley->buffer, room);
        if (larger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        volley->buffer = larger;
        volley->room = room;
    }
    *payload = (Payload){volley->buffer + volley->used, size, NULL};
    join_to(flush, flush->merged, count, volley->buffer + volley->used);
    volley->used += size;
    return 0;
}

static int ascending(const void *one, const void *other) {
    return *(const int *)one - *(const int *)other;
}

/* The positions of an outlet that is in several batches, in the order of the log; how many they are. */
static int merge(Flush *flush, int link) {
    Batch *heads[FEW_BATCHES];
    int at[FEW_BATCHES] = {0};
    int batches = 0, count = 0;
    for (; link >= 0; link = flush->links[link].before) {
        Batch *batch = &flush->batch[flush->links[link].batch];
        if (batches < FEW_BATCHES) {
            heads[batches] = batch;
        }
        batches++;
        memcpy(flush->merged + count, batch->positions, batch->count * sizeof(int));
        count += batch->count;
    }
    if (batches > FEW_BATCHES) {
        qsort(flush->merged, count, sizeof(int), ascending);
        return count;
    }
    for (int n = 0; n < count; n++) {
        int least = -1;
        for (int m = 0; m < batches; m++) {
            if (at[m] < heads[m]->count &&
                (least < 0 || heads[m]->positions[at[m]] < heads[least]->positions[at[least]])) {
                least = m;
            }
        }
        flush->merged[n] = heads[least]->positions[at[least]++];
    }
    return count;
}

/* Whether two outlets are in the same batches. */
static int is_same(Flush *flush, int one, int other) {
    while (one >= 0 && other >= 0 && flush->links[one].batch == flush->links[other].batch) {
        one = flush->links[one].before;
        other = flush->links[other].before;
    }
    return one < 0 && other < 0;
}

/* Find out which batches each outlet is in. No Python code has run since they were read. */
static int flush_place(Flush *flush, Py_ssize_t memberships) {
    unsigned long long mark = ++flush->state->marks;
    flush->places = malloc((memberships + 1) * sizeof(Place));
    flush->links = malloc((memberships + 1) * sizeof(Link));
    flush->merged = malloc((flush->batch[flush->count - 1].positions - flush->positions +
                            flush->batch[flush->count - 1].count + 1) * sizeof(int));
    if (flush->places == NULL || flush->links == NULL || flush->merged == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int links = 0;
    for (Py_ssize_t n = 0; n < flush->count; n++) {
        PyObject *outlets = flush->batch[n].outlets;
        for (Py_ssize_t m = 0; m < PyList_GET_SIZE(outlets); m++) {
            Outlet *outlet = (Outlet *)PyList_GET_ITEM(outlets, m);
            if (outlet->mark != mark) {
                outlet->mark = mark;
                outlet->place = flush->placed;
                Py_INCREF(outlet);
                flush->places[flush->placed++] = (Place){outlet, -1};
            }
            Place *place = &flush->places[outlet->place];
            flush->links[links] = (Link){(int)n, place->last};
            place->last = links++;
        }
    }
    return 0;
}

#ifdef __GNUC__
#define FETCH(address) __builtin_prefetch((const char *)(address))
#else
#define FETCH(address) ((void)(address))
#endif

/* So many outlets further on, what is looked at for them is fetched: the kernel has taken their place in the caches. Of
 * their transports that is the head, with what says whether it is closing. */
#define AHEAD 8

static inline void fetch_outlet(PyObject *outlet) {
    FETCH(outlet);
    FETCH((char *)outlet + 64);
}

static inline void fetch_transport(Outlet *outlet) {
    if (outlet->transport != NULL) {
        FETCH(outlet->transport);
        FETCH((char *)outlet->transport + 64);
        FETCH((char *)outlet->transport + 128);
    }
}

static inline Py_ssize_t shot_size(Shot *shot) {
    return shot->record ? PyBytes_GET_SIZE(shot->record) : shot->payload->size;
}

static void send_all(Volley *volley) {
    for (int n = 0; n < volley->count; n++) {
        Shot *shot = &volley->shot[n];
        if (shot->fd >= 0) {
            shot->sent = send_now(shot->fd, shot->record ? PyBytes_AS_STRING(shot->record) : shot->payload->data,
                                  shot_size(shot));
        }
    }
}

/* Find out whether a write may be made past the transport, and encrypt what is to be; -1 with an exception for neither. */
static int load(State *state, Shot *shot, PyObject *left) {
    Outlet *outlet = shot->outlet;
    shot->sent = -1;
    shot->fd = -1;
    int closing = is_closing(state, outlet->transport);
    if (closing == 0) {
        PyObject *seal = outlet->seal;
        if (seal != NULL && outlet->fd >= 0 && !outlet->congested) {
            Py_INCREF(seal);
            shot->record = encrypted(seal, shot->payload);
            Py_DECREF(seal);
        }
        if (seal == NULL || shot->record != NULL) {
            shot->fd = 0;
            return 0;
        }
    }
    if (!PyErr_Occurred()) {
        return 0;
    }
    shot->sent = shot->payload->size; /* so nothing more is done */
    return leave_broken(left, outlet, shot->payload);
}

/* Give the transport below the rest of what is encrypted, also to one that has become congested, since what is encrypted
 * later can be read after it only. */
static int hand_record(Shot *shot, PyObject *left) {
    PyObject *seal = shot->outlet->seal;
    if (seal == NULL) {
        return 0; /* the socket is gone */
    }
    Py_ssize_t sent = shot->sent > 0 ? shot->sent : 0;
    PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(shot->record) + sent,
                                               PyBytes_GET_SIZE(shot->record) - sent);
    Py_INCREF(seal);
    PyObject *done = rest ? PyObject_CallOneArg(PyTuple_GET_ITEM(seal, 2), rest) : NULL;
    Py_DECREF(seal);
    Py_XDECREF(rest);
    Py_XDECREF(done);
    return done == NULL ? leave_broken(left, shot->outlet, shot->payload) : 0;
}

/* Make the writes of the volley, and give the transports what the kernel did not take. */
static int fire(Flush *flush, PyObject *left) {
    Volley *volley = flush->volley;
    int failed = 0;
    for (int n = 0; n < volley->count; n++) {
        Shot *shot = &volley->shot[n];
        if (n + AHEAD < volley->count) {
            fetch_transport(volley->shot[n + AHEAD].outlet);
        }
        if (failed) {
            shot->fd = -1;
            shot->sent = -1;
        } else if (load(flush->state, shot, left) < 0) {
            failed = -1; /* what is encrypted already is sent all the same, or its connection would be of no use */
        }
    }
    /* Asking may have run Python code, which may have changed some. From here on none runs here until all is sent. */
    for (int n = 0; n < volley->count; n++) {
        Shot *shot = &volley->shot[n];
        Outlet *outlet = shot->outlet;
        if (shot->fd == 0) {
            shot->fd = outlet->congested || (outlet->seal != NULL && shot->record == NULL) ? -1 : outlet->fd;
        }
    }
    if (volley->count >= FEW_WRITES || is_full(volley)) {
        Py_BEGIN_ALLOW_THREADS
        send_all(volley);
        Py_END_ALLOW_THREADS
    } else {
        send_all(volley);
    }
    for (int n = 0; n < volley->count; n++) {
        Shot *shot = &volley->shot[n];
        if (n + AHEAD < volley->count) {
            FETCH(volley->shot[n + AHEAD].outlet); /* to be let go */
        }
        if (shot->sent == shot_size(shot) || (failed && shot->sent <= 0 && shot->record == NULL)) {
            continue;
        }
        PyObject *type, *value, *trace; /* where one is interrupted, the others of whom a part is sent get the rest */
        PyErr_Fetch(&type, &value, &trace);
        if ((shot->record ? hand_record(shot, left)
             : shot->sent > 0 ? hand(shot->outlet, shot->payload, shot->sent, left)
                              : put(shot->outlet, shot->payload, left)) < 0) {
            failed = -1;
        }
        if (type != NULL) {
            PyErr_Restore(type, value, trace);
        }
    }
    volley_clear(volley);
    return failed;
}

/* Whether a payload is encrypted in one piece; a longer one takes several records, and the transport makes them. */
static inline int is_one_record(PyObject *seal, Payload *payload) {
    return payload->size <= PyLong_AsSsize_t(PyTuple_GET_ITEM(seal, 3));
}

/* Write to an outlet, with the others of the volley or at once. */
static inline int aim(Flush *flush, Outlet *outlet, Payload *payload, PyObject *left) {
    Volley *volley = flush->volley;
    volley->given++;
    Py_INCREF(outlet);
    if (outlet->fd < 0 || outlet->congested || (outlet->seal != NULL && !is_one_record(outlet->seal, payload))) {
        int failed = put(outlet, payload, left);
        Py_DECREF(outlet);
        return failed;
    }
    volley->sealed += outlet->seal ? payload->size : 0;
    volley->shot[volley->count++] = (Shot){.outlet = outlet, .payload = payload};
    return 0;
}

/* One batch: the usual case. */
static int flush_one(Flush *flush, long long *frames, long long *bytes, PyObject *left) {
    Batch *batch = &flush->batch[0];
    Payload payload;
    if (batch_payload(flush, batch, &payload) < 0) {
        return -1;
    }
    Py_ssize_t outlets = PyList_GET_SIZE(batch->outlets);
    *frames = (long long)outlets * batch->count;
    *bytes = (long long)outlets * payload.size;
    int failed = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(batch->outlets) && !failed; n++) {
        Outlet *outlet = (Outlet *)PyList_GET_ITEM(batch->outlets, n);
        if (!is_known(flush->state, (PyObject *)outlet) && !is_outlet(flush->state, (PyObject *)outlet)) {
            PyErr_Format(PyExc_TypeError, "expected outlets to stay what they were, got %R", outlet);
            failed = -1;
            break;
        }
        if (n + AHEAD < PyList_GET_SIZE(batch->outlets)) {
            fetch_outlet(PyList_GET_ITEM(batch->outlets, n + AHEAD));
        }
        failed = aim(flush, outlet, &payload, left);
        if (!failed && is_full(flush->volley)) {
            failed = fire(flush, left);
        }
    }
    if (!failed) {
        failed = fire(flush, left);
    }
    Py_DECREF(payload.bytes);
    return failed;
}

/* Let the volley have the payload of an outlet, by its last link; how many frames that has, or -1. */
static int volley_payload(Flush *flush, int link, PyObject *left) {
    Volley *volley = flush->volley;
    int count;
    if (flush->links[link].before < 0) {
        Batch *batch = &flush->batch[flush->links[link].batch];
        count = batch->count;
        if (batch_payload(flush, batch, &volley->payload[volley->payloads]) < 0) {
            return -1;
        }
    } else {
        count = merge(flush, link);
        Py_ssize_t size = joined_size(flush, flush->merged, count);
        if (volley->used && volley->used + size > volley->room && fire(flush, left) < 0) {
            return -1;
        }
        if (merged_payload(flush, count, size, &volley->payload[volley->payloads]) < 0) {
            return -1;
        }
    }
    volley->payloads++;
    return count;
}

static int flush_several(Flush *flush, Py_ssize_t memberships, long long *frames, long long *bytes, PyObject *left) {
    if (flush_place(flush, memberships) < 0) {
        return -1;
    }
    Volley *volley = flush->volley;
    int before = -1, count = 0, failed = 0;
    for (Py_ssize_t n = 0; n < flush->placed && !failed; n++) {
        Place *place = &flush->places[n];
        if (before < 0 || !is_same(flush, before, place->last)) {
            count = volley_payload(flush, place->last, left);
            if (count < 0) {
                return -1;
            }
            before = place->last;
        }
        Payload *payload = &volley->payload[volley->payloads - 1];
        *frames += count;
        *bytes += payload->size;
        if (n + AHEAD < flush->placed) {
            fetch_outlet((PyObject *)flush->places[n + AHEAD].outlet);
        }
        failed = aim(flush, place->outlet, payload, left);
        if (!failed && is_full(volley)) {
            failed = fire(flush, left);
            before = -1;
        }
    }
    return failed ? failed : fire(flush, left);
}

static PyObject *flush(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    if (given != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "expected a list of frames and a list of batches");
        return NULL;
    }
    Volley volley; /* of which only what is in use is looked at */
    volley.count = volley.given = volley.payloads = 0;
    volley.buffer = NULL;
    volley.used = volley.room = volley.sealed = 0;
    Flush flush = {
        .state = PyModule_GetState(module), .log = PyList_AsTuple(args[0]), .batches = args[1], .volley = &volley
    };
    Py_ssize_t memberships = 0;
    long long frames = 0, bytes = 0;
    PyObject *left = PyList_New(0), *answer = NULL;
    int failed = left == NULL || flush.log == NULL || flush_read(&flush, &memberships) < 0;
    if (!failed && flush.count == 1) {
        failed = flush_one(&flush, &frames, &bytes, left);
    } else if (!failed && flush.count > 1) {
        failed = flush_several(&flush, memberships, &frames, &bytes, left);
    }
    if (!failed) {
        answer = Py_BuildValue("LLO", frames, bytes, left);
    }
    Py_XDECREF(left);
    flush_free(&flush);
    return answer;
}

static PyMethodDef functions[] = {
    {"flush", (PyCFunction)(void (*)(void))flush, METH_FASTCALL,
     "Write to all outlets of some batches what is theirs; see hubbub.gateway.outlets."},
    {NULL},
};

static int module_exec(PyObject *module) {
    State *state = PyModule_GetState(module);
    state->outlet_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &outlet_spec, NULL);
    if (state->outlet_type == NULL || PyModule_AddIntConstant(module, "VERSION", VERSION) < 0 ||
        PyModule_AddObjectRef(module, "Outlet", (PyObject *)state->outlet_type) < 0) {
        return -1;
    }
    return add_intake(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
    Py_VISIT(state->outlet_type);
    Py_VISIT(state->known_type);
    Py_VISIT(state->asked_type);
    Py_VISIT(state->asked);
    return 0;
}

static int module_clear(PyObject *module) {
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->outlet_type);
    Py_CLEAR(state->known_type);
    Py_CLEAR(state->asked_type);
    Py_CLEAR(state->asked);
    return 0;
}

static void module_free(void *module) { module_clear(module); }

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hubbub.gateway._accelerator",
    .m_doc = "The end of a turn in C; see hubbub.gateway.outlets.",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__accelerator(void) { return PyModuleDef_Init(&definition); }
