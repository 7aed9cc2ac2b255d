"""Event sources: what invokes functions by itself, from queues, table streams, topics and schedules.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html.
"""

from hubbub.emulator.sources.batches import Pace, SourceInvalid
from hubbub.emulator.sources.running import Sources

__all__ = ["Pace", "SourceInvalid", "Sources"]
