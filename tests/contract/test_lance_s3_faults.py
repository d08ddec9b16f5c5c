"""A bucket that is not as it should be, and a store that is busy: what is told, and what is tried again.

- a bucket that is not there, in another region, or not ours; a wrong key, secret or clock: each by its own sentence
- what these credentials may not do is told when the bucket is checked, not at the first write of a run
- a bucket that ignores conditions is refused, and the check leaves nothing behind
- a busy store is asked again, for a bounded time; then the caller is told
- server-side encryption is asked for with every object
- no message, log or repr holds a credential
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from tests.contract.data import batch, definition, scrolled
from tests.support.loopback_http import Request, Response
from tests.support.s3 import S3Proxy, VersitygwServer, s3_bucket, s3_connection

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


@pytest.fixture
def bucket(s3_server: VersitygwServer) -> str:
    return s3_bucket(s3_server)


@pytest.fixture
def proxy(s3_server: VersitygwServer) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server.url) as proxy:
        yield proxy


@pytest.fixture
async def behind(s3_server: VersitygwServer, bucket: str, proxy: S3Proxy) -> AsyncIterator[Store]:
    """A store behind the proxy, with the index ``docs`` of five records."""
    async with open_store(s3_connection(s3_server, bucket, endpoint=proxy.origin)) as store:
        await store.create_index(definition())
        await store.upsert("docs", batch(5))
        yield store


async def probe_error(connection: Connection) -> VectorwrightError:
    async with open_store(connection) as store:
        with pytest.raises(VectorwrightError) as raised:
            await store.probe()
    message = raised.value.message
    held = connection.credentials
    assert not any(secret and secret in message for secret in (held.password, held.token))
    assert len(message) < 600
    return raised.value


def refusal(code: str, status: int) -> Response:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>s3cret-that-never-shows</Message></Error>'
    return Response(body.encode(), status, {"Content-Type": "application/xml"})


async def test_what_is_wrong_with_a_bucket_is_told(s3_server: VersitygwServer, bucket: str) -> None:
    fine = s3_connection(s3_server, bucket)
    absent = await probe_error(s3_connection(s3_server, "no-such-bucket-here"))
    assert (type(absent), absent.reason) == (Terminal, "BucketNotFound")
    assert "no-such-bucket-here" in absent.message
    elsewhere = await probe_error(s3_connection(s3_server, bucket, region="eu-west-1"))
    assert (type(elsewhere), elsewhere.reason) == (Terminal, "WrongRegion")
    stranger = replace(fine, credentials=StoreCredentials(username="nobody", password=s3_server.secret_key))
    unknown = await probe_error(stranger)
    assert (type(unknown), unknown.reason) == (Terminal, "AccessDenied")
    assert "access key" in unknown.message
    wrong = await probe_error(
        replace(fine, credentials=StoreCredentials(username=s3_server.access_key, password="not the secret"))
    )
    assert (type(wrong), wrong.reason) == (Terminal, "AccessDenied")
    assert "secret key" in wrong.message


@pytest.mark.parametrize(
    ("code", "status", "kind", "reason", "words"),
    [
        ("RequestTimeTooSkewed", 403, Retryable, "ClockSkew", "clock"),
        ("ExpiredToken", 400, Terminal, "AccessDenied", "session token"),
        ("PermanentRedirect", 301, Terminal, "WrongRegion", "region"),
        ("KMS.DisabledException", 400, Terminal, "AccessDenied", "encryption"),
        ("NotImplemented", 501, Terminal, "UnsupportedByStore", "no such thing"),
    ],
)
async def test_what_an_object_store_says_is_told(  # noqa: PLR0917 - one row of the table above
    s3_server: VersitygwServer, bucket: str, proxy: S3Proxy, code: str, status: int, kind: type, reason: str, words: str
) -> None:
    proxy.fail(refusal(code, status), times=20)
    error = await probe_error(s3_connection(s3_server, bucket, endpoint=proxy.origin))
    assert (type(error), error.reason) == (kind, reason)
    assert words in error.message


@pytest.mark.parametrize(
    ("method", "what"), [("PUT", "writing an object"), ("POST", "deleting an object"), ("GET", "identity")]
)
async def test_what_credentials_may_not_do_is_told_by_the_probe(
    s3_server: VersitygwServer, bucket: str, proxy: S3Proxy, method: str, what: str
) -> None:
    proxy.fail(refusal("AccessDenied", 403), lambda request: request.method == method, times=20)
    error = await probe_error(s3_connection(s3_server, bucket, endpoint=proxy.origin))
    assert (type(error), error.reason) == (Terminal, "AccessDenied")
    assert what in error.message


@pytest.mark.parametrize("ignored", ["if-none-match", "if-match"])
async def test_a_bucket_that_ignores_conditions_is_refused(
    s3_server: VersitygwServer, bucket: str, proxy: S3Proxy, ignored: str
) -> None:
    proxy.overlook(ignored)
    connection = s3_connection(s3_server, bucket, endpoint=proxy.origin)
    error = await probe_error(connection)
    assert (type(error), error.reason) == (Terminal, "ConditionalWritesMissing")
    async with open_store(connection) as store:
        with pytest.raises(Terminal) as refused:
            await store.create_index(definition())
    assert refused.value.reason == "ConditionalWritesMissing"
    assert s3_server.objects(bucket) == []


async def test_the_check_of_a_bucket_leaves_its_identity_only(s3_server: VersitygwServer, bucket: str) -> None:
    async with open_store(s3_connection(s3_server, bucket)) as store:
        await store.probe()
    assert s3_server.objects(bucket) == ["vectors/_vectorwright/backend-id"]


async def test_a_busy_store_is_asked_again(behind: Store, proxy: S3Proxy) -> None:
    for call in (lambda: behind.count("docs"), lambda: behind.upsert("docs", batch(5, start=5)), behind.list_indexes):
        proxy.fail(refusal("SlowDown", 503), times=2)
        await call()
    assert await behind.count("docs") == 10
    proxy.fail(Response(reset=True), lambda request: request.method == "GET")
    assert await behind.count("docs") == 10


async def test_a_store_that_stays_busy_is_told_of_in_time(behind: Store, proxy: S3Proxy) -> None:
    for call in (
        lambda: behind.count("docs"),
        lambda: behind.upsert("docs", batch(5)),
        lambda: scrolled(behind),
        behind.probe,
    ):
        proxy.fail(refusal("SlowDown", 503), times=1000)
        began = time.monotonic()
        with pytest.raises(Retryable) as raised:
            await call()
        assert raised.value.reason == "Throttled"
        assert time.monotonic() - began < 25
        proxy.recover()
    assert len(await scrolled(behind)) == 5


async def test_a_commit_whose_answer_was_lost_is_known_again(behind: Store, proxy: S3Proxy) -> None:
    """The head was written, and the answer to that was cut off: it is written again, refused, and recognised."""

    def is_head(request: Request) -> bool:
        return request.method == "PUT" and request.path.endswith("docs.head.json")

    for number in range(4):
        proxy.cut_answer(is_head)
        await behind.upsert("docs", batch(5, start=5 * number))
    assert await behind.count("docs") == 20


@pytest.mark.parametrize(
    ("encryption", "headers"),
    [
        ({"algorithm": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"algorithm": "aws:kms", "kmsKeyId": "key-1", "bucketKey": True},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
                "x-amz-server-side-encryption-bucket-key-enabled": "true",
            },
        ),
    ],
)
async def test_encryption_is_asked_for_with_every_object(
    s3_server: VersitygwServer, bucket: str, proxy: S3Proxy, encryption: dict[str, object], headers: dict[str, str]
) -> None:
    connection = s3_connection(s3_server, bucket, endpoint=proxy.origin, serverSideEncryption=encryption)
    async with open_store(connection) as store:
        await store.create_index(definition())
        await store.upsert("docs", batch(5))
        assert await store.count("docs") == 5
    written = [request for request in proxy.requests if request.method == "PUT"]
    assert {request.path.rsplit(".", 1)[-1] for request in written} >= {"json", "lance", "manifest", "txn"}
    for request in written:
        for name, value in headers.items():
            assert request.headers.get(name) == value, request.path


async def test_nothing_that_is_logged_holds_a_credential(
    s3_server: VersitygwServer, behind: Store, proxy: S3Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy.fail(Response(b"<html>welcome</html>", 200), lambda request: ".lance/" in request.path, times=1000)
    with pytest.raises(VectorwrightError):
        await scrolled(behind)
    with pytest.raises(VectorwrightError):
        await behind.upsert("docs", batch(5))
    proxy.recover()
    assert s3_server.secret_key not in caplog.text + repr(behind)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": {"s3": {"bucket": "abc"}, "server": "http://a"}}, "InvalidSpec"),
        ({"credentials": StoreCredentials(username="only an id")}, "MissingCredentials"),
        ({"credentials": StoreCredentials(token="only a token")}, "MissingCredentials"),
        ({"tls": TlsSettings(ca="PEM")}, "TLSNotSupported"),
    ],
)
def test_contradictions_are_refused_before_any_request(
    s3_server: VersitygwServer, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(Terminal) as refused:
        open_store(replace(s3_connection(s3_server, "abc"), **changes))  # type: ignore[arg-type]
    assert refused.value.reason == reason
