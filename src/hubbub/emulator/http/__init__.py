"""HTTP APIs of a stack: which route takes a request, what its function is told, and what becomes of the answer."""

from hubbub.emulator.http.serving import HttpApp, RunningHttpApi

__all__ = ["HttpApp", "RunningHttpApi"]
