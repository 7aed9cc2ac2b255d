"""Lambda on this machine: execution environments that run functions in processes, and the pool that keeps them warm.

A function's process speaks AWS's Runtime API with us; nothing of the function is loaded here.
Source: docs.aws.amazon.com/lambda/latest/dg, "Lambda runtime environment" and "Runtime API".
"""

from hubbub.emulator.functions.environment import Outcome, Report, UnsupportedRuntime
from hubbub.emulator.functions.logs import LogLine
from hubbub.emulator.functions.pool import Functions, Throttled, UnknownFunction

__all__ = [
    "Functions",
    "LogLine",
    "Outcome",
    "Report",
    "Throttled",
    "UnknownFunction",
    "UnsupportedRuntime",
]
