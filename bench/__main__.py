"""Run benches, each in its own process: `python -m bench [--only a,b] [--quick] [--save] [--list]`, or `make bench`.

Which there are, which of them run when nobody asks for one by name, and how each is told to be quick, is decided here.
A bench that fails does not keep the others from running; the exit status tells.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple


class Bench(NamedTuple):
    """A module of this package that measures something when it is run.

    Attributes:
        about: what it measures.
        quick: further arguments for a run that only shows that it works, in half a minute or so.
        usual: whether it runs when no names are given; the others need PostgreSQL, NATS or a long time.

    """

    about: str
    quick: tuple[str, ...]
    usual: bool = True


BENCHES = {
    "delivery": Bench("server CPU of a delivered message, beside the bare broadcaster", ("--quick", "--rounds", "1")),
    "flushes": Bench("the end of a turn beside a bare loop in C, on the same sockets", ("--rounds", "10")),
    "sends": Bench("acknowledged sends a second on SQLite with fsync", ("--quick",)),
    "pgbench_sends": Bench("the same beside PostgreSQL's pgbench with the same row", ("--quick",), usual=False),
    "latency": Bench(
        "from a publish to the last delivery, beside the bare broadcaster", ("--rounds", "1", "--messages", "50")
    ),
    "memory": Bench("resident memory of an idle connection", ("--connections", "2000")),
    "connects": Bench(
        "what it costs to accept a connection, and a storm",
        ("--connections", "500", "--rounds", "1", "--storm", "1000"),
    ),
    "idle": Bench("what quiet connections cost", ("--connections", "500", "--seconds", "20", "--pretended", "5000")),
    "collector": Bench("halts for the garbage collector", ("--connections", "1000", "--pretended", "10000")),
    "path": Bench("where the time of a message goes", ("--quick",)),
    "tls": Bench("what TLS adds to a delivery, a connection and a handshake", ("--quick", "--rounds", "1")),
    "deflate": Bench("what compression costs and brings", ("--quick", "--rounds", "1")),
    "contract": Bench("functions in other places, @connections and groups", ("--rounds", "1", "--seconds", "1")),
    "posts": Bench("what a post to @connections costs whoever makes it", ("--rounds", "1", "--seconds", "1")),
    "inside": Bench("where the server's processor time goes, by py-spy", ("--seconds", "2"), usual=False),
    "many": Bench(
        "as many idle connections as the machine holds",
        ("--connections", "2000", "--room", "1000", "--rest", "2", "--storm"),
        usual=False,
    ),
    "curves": Bench("how cost grows with the work", ("--sizes", "10,100,1000,10000"), usual=False),
    "cluster_delivery": Bench(
        "the same for nodes with PostgreSQL and NATS", ("--rounds", "1", "--deliveries", "10000"), usual=False
    ),
    "cluster_sends": Bench("acknowledged sends in a cluster", ("--rounds", "1", "--seconds", "1"), usual=False),
    "cluster_memory": Bench("a node's memory", ("--connections", "1000", "--seconds", "5"), usual=False),
    "reconnects": Bench("the clients of a lost node come back to the others", ("--clients", "1000"), usual=False),
    "slow_consumer": Bench("what others feel of one that does not read", ("--rounds", "1"), usual=False),
    "coldstart": Bench("what a function imports before it can answer", ("--rounds", "1"), usual=False),
    "routes": Bench("how often one function and one for each route start cold, simulated", (), usual=False),
    "dynamodb": Bench("what appends ask of DynamoDB", ("--server", "moto", "--each", "20"), usual=False),
}


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=names, metavar="A,B", help="these, in this order, also those not run usually")
    parser.add_argument("--quick", action="store_true", help="few rounds and small sizes: to see that they work")
    parser.add_argument("--save", action="store_true", help="leave the figures in bench/results, for the documents")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    chosen = parser.parse_args(arguments)
    asked: list[str] = chosen.only or [name for name, bench in BENCHES.items() if bench.usual]
    if chosen.list:
        for name in chosen.only or BENCHES:
            print(f"{name:<18}{'' if BENCHES[name].usual else 'by name: '}{BENCHES[name].about}")
        return 0
    failed = [name for name in asked if run(name, quick=chosen.quick, save=chosen.save)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def names(text: str) -> list[str]:
    """Names of benches, separated by commas.

    Raises:
        argparse.ArgumentTypeError: there is no bench of such a name.

    """
    found = [each.strip() for each in text.split(",")]
    for each in found:
        if each not in BENCHES:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(BENCHES)}; got {each!r}")
    return found


def command(name: str, *, quick: bool, save: bool) -> list[str]:
    """What is run for a bench."""
    words = [sys.executable, "-m", f"bench.{name}"]
    return [*words, *(BENCHES[name].quick if quick else ()), *(["--save"] if save else [])]


def run(name: str, *, quick: bool, save: bool) -> int:
    """Run one bench; returns its exit status."""
    words = command(name, quick=quick, save=save)
    print(f"\n{name}: {BENCHES[name].about}\n$ python {' '.join(words[1:])}", flush=True)
    began = time.monotonic()
    status = subprocess.run(words, check=False).returncode
    print(f"({time.monotonic() - began:.0f} s{f', ended with {status}' if status else ''})", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
