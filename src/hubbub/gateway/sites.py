"""Where APIs are found: by the host that a client calls and the path that it asks for."""

from __future__ import annotations

from collections.abc import Mapping

from hubbub.apigateway import Api

Paths = Mapping[str, Api]
"""APIs by path, such as `/prod`; `/` or an empty path for the root of a host."""


class Sites:
    """APIs at their addresses.

    Args:
        paths: where APIs are on every host that is none of `domains`, by stage on AWS: `/prod`.
        domains: where they are on hosts of their own (custom domains), where the stage need not be in the path.

    """

    def __init__(self, paths: Paths, domains: Mapping[str, Paths] | None = None) -> None:
        self.paths = {_plain(path): api for path, api in paths.items()}
        self.domains = {
            host.lower(): {_plain(path): api for path, api in known.items()} for host, known in (domains or {}).items()
        }

    def __repr__(self) -> str:
        return f"<Sites {', '.join(self.addresses())}>"

    def addresses(self) -> list[str]:
        """All paths, with the host where it matters."""
        own = [f"{host}{path or '/'}" for host, known in self.domains.items() for path in known]
        return [path or "/" for path in self.paths] + own

    def at(self, host: str, path: str) -> Api | None:
        """The API to which a client connects there; a slash at the end means nothing."""
        return self._of(host).get(_plain(path))

    def beside(self, host: str, prefix: str) -> Api | None:
        """The API whose connections are managed under `prefix`, which may be left out where a host has but one."""
        known = self._of(host)
        found = known.get(_plain(prefix))
        if found is None and not _plain(prefix) and len(known) == 1:
            (found,) = known.values()
        return found

    def now(self, api: Api) -> Api | None:
        """What an API of before is now: the same stage of it, in the same place; None where that is not here."""
        everything = [*self.paths.values(), *(each for known in self.domains.values() for each in known.values())]
        place = (api.id, api.stage, api.domain_name)
        return next((each for each in everything if (each.id, each.stage, each.domain_name) == place), None)

    def _of(self, host: str) -> Mapping[str, Api]:
        name = host.lower()
        return self.domains.get(name) or self.domains.get(name.rpartition(":")[0]) or self.paths


def _plain(path: str) -> str:
    return path.rstrip("/")
