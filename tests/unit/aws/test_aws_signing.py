"""Signing one request after another is signing, and no other way of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.aws.signing import Signer
from hubbub.sigv4 import Credentials, Keys, sign, verify

NOW_S = 1_700_000_000.5
DAY_S = 86_400.0

SEGMENTS = st.text(st.sampled_from("abz019-_.~@%/=+ "), max_size=12)
TARGETS = st.one_of(
    st.sampled_from(["/", "/prod/@connections/R0oXAdfD0kwCH6w%3D", "/a/../b", "/a//b", "/a/", "/a?b=c&a=%20", "/.a"]),
    SEGMENTS.map(lambda text: "/" + text.replace(" ", "%20")),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "X-Amz-Target", "X-Amz-Invocation-Type", "User-Agent", "X-Other", "x-amz-content-sha256"]
    ),
    st.sampled_from(["value", "two  words", " around ", "UNSIGNED-PAYLOAD", "a,b"]),
)
CREDENTIALS = st.sampled_from([Credentials("AKID", "secret"), Credentials("AKID2", "s" * 80, "a token/+=")])


@settings(deadline=None)  # a busy machine is no defect
@given(TARGETS, HEADERS, st.binary(max_size=40), CREDENTIALS, st.sampled_from(["POST", "GET", "DELETE"]))
def test_it_is_what_sigv4_signs(
    target: str, headers: dict[str, str], body: bytes, credentials: Credentials, method: str
) -> None:
    """Whatever the request, its signature is the one that `sigv4.sign` gives it, and passes."""
    signer = Signer(credentials, origin="https://h:8443", host="h:8443", service="execute-api", region="eu-west-1")
    given_headers = list(headers.items())
    for now_s in (NOW_S, NOW_S + 0.1, NOW_S + 1, NOW_S + DAY_S, NOW_S):
        signed = signer.sign(method, target, given_headers, body, now_s)
        expected = sign(
            credentials,
            method=method,
            url=f"https://h:8443{target}",
            headers=headers,
            body=body,
            service="execute-api",
            region="eu-west-1",
            now_s=now_s,
        )
        assert sorted(signed) == sorted({**headers, **expected}.items())
        path, _, query = target.partition("?")
        keys = Keys({credentials.access_key: credentials.secret_key})
        fields = [("Host", "h:8443"), *signed]
        assert verify(
            keys, method=method, path=path, query=query, fields=fields, body=body, service="execute-api", now_s=now_s
        ).checked


def test_the_secret_is_not_shown() -> None:
    """What a signer shows of itself is the access key."""
    signer = Signer(Credentials("AKID", "very-secret"), origin="https://h", host="h", service="s", region="r")
    assert "AKID" in repr(signer)
    assert "very-secret" not in repr(signer)
