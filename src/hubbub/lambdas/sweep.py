"""The sweeper's handler: what time brings, once a minute, where no process waits for it.

Tokens that end, heads that are due, connections that left, entries beyond what is kept. A step that fails keeps none
of the others from being done; the invocation fails in the end, for somebody to look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from hubbub.lambdas.home import Chore, Home
from hubbub.lambdas.invocation import Document, Function, Invocation
from hubbub.lambdas.measuring import measured

logger = logging.getLogger("hubbub.lambdas")

SWEEP_MARGIN_S = 2.0
"""How long before the invocation ends the last step is given up; the next minute goes on with it."""

STEP_SHARE = 0.6
"""What a step may take of the time that is left, while others are to come: none is kept from its turn by those before
it."""


class SweepFailed(Exception):
    """Some of what time brings was not done."""


async def look_around(home: Home, event: Any, call: Invocation) -> Document | None:  # Any: EventBridge's, not read
    """Do a minute's background work.

    Raises:
        SweepFailed: a step failed; the log says why.

    """
    chat = await home.chat()

    async def tick(within_s: float) -> None:
        await chat.tick()

    steps: list[tuple[str, Chore]] = [("tick", tick), *await home.chores()]
    failed: list[str] = []
    with measured(chat, call.measures):
        for place, (name, step) in enumerate(steps, 1):
            began = time.perf_counter()
            try:
                within_s = call.left_s(SWEEP_MARGIN_S) * (1.0 if place == len(steps) else STEP_SHARE)
                async with asyncio.timeout(within_s):
                    await step(within_s)
            except Exception:
                logger.exception("the step %s failed", name)
                failed.append(name)
            call.measures.said[f"{name}_ms"] = round((time.perf_counter() - began) * 1_000, 1)
        await chat.settle(call.left_s(SWEEP_MARGIN_S))
    if failed:
        raise SweepFailed(f"expected every step to be done, these failed: {', '.join(failed)}")
    return None


async def _warm(home: Home) -> None:
    await home.chat()


sweep = Function(look_around, takes=object, warm=_warm)
"""The sweeper."""
