"""What a function loads before its first event: `python -m bench.coldstart [--rounds 9] [--beside FOLDER]`.

Each row is a fresh interpreter that imports one handler as Lambda's runtime does, or what others would import instead.
`--beside` is a folder into which `pip install --target` put `aws-lambda-powertools` and `mangum`, for their rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench import saving

_CHILD = """
import resource, sys, time
began, cpu = time.perf_counter(), time.process_time()
exec(sys.argv[1])
took, cpu = time.perf_counter() - began, time.process_time() - cpu
print(took * 1000, cpu * 1000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(sys.modules))
"""

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "HUBBUB_TABLE": "talk",
    "HUBBUB_ENDPOINT": "https://abc.execute-api.eu-west-1.amazonaws.com/live",
    "HUBBUB_BROADCASTER": "talk-broadcaster",
    "HUBBUB_SECRET": "a secret that is long enough to be one",
    "POWERTOOLS_SERVICE_NAME": "talk",
    "POWERTOOLS_METRICS_NAMESPACE": "talk",
}

_READY = """
from hubbub.lambdas.home import current
home = current()
home.run({coroutine})
"""

_CLIENTS = "import boto3; [boto3.client(name) for name in ('dynamodb', 'lambda')]"
_CALLBACKS = "; boto3.client('apigatewaymanagementapi', endpoint_url='https://abc.example/live')"

ROWS = {
    "the interpreter alone": "",
    "hubbub.lambdas.handlers": "import hubbub.lambdas.handlers",
    "handler (all routes)": "from hubbub.lambdas.handlers import handler",
    "handler, with its parts": "from hubbub.lambdas.handlers import handler; import hubbub.lambdas.assembly",
    "authorize": "from hubbub.lambdas.handlers import authorize",
    "authorize, ready to verify": "from hubbub.lambdas.handlers import authorize"
    + _READY.format(coroutine="home.warm_tokens()"),
    "broadcast": "from hubbub.lambdas.handlers import broadcast",
    "sweep": "from hubbub.lambdas.handlers import sweep",
    "backend": "from hubbub.lambdas.handlers import backend",
    "boto3": "import boto3",
    "boto3 with three clients": _CLIENTS + _CALLBACKS,
}

BESIDE = {
    "handler with powertools' logs": "from hubbub.lambdas.handlers import handler;"
    " from aws_lambda_powertools import Logger, Metrics; Logger(); Metrics()",
    "powertools: Logger and Metrics": "from aws_lambda_powertools import Logger, Metrics; Logger(); Metrics()",
    "powertools: SSM parameters too": "from aws_lambda_powertools import Logger, Metrics; Logger(); Metrics();"
    " from aws_lambda_powertools.utilities import parameters; parameters.SSMProvider()",
    "mangum with starlette": "import mangum, starlette.applications",
}


class Cost(NamedTuple):
    """What one row costs: milliseconds of the clock and of the processor, megabytes, modules."""

    took_ms: float
    cpu_ms: float
    mb: float
    modules: float


def measure(code: str, *, rounds: int, path: str | None, compiles: bool) -> Cost:
    """The median of some fresh interpreters; with `compiles` they have only sources, as in a folder without caches."""
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory() as caches:
        options = ["-B", "-X", f"pycache_prefix={caches}"] if compiles else []
        environment = {**_ENVIRONMENT, **({"PYTHONPATH": path} if path else {})}
        for _ in range(rounds + 1):  # the first one warms the file system's caches
            shown = subprocess.run(
                [sys.executable, *options, "-c", _CHILD, code],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
                timeout=120,
            )
            costs.append(Cost(*map(float, shown.stdout.split())))
    return Cost(*(statistics.median(column) for column in zip(*costs[1:], strict=True)))


def main(rounds: int, beside: Path | None) -> list[dict[str, object]]:
    """Print the table, and return its rows."""
    said: list[dict[str, object]] = []
    rows = ROWS | (BESIDE if beside else {})
    print(f"{'':<32}{'ms':>8}{'CPU ms':>8}{'MB':>8}{'modules':>9}{'CPU ms from sources':>21}")
    alone: Cost | None = None
    for name, code in rows.items():
        path = str(beside) if beside and name in BESIDE else None
        cost = measure(code, rounds=rounds, path=path, compiles=False)
        raw = measure(code, rounds=max(1, rounds // 3), path=path, compiles=True)
        alone = alone or cost
        mb = cost.mb - (alone.mb if cost is not alone else 0)
        print(f"{name:<32}{cost.took_ms:>8.0f}{cost.cpu_ms:>8.0f}{mb:>8.1f}{cost.modules:>9.0f}{raw.cpu_ms:>21.0f}")
        sizes = {"mb_beside": mb, "modules": cost.modules, "from_sources_cpu_ms": raw.cpu_ms}
        said.append({"import": name, "took_ms": cost.took_ms, "cpu_ms": cost.cpu_ms, **sizes})
    print("Megabytes are beside those of the interpreter alone.")
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--beside", type=Path)
    saving.add_argument(parser)
    given = parser.parse_args()
    rows = main(given.rounds, given.beside)
    if given.save:
        saving.save("coldstart", {"rows": rows})
