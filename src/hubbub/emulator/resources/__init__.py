"""What a stack needs beside its functions: tables, queues, topics, parameters, made where AWS's APIs are emulated."""

from hubbub.emulator.resources.backends import Backends
from hubbub.emulator.resources.creating import KINDS, CannotCreate, Created

SUPPORTED = {name: kind.service for name, kind in KINDS.items()}
"""The CloudFormation types that are made here, and botocore's names of their services."""

__all__ = ["SUPPORTED", "Backends", "CannotCreate", "Created"]
