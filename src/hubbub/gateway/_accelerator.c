/* The end of a turn in C: the frames of the turn joined, and each connection written to once, past its transport.
 *
 * It does what `outlets.py` does, which says what is promised, and is held to it by the same tests. What it adds is that
 * it writes to a socket itself where nothing waits to be written: the transport is asked whether it is closing, since
 * only then may the number of its socket be another's, and is given what the kernel does not take.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

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

/* After so many writes other threads may run, such as the one that commits messages: some four milliseconds. */
#define WRITES_IN_A_GO 1024

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
static int is_closing(State *state, PyObject *transport) {
    if (Py_TYPE(transport) != state->asked_type) {
        PyObject *found = PyObject_GetAttrString((PyObject *)Py_TYPE(transport), "is_closing");
        if (found == NULL) {
            return -1;
        }
        PyObject *old = state->asked, *old_type = (PyObject *)state->asked_type;
        Py_INCREF(Py_TYPE(transport));
        state->asked_type = Py_TYPE(transport);
        state->asked = found;
        Py_XDECREF(old);
        Py_XDECREF(old_type);
    }
    PyObject *asked = state->asked;
    Py_INCREF(asked);
    Py_INCREF(transport);
    PyObject *answer = PyObject_Vectorcall(asked, &transport, 1, NULL);
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

/* Encrypt a payload and send that; what the kernel does not take goes to the transport below. */
static int put_sealed(Outlet *outlet, PyObject *seal, Payload *payload) {
    PyObject *bytes = payload_bytes(payload);
    PyObject *done = bytes ? PyObject_CallOneArg(PyTuple_GET_ITEM(seal, 0), bytes) : NULL;
    PyObject *record = done ? PyObject_CallNoArgs(PyTuple_GET_ITEM(seal, 1)) : NULL;
    Py_XDECREF(done);
    if (record == NULL) {
        return -1;
    }
    if (!PyBytes_Check(record)) {
        PyErr_Format(PyExc_TypeError, "expected what is encrypted to be bytes, got %R", record);
        Py_DECREF(record);
        return -1;
    }
    ssize_t sent = -1;
    if (outlet->fd >= 0) { /* still: Python code has run */
        sent = send_now(outlet->fd, PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record));
    }
    if (sent == PyBytes_GET_SIZE(record)) {
        Py_DECREF(record);
        return 0;
    }
    if (sent > 0) {
        PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(record) + sent, PyBytes_GET_SIZE(record) - sent);
        Py_SETREF(record, rest);
    }
    done = record ? PyObject_CallOneArg(PyTuple_GET_ITEM(seal, 2), record) : NULL;
    Py_XDECREF(record);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Write a payload to an outlet, or note that it was not. */
static int put(State *state, Outlet *outlet, Payload *payload, PyObject *left) {
    if (outlet->congested) {
        return leave(left, outlet, payload, NULL);
    }
    PyObject *rest = NULL;
    if (outlet->fd >= 0) {
        int closing = is_closing(state, outlet->transport);
        PyObject *seal = outlet->seal;
        if (closing == 0 && seal != NULL) {
            if (payload->size <= PyLong_AsSsize_t(PyTuple_GET_ITEM(seal, 3))) {
                Py_INCREF(seal);
                int failed = put_sealed(outlet, seal, payload);
                Py_DECREF(seal);
                if (!failed) {
                    return 0;
                }
                PyObject *raised = caught();
                return raised ? leave(left, outlet, payload, raised) : -1;
            } /* else it takes several records, and the transport makes them */
        } else if (closing == 0) {
            ssize_t sent = send_now(outlet->fd, payload->data, payload->size);
            if (sent == payload->size) {
                return 0;
            }
            if (sent > 0) {
                rest = PyBytes_FromStringAndSize(payload->data + sent, payload->size - sent);
                if (rest == NULL) {
                    return -1;
                }
            } /* else it is full or broken: the transport finds out, and does what there is to be done */
        } else if (closing < 0) {
            PyObject *raised = caught();
            return raised ? leave(left, outlet, payload, raised) : -1;
        }
    }
    if (rest == NULL) {
        rest = payload_bytes(payload);
        if (rest == NULL) {
            return -1;
        }
        Py_INCREF(rest);
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
        PyObject *raised = caught();
        return raised ? leave(left, outlet, payload, raised) : -1;
    }
    Py_DECREF(done);
    return 0;
}

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
    char *buffer;
    Py_ssize_t room; /* in the buffer */
} Flush;

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
    free(flush->buffer);
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

/* Frames put together: the frame itself where there is but one. */
static int joined(Flush *flush, const int *positions, int count, Payload *payload) {
    if (count == 1) {
        PyObject *frame = frame_at(flush, positions[0]);
        payload->data = PyBytes_AS_STRING(frame);
        payload->size = PyBytes_GET_SIZE(frame);
        Py_INCREF(frame);
        payload->bytes = frame;
        return 0;
    }
    Py_ssize_t size = 0;
    for (int n = 0; n < count; n++) {
        size += PyBytes_GET_SIZE(frame_at(flush, positions[n]));
    }
    if (size > flush->room) {
        char *larger = realloc(flush->buffer, size * 2);
        if (larger == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        flush->buffer = larger;
        flush->room = size * 2;
    }
    char *end = flush->buffer;
    for (int n = 0; n < count; n++) {
        PyObject *frame = frame_at(flush, positions[n]);
        memcpy(end, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame));
        end += PyBytes_GET_SIZE(frame);
    }
    payload->data = flush->buffer;
    payload->size = size;
    payload->bytes = NULL;
    return 0;
}

/* The frames of one batch, joined once for all who get nothing else. */
static int batch_payload(Flush *flush, Batch *batch, Payload *payload) {
    if (batch->bytes == NULL) {
        Payload own;
        if (joined(flush, batch->positions, batch->count, &own) < 0) {
            return -1;
        }
        batch->bytes = payload_bytes(&own);
        if (batch->bytes == NULL) {
            return -1;
        }
    }
    Py_INCREF(batch->bytes);
    payload->bytes = batch->bytes;
    payload->data = PyBytes_AS_STRING(batch->bytes);
    payload->size = PyBytes_GET_SIZE(batch->bytes);
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

/* So many outlets further on, and transports, what is looked at for them is fetched: the kernel has taken their place in
 * the caches. Of a transport that is its head, with what says whether it is closing. */
#define OUTLETS_AHEAD 8
#define TRANSPORTS_AHEAD 4

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

static inline void breathe(Py_ssize_t writes) {
    if ((size_t)writes % WRITES_IN_A_GO == 0) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
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
        Py_INCREF(outlet);
        if (n + OUTLETS_AHEAD < PyList_GET_SIZE(batch->outlets)) {
            fetch_outlet(PyList_GET_ITEM(batch->outlets, n + OUTLETS_AHEAD));
            PyObject *next = PyList_GET_ITEM(batch->outlets, n + TRANSPORTS_AHEAD);
            if (is_known(flush->state, next)) {
                fetch_transport((Outlet *)next);
            }
        }
        failed = put(flush->state, outlet, &payload, left);
        Py_DECREF(outlet);
        breathe(n + 1);
    }
    Py_DECREF(payload.bytes);
    return failed;
}

static int flush_several(Flush *flush, Py_ssize_t memberships, long long *frames, long long *bytes, PyObject *left) {
    if (flush_place(flush, memberships) < 0) {
        return -1;
    }
    Payload payload = {NULL, 0, NULL};
    int before = -1, count = 0, failed = 0;
    for (Py_ssize_t n = 0; n < flush->placed && !failed; n++) {
        Place *place = &flush->places[n];
        if (before < 0 || !is_same(flush, before, place->last)) {
            Py_CLEAR(payload.bytes);
            if (flush->links[place->last].before < 0) {
                Batch *batch = &flush->batch[flush->links[place->last].batch];
                count = batch->count;
                failed = batch_payload(flush, batch, &payload);
            } else {
                count = merge(flush, place->last);
                failed = joined(flush, flush->merged, count, &payload);
            }
            if (failed) {
                break;
            }
            before = place->last;
        }
        *frames += count;
        *bytes += payload.size;
        if (n + OUTLETS_AHEAD < flush->placed) {
            fetch_outlet((PyObject *)flush->places[n + OUTLETS_AHEAD].outlet);
            fetch_transport(flush->places[n + TRANSPORTS_AHEAD].outlet);
        }
        failed = put(flush->state, place->outlet, &payload, left);
        breathe(n + 1);
    }
    Py_XDECREF(payload.bytes);
    return failed;
}

static PyObject *flush(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    if (given != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "expected a list of frames and a list of batches");
        return NULL;
    }
    Flush flush = {.state = PyModule_GetState(module), .log = PyList_AsTuple(args[0]), .batches = args[1]};
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
    return state->outlet_type == NULL ? -1 : PyModule_AddObjectRef(module, "Outlet", (PyObject *)state->outlet_type);
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
