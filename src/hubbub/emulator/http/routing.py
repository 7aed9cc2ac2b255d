"""Which route of an HTTP API takes a request.

A full match of the path comes first, then one with a greedy variable, then `$default`; of two that fit, the one
with more of the path written out is taken, and a method before ANY.
Source: developer guide, "Create routes for HTTP APIs in API Gateway", "Routing API requests".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from hubbub.emulator.definition import HttpRouteDefinition

DEFAULT = "$default"

_VARIABLE = re.compile(r"\{([^{}+]+)(\+?)\}")


class Found(NamedTuple):
    """The route that takes a request, and the values of its path's variables, unquoted."""

    route: HttpRouteDefinition
    parameters: dict[str, str]


class Routes:
    """The routes of one API.

    Args:
        routes: those; of the same key there is one.

    """

    def __init__(self, routes: Iterable[HttpRouteDefinition]) -> None:
        known = list(routes)
        self._default = next((route for route in known if route.key == DEFAULT), None)
        self._patterns = sorted((_Pattern(route) for route in known if route.key != DEFAULT), key=_Pattern.rank)

    def find(self, method: str, path: str) -> Found | None:
        """The route of a method and a path as it was written in the request; None where no route takes it."""
        for pattern in self._patterns:
            if pattern.method in (method, "ANY") and (match := pattern.expression.fullmatch(path)):
                return Found(pattern.route, {name: unquote(match[index]) for index, name in pattern.names.items()})
        return None if self._default is None else Found(self._default, {})


class _Pattern:
    """A route's key as what it matches."""

    def __init__(self, route: HttpRouteDefinition) -> None:
        self.route = route
        self.method, _, path = route.key.partition(" ")
        self.names: dict[int, str] = {}
        self._kinds: list[int] = []  # of each segment: 0 written out, 1 a variable, 2 a greedy one
        written = ""
        for segment in path.rstrip("/").split("/")[1:]:
            variable = _VARIABLE.fullmatch(segment)
            self._kinds.append(0 if variable is None else 2 if variable[2] else 1)
            if variable is None:
                written += "/" + re.escape(segment)
            else:
                self.names[len(self.names) + 1] = variable[1]
                written += "/(.+)" if variable[2] else "/([^/]+)"
        self.expression = re.compile(f"{written}/?")

    def rank(self) -> tuple[bool, list[int], bool]:
        """What comes first among patterns that match the same."""
        return 2 in self._kinds, self._kinds, self.method == "ANY"
