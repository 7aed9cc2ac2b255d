"""Sessions of boto3's, one for all tests that have the same keys."""

from __future__ import annotations

from functools import cache

import boto3


@cache
def session(
    access_key: str, secret_key: str, *, region: str = "us-east-1", token: str | None = None
) -> boto3.session.Session:
    """A session with these keys. A new one reads anew what boto3 knows of a service, and takes a tenth of a second."""
    return boto3.session.Session(access_key, secret_key, aws_session_token=token, region_name=region)
