"""Lambda on this machine: execution environments that run functions in processes, and the pool that keeps them warm.

A function's process speaks AWS's Runtime API with us; nothing of the function is loaded here.
Source: docs.aws.amazon.com/lambda/latest/dg, "Lambda runtime environment" and "Runtime API".
"""

from hubbub.emulator.functions.environment import Environment, Phase
from hubbub.emulator.functions.logs import LogLine
from hubbub.emulator.functions.outcome import Outcome, Report
from hubbub.emulator.functions.pool import Functions, Throttled, UnknownFunction
from hubbub.emulator.functions.runtimes import CannotRun, UnsupportedRuntime

__all__ = [
    "CannotRun",
    "Environment",
    "Functions",
    "LogLine",
    "Outcome",
    "Phase",
    "Report",
    "Throttled",
    "UnknownFunction",
    "UnsupportedRuntime",
]
