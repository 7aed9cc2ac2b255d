"""Fan-outs, opened by URL; one module and one foreign library each."""
