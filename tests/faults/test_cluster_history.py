"""A cluster of which everything breaks keeps every promise, as its clients' history shows; and broken code is found.

`FAULTS_SECONDS` and `FAULTS_SEED` make a longer run, or the same again; `FAULTS_FOLDER` is where its history is kept.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from history.checker import check, describe
from history.nemesis import Nemesis
from history.record import Recorder
from history.summary import summary
from history.verdict import Kind
from scripts.servers import NatsCluster, Postgres

from faultlab import CONVERGED_WITHIN_S, breakable, nats_servers, run
from hubbub.store import open_store

SECONDS = float(os.environ.get("FAULTS_SECONDS", "0"))
"""How long everything is broken; 0 for every kind of fault once, and then what is left of `SHORT_S`."""

SHORT_S = 60.0
"""How long everything is broken in the short run."""

AT_LEAST = 50
"""How many faults a long run has."""

BROKEN_S = 4.0
"""How long clients talk to nodes whose code is broken."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as servers:
        yield servers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    named = os.environ.get("FAULTS_FOLDER")
    if named is None:
        return tmp_path
    folder = Path(named).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.timeout(175 + 2 * SECONDS)
async def test_no_promise_is_broken_while_everything_else_breaks(
    postgres: Postgres, nats: NatsCluster, folder: Path
) -> None:
    """Nodes, NATS and PostgreSQL are killed, paused, cut off and drained; no client ever notices more than a wait.

    What was acknowledged is stored once, what was not at most once; logs have no gaps; every client saw every entry of
    every room in order and once; and all had all of it soon after everything was healed.
    """
    seed = int(os.environ.get("FAULTS_SEED", random.randrange(2**32)))
    path = folder / "history.jsonl"
    print(f"seed {seed}, {path}")  # noqa: T201  pytest shows it when the test fails
    store = open_store(postgres.create_database("whole"))
    async with breakable(folder, postgres=postgres, database="whole", nats=nats, seed=seed) as (cluster, theatre):

        async def harm(recorder: Recorder) -> None:
            nemesis = Nemesis(theatre, recorder, seed=seed)
            try:
                if SECONDS:
                    await nemesis.rage(
                        enough=lambda: recorder.now() > SECONDS and nemesis.done.total() >= AT_LEAST,
                        lasting_s=4.0,
                        rest_s=2.0,
                    )
                else:
                    await nemesis.one_of_each(lasting_s=1.0, rest_s=0.3)
                    assert nemesis.done.keys() == nemesis.faults.keys()
                    await nemesis.rage(enough=lambda: recorder.now() > SHORT_S, lasting_s=1.0, rest_s=0.3)
            finally:
                await nemesis.end()

        history = await run(cluster.ws_url, store, path, seed=seed, harm=harm)
    print(summary(history))  # noqa: T201
    violations = check(history, converged_within_s=CONVERGED_WITHIN_S)
    assert not violations, f"seed {seed}, {path}\n{describe(violations)}"


@pytest.mark.skipif(SECONDS > 0, reason="the long run is of the code as it is")
@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("acknowledge_what_is_not_stored", {Kind.LOST}),
        ("deliver_as_it_comes", {Kind.HOLE}),
        ("forget_client_ids", {Kind.DOUBLED, Kind.WRONG_ACK}),
    ],
)
async def test_code_that_is_broken_on_purpose_is_found(
    way: str, kinds: set[Kind], postgres: Postgres, nats: NatsCluster, tmp_path: Path
) -> None:
    """Where nodes forget a message, deliver as it comes or forget what was sent, their clients' history shows it."""
    store = open_store(postgres.create_database(way))
    lab = breakable(tmp_path, postgres=postgres, database=way, nats=nats, seed=1, broken=way)
    async with lab as (cluster, theatre):

        async def harm(recorder: Recorder) -> None:
            if way == "deliver_as_it_comes":
                await Nemesis(theatre, recorder, seed=1).lose_messages("lose NATS messages", BROKEN_S)
            else:
                await asyncio.sleep(BROKEN_S)

        path = tmp_path / "history.jsonl"
        history = await run(cluster.ws_url, store, path, seed=1, harm=harm, settles=False, pause_s=0.1, break_s=60.0)
    violations = check(history, converged_within_s=CONVERGED_WITHIN_S)
    assert kinds <= {violation.kind for violation in violations}, describe(violations)
