"""Tables in a bucket: how the libraries are told, what foreign errors become, and what is decided without a request.

- storage options of S3, GCS and Azure, and whose credentials they hold
- plain HTTP only where an endpoint says so
- every error text becomes one of our errors, and nothing of it is passed on
- heads come back as they were written; those of a newer version are refused by name
- listing and describing load no Lance library
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from vectorwright.errors import BatchTooLarge, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDescription, OwnershipMark
from vectorwright.stores.lance.bucket import Bucket, bucket_of
from vectorwright.stores.lance.bucket_errors import bucket_error, is_absent, is_commit_conflict
from vectorwright.stores.lance.heads import READY, Head, open_objects
from vectorwright.stores.lance.settings import check_bucket_settings, check_lance_settings
from vectorwright.stores.registry import Connection, StoreCredentials
from vectorwright.stores.wire import WireError

SECRET = "s3cret-that-never-shows"


def bucket(settings: dict[str, Any], **credentials: str) -> Bucket:
    found = bucket_of(Connection("lance", settings, credentials=StoreCredentials(**credentials), timeout=7))
    assert found is not None
    assert SECRET not in repr(found) + found.label + found.uri
    return found


def test_a_server_is_no_bucket() -> None:
    assert bucket_of(Connection("lance", {"server": "http://lance:8090"})) is None


def test_s3_on_aws() -> None:
    block = {"bucket": "vectors", "prefix": "a/b", "region": "eu-central-1"}
    place = bucket({"s3": block}, username="AKIA", password=SECRET, token="session")
    assert (place.uri, place.label) == ("s3://vectors/a/b", "s3://vectors/a/b")
    assert place.key("x", "y") == "a/b/x/y"
    assert place.lance["aws_access_key_id"] == "AKIA"
    assert place.lance["aws_secret_access_key"] == place.obstore["secret_access_key"] == SECRET
    assert place.lance["aws_session_token"] == "session"
    assert place.lance["aws_region"] == "eu-central-1"
    assert place.lance["aws_virtual_hosted_style_request"] == "true"
    assert "allow_http" not in place.lance
    assert "allow_http" not in place.client
    assert open_objects(place) is not None


def test_s3_at_an_endpoint() -> None:
    place = bucket({"s3": {"bucket": "vectors", "endpoint": "http://minio:9000/"}}, username="id", password=SECRET)
    assert place.label == "s3://vectors at http://minio:9000"
    assert place.lance["aws_endpoint"] == place.obstore["endpoint"] == "http://minio:9000"
    assert place.lance["aws_virtual_hosted_style_request"] == "false"
    assert place.lance["allow_http"] == "true"
    assert place.client["allow_http"] is True
    assert place.key("x") == "x"
    hosted = {"bucket": "vectors", "endpoint": "https://storage.example.com", "virtualHosted": True}
    assert bucket({"s3": hosted}).obstore["endpoint"] == "https://vectors.storage.example.com"


def test_s3_without_credentials_names_none() -> None:
    place = bucket({"s3": {"bucket": "vectors", "region": "eu-central-1"}})
    assert not [name for name in (*place.lance, *place.obstore) if "key" in name or "token" in name]


def test_gcs() -> None:
    place = bucket({"gcs": {"bucket": "vectors", "prefix": "a"}}, token=SECRET)
    assert place.uri == "gs://vectors/a"
    assert place.lance["google_service_account_key"] == place.obstore["service_account_key"] == SECRET
    with pytest.raises(Terminal) as refused:
        open_objects(place)
    assert refused.value.reason == "InvalidCredentials"
    assert SECRET not in refused.value.message


def test_azure() -> None:
    block = {"account": "someaccount", "container": "vectors"}
    place = bucket({"azure": block}, password="c2VjcmV0")
    assert (place.uri, place.label) == ("az://vectors", "az://vectors at account someaccount")
    assert place.lance["azure_storage_account_name"] == "someaccount"
    assert place.lance["azure_storage_account_key"] == "c2VjcmV0"
    assert open_objects(place) is not None
    signed = bucket({"azure": block}, token=f"?sv=1&sig={SECRET}")
    assert signed.lance["azure_storage_sas_key"] == signed.obstore["sas_key"] == f"sv=1&sig={SECRET}"
    assert open_objects(signed) is not None
    with pytest.raises(Terminal):
        bucket_of(Connection("lance", {"azure": block}, credentials=StoreCredentials(token="a", password="b")))


def answer(status: int, code: str) -> str:
    return (
        f"Generic S3 error: Error performing PUT http://minio/vectors/x?sig={SECRET} in 1ms - Server returned non-2xx "
        f"status code: {status} Some Words: <?xml ?><Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
    )


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (answer(404, "NoSuchBucket"), Terminal, "BucketNotFound"),
        (answer(404, "ContainerNotFound"), Terminal, "BucketNotFound"),
        (answer(403, "InvalidAccessKeyId"), Terminal, "AccessDenied"),
        (answer(403, "SignatureDoesNotMatch"), Terminal, "AccessDenied"),
        (answer(403, "AuthenticationFailed"), Terminal, "AccessDenied"),
        (answer(403, "AuthorizationPermissionMismatch"), Terminal, "AccessDenied"),
        (answer(403, "SomethingNew"), Terminal, "AccessDenied"),
        (answer(400, "AuthorizationHeaderMalformed"), Terminal, "WrongRegion"),
        (answer(403, "RequestTimeTooSkewed"), Retryable, "ClockSkew"),
        (answer(503, "SlowDown"), Retryable, "Throttled"),
        (answer(429, "TooManyRequests"), Retryable, "Throttled"),
        (answer(500, "InternalError"), Retryable, "Unavailable"),
        (answer(409, "OperationAborted"), Retryable, "Unavailable"),
        (answer(413, "EntityTooLarge"), BatchTooLarge, "BatchTooLarge"),
        (answer(404, "NoSuchKey"), NotFound, "NotFound"),
        (answer(400, "InvalidArgument"), Terminal, "RequestRefused"),
        ("status code: 404 Not Found: <html>no such site</html>", Retryable, "UnexpectedAnswer"),
        ('inner: Status { status: 503, body: Some("<html>busy</html>") }', Retryable, "Throttled"),
        ("HTTP error: error sending request: Connection refused", Retryable, "Unreachable"),
        ("HTTP error: operation timed out", Retryable, "Timeout"),
        ("invalid peer certificate: UnknownIssuer", Terminal, "TLSVerificationFailed"),
        ("lance error: something that nobody foresaw", Retryable, "StoreFailed"),
    ],
)
def test_foreign_errors_become_ours(text: str, kind: type, reason: str) -> None:
    place = bucket({"s3": {"bucket": "vectors", "endpoint": "http://minio"}}, username="id", password=SECRET)
    error = bucket_error(place, "writing an object", RuntimeError(text + "x" * 5000))
    assert (type(error), error.reason) == (kind, reason)
    assert "minio" in error.message
    assert "Some Words" not in error.message
    assert len(error.message) < 400


def test_what_only_the_store_can_say_is_not_taken_from_a_proxy() -> None:
    assert is_absent(answer(404, "NoSuchKey"))
    assert not is_absent("status code: 404 Not Found: <html>no such site</html>")
    assert is_commit_conflict("lance error: Retryable commit conflict for version 5: preempted")
    assert not is_commit_conflict(answer(409, "OperationAborted"))


def test_a_head_comes_back() -> None:
    description = IndexDescription(
        name="docs",
        dimension=3,
        metric="cosine",
        incarnation="i-1",
        fields=(FieldDefinition("path", "keyword"),),
        settings={"index_type": "ivfPq"},
        mark=OwnershipMark("a", "b", "c"),
        model_fingerprint="fp",
        count=7,
    )
    head = Head(READY, "docs.1234.lance", description, 5, True, ("v1",), 3, 40, ("old.lance",), "me", "n")
    assert Head.decode(head.encode()) == head
    with pytest.raises(WireError):
        Head.decode(head.encode().replace(b'"format":1', b'"format":2'))
    assert replace(head, nonce="other").encode() != head.encode()


@pytest.mark.parametrize(
    "settings",
    [
        {"compaction.min_commits": 7},
        {"compaction.min_commits": True},
        {"versions.keep_seconds": 299},
        {"versions.keep_seconds": 3e3},
        {"index_type": "hnsw"},
        {"unknown": 1},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Terminal):
        check_bucket_settings(settings)


def test_a_volume_has_no_settings_of_buckets() -> None:
    check_bucket_settings({"compaction.min_commits": 8, "versions.keep_seconds": 300, "index_type": "ivfPq"})
    with pytest.raises(Terminal) as refused:
        check_lance_settings({"versions.keep_seconds": 300})
    assert refused.value.reason == "UnsupportedSetting"


def test_what_only_lists_loads_no_library() -> None:
    code = (
        "import sys; from vectorwright.stores.registry import Connection, open_store; "
        "open_store(Connection('lance', {'s3': {'bucket': 'abc', 'endpoint': 'http://127.0.0.1:1'}})); "
        "print(sorted({'lancedb', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
