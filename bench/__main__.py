"""Run all benches: `python -m bench`, or `make bench`."""

from __future__ import annotations

import uvloop

from bench import contract, delivery, memory, path, posts, sends

print("Server CPU time per delivered message")
uvloop.run(delivery.main(rounds=5, quick=False))
print("\nAcknowledged sends on SQLite with fsync")
uvloop.run(sends.main(rounds=3, seconds=5))
print("\nMemory per idle connection")
uvloop.run(memory.main(10_000))
print("\nWhere the time of a message goes")
uvloop.run(path.main(rounds=5, messages=3_200))
print("\nFunctions in other places, @connections and groups")
uvloop.run(contract.main(rounds=3, seconds=4))
print("\nWhat a post to @connections costs whoever makes it")
posts.main(rounds=5, seconds=3)
