"""Random bytes: enough of them, and the same ones for nobody."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from hubbub.entropy import BLOCK, random_bytes, random_word
from hubbub.model import new_ulid


@pytest.mark.parametrize("count", [1, 10, 11, BLOCK])
def test_as_many_come_as_are_asked_for(count: int):
    """Up to a block."""
    assert len(random_bytes(count)) == count


def test_a_word_is_of_all_characters_of_its_alphabet_alike():
    """Each about as often as any other."""
    words = [random_word() for _ in range(2_000)]
    assert {len(word) for word in words} == {BLOCK}
    found = Counter("".join(words))
    assert set(found) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert all(800 < count < 1_200 for count in found.values()), "1,000, give or take six standard deviations"


@pytest.mark.parametrize("fresh", [lambda: random_bytes(BLOCK), random_word])
def test_threads_get_different_ones(fresh: Callable[[], object]):
    """However many ask at once."""
    with ThreadPoolExecutor(4) as threads:
        taken = threads.map(lambda _: [fresh() for _ in range(2_000)], range(4))
    assert len({each for some in taken for each in some}) == 8_000


FORK = """
import os
from hubbub.entropy import random_bytes, random_word
random_bytes(16), random_word()
child = os.fork()
if child:
    os.waitpid(child, 0)  # two that write at once would mix their lines
print(*[random_bytes(16).hex() for _ in range(255)], *[random_word() for _ in range(255)], flush=True)
"""


@pytest.mark.slow
def test_a_forked_process_gets_different_ones():
    """What was fetched before the fork is used by the parent alone."""
    ran = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=30)
    assert len(set(ran.stdout.split())) == 4 * 255


SNAPSHOT = """
from snapshot_restore_py import get_after_restore
from hubbub import entropy
from hubbub.lambdas import home
home.current()
entropy.random_bytes(16), entropy.random_word()
blocks, words = list(entropy._blocks), list(entropy._words)
for _ in range(2):
    entropy._blocks[:], entropy._words[:] = blocks, words
    for hook, args, kwargs in get_after_restore():
        hook(*args, **kwargs)
    print(*[entropy.random_bytes(16).hex() for _ in range(255)], *[entropy.random_word() for _ in range(255)])
"""


@pytest.mark.slow
def test_environments_restored_from_one_snapshot_get_different_ones():
    """Lambda's SnapStart makes many environments of what one has fetched while it started."""
    environment = {"AWS_REGION": "eu-west-1", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", SNAPSHOT], capture_output=True, text=True, check=True, timeout=30, env=environment
    )
    assert len(set(ran.stdout.split())) == 4 * 255


def test_ulids_of_one_moment_differ_after_their_time():
    """Ten characters are the time, sixteen are random."""
    ids = {new_ulid(1_700_000_000_000) for _ in range(1_000)}
    assert {each[:10] for each in ids} == {"01HF7YAT00"}
    assert len({each[10:] for each in ids}) == 1_000
