/* What the module of the accelerator needs of `_intake.c`. */
#pragma once
#include <Python.h>

/* Add the type `Intake` to the module, None where there is no epoll; -1 with an exception. */
#ifdef __GNUC__
__attribute__((visibility("hidden")))
#endif
int add_intake(PyObject *module);
