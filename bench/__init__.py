"""Benches: every figure that the documents quote, with the command that makes it."""
