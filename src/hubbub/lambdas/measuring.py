"""What of the chat's counters becomes metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hubbub.chat import Chat
from hubbub.errors import Internal
from hubbub.lambdas.logs import Measures


@contextmanager
def measured(chat: Chat, measures: Measures) -> Iterator[None]:
    """Add to `measures` what the chat counts meanwhile: `Actions`, `Errors`, `Failures`, `Entries`, `HookFailures`.

    The action and the error's code stand beside them as words: a metric for each would be paid for each.
    """
    stats = chat.stats
    actions, errors, entries, hooks = (
        stats.actions.copy(),
        stats.errors.copy(),
        stats.entries.copy(),
        stats.hook_failures,
    )
    try:
        yield
    finally:
        actions, errors, entries = stats.actions - actions, stats.errors - errors, stats.entries - entries
        failures = errors.pop(Internal.code, 0)
        measures.counts["Actions"] += actions.total()
        measures.counts["Errors"] += errors.total()
        measures.counts["Failures"] += failures
        measures.counts["Entries"] += entries.total()
        measures.counts["HookFailures"] += stats.hook_failures - hooks
        for word, counts in (("action", actions), ("error", errors)):
            if counts:
                measures.said[word] = ",".join(sorted(counts))
