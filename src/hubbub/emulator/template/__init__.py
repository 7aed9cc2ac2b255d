"""Templates of every language, read into `hubbub.emulator.definition.Stack`."""

from __future__ import annotations

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.finding import NAMES, find_template, load
from hubbub.emulator.template.stack import stack_from_template

__all__ = ["NAMES", "TemplateError", "find_template", "load", "stack_from_template"]
