"""Services of the Serverless Framework: serverless.yml read as versions 3 and 4 of it, and osls, would."""

from __future__ import annotations

from hubbub.emulator.template.serverless.compile import PROGRAMS, Compiled, compile_serverless, load_serverless
from hubbub.emulator.template.serverless.packaged import PACKAGED, load_packaged

__all__ = ["PACKAGED", "PROGRAMS", "Compiled", "compile_serverless", "load_packaged", "load_serverless"]
