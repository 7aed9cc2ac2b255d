"""Shared by the functions, in a layer."""
