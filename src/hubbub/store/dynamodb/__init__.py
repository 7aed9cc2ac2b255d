"""The store on one DynamoDB table, which many processes share: Lambda functions, or nodes.

`store` is the port and `opening` the way to the table; `keys` and `items` say what is in it. `appending` writes at
the end of logs (`tails`) what waits there (`lines`), a transaction (`drafts`) at a time, of entries and what they say
(`effects`). `rooms` are made and deleted, `seats` are what users have of them, `pages` reads logs; `retention`,
`leaving` and `redaction` remove. `failures` translates what DynamoDB says.
"""

from __future__ import annotations

from hubbub.store.dynamodb.opening import table_at
from hubbub.store.dynamodb.store import DynamoStore

__all__ = ["DynamoStore", "table_at"]
