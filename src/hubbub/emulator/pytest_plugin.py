"""A pytest fixture: a running stack for the tests of a project, started once for all of them.

`hubbub_stack` runs the template that the ini option `hubbub_template` or `--hubbub-template` names, by default the one
in pytest's root folder; `hubbub_stack.url` is where a client connects, whatever kind of test it is used in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hubbub.emulator.background import BackgroundStack


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option and the ini values of the fixture."""
    group = parser.getgroup("hubbub")
    group.addoption("--hubbub-template", help="template of the stack that the fixture hubbub_stack runs")
    parser.addini("hubbub_template", "template of the stack that the fixture hubbub_stack runs", default=".")
    parser.addini("hubbub_quotas", "quotas of the stack that the fixture hubbub_stack runs", default="none")
    parser.addini("hubbub_parameters", "NAME=VALUE parameters of that stack, one a line", type="linelist")


@pytest.fixture(scope="session")
def hubbub_stack(request: pytest.FixtureRequest) -> Iterator[BackgroundStack]:
    """The project's stack, running; what functions print is logged as `hubbub.emulator`."""
    from hubbub.emulator.background import BackgroundStack
    from hubbub.emulator.local import named_values

    config = request.config
    template = config.getoption("--hubbub-template") or config.getini("hubbub_template")
    with BackgroundStack(
        config.rootpath / template,
        quotas=config.getini("hubbub_quotas"),
        parameters=named_values("hubbub_parameters", config.getini("hubbub_parameters")),
    ) as stack:
        yield stack
