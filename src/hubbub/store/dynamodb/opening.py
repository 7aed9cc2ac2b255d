"""Opening the table at an address, and why it cannot be."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubbub.aws.credentials import NoCredentials, find
from hubbub.aws.http import HttpClient
from hubbub.aws.service import AwsError, Service
from hubbub.aws.table import Cancelled, Put, Table, TableMissing
from hubbub.entropy import random_bytes
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.failures import translated

HOW = (
    "make it with keys pk (HASH) and sk (RANGE), both strings, on demand, with ttl as its time-to-live attribute; "
    "docs/reference/dynamodb.md has the command"
)


@asynccontextmanager
async def table_at(name: str, *, region: str | None = None, endpoint: str | None = None) -> AsyncIterator[Table]:
    """The table of that name, for the length of a block.

    Args:
        name: the table's.
        region: where it is; by default what `AWS_REGION` or `AWS_DEFAULT_REGION` says.
        endpoint: DynamoDB's address; by default AWS's own, or what `AWS_ENDPOINT_URL_DYNAMODB` says.

    Raises:
        ValueError: no region is known, or there are no credentials.

    """
    where = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not where:
        raise ValueError("store: expected a region in dynamodb://TABLE?region=… or in AWS_REGION, got none")
    try:
        credentials = find()
    except NoCredentials as error:
        raise ValueError(f"store: {error}") from error
    async with HttpClient() as http:
        yield Table(Service(http, "dynamodb", region=where, credentials=credentials, endpoint=endpoint), name)


async def read_epoch(table: Table) -> str:
    """The word that was made when the table was first used; reading it also shows that there is such a table.

    Raises:
        ValueError: there is no such table, it has other keys, or its server has no transactions.
        Unavailable: DynamoDB does not answer.

    """
    try:
        item = await table.get(keys.EPOCH)
        return str(item["word"]) if item is not None else await _make_epoch(table)
    except TableMissing as error:
        raise ValueError(f"store: there is no table {table.name!r}: {HOW}") from error
    except (AwsError, NoCredentials) as error:
        match error:
            case AwsError(type="ValidationException"):
                raise ValueError(f"store: the table {table.name!r} has other keys than pk and sk: {HOW}") from error
            case AwsError(type="UnknownOperationException"):
                raise ValueError("store: expected a server with transactions (TransactWriteItems)") from error
        raise translated(error) from error


async def _make_epoch(table: Table) -> str:
    """Make the word, or read the one that somebody else has just made.

    In a transaction, so that a server which has none is found out before anything relies on it.
    """
    pk, sk = keys.EPOCH
    made = random_bytes(8).hex()
    try:
        await table.transact(Put({"pk": pk, "sk": sk, "word": made}, "attribute_not_exists(pk)"))
    except Cancelled:
        return await read_epoch(table)
    return made
