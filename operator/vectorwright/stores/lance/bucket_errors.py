"""What object stores answer, as our errors.

Both libraries tell of a failed request in one long text: the store's answer (XML with a ``<Code>``) is in it, and so
are addresses, signatures and parts of keys. The code and the status are read from it; nothing of the text is passed on.
"""

from __future__ import annotations

import re

from vectorwright.errors import BatchTooLarge, NotFound, Retryable, Terminal, VectorwrightError

from .bucket import Bucket

_CODE = re.compile(r"<Code>\s*([A-Za-z][A-Za-z0-9.]{0,63})\s*</Code>")
_JSON_CODE = re.compile(r'\\?"(?:code|error)\\?"\s*:\s*\\?"([A-Za-z_][A-Za-z0-9_.]{0,63})\\?"')
_STATUS = re.compile(r"(?:status code: |status: )(\d{3})\b")

_NO_SUCH_BUCKET = {"NoSuchBucket", "ContainerNotFound", "AllAccessDisabled"}
_WRONG_KEY = {
    *("InvalidAccessKeyId", "XAdminUserNotFound", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("invalid_grant", "invalid_client", "UserNotFound"),
}
_WRONG_SECRET = {"SignatureDoesNotMatch", "AuthenticationFailed", "InvalidSignature"}
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException", "InvalidToken", "RequestExpired"}
_SKEW = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "TemporaryRedirect",
}
_BUSY = {
    *("SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "ServerBusy"),
    *("RequestThrottled", "BandwidthLimitExceeded", "ServiceUnavailable"),
}
_ABSENT = {"NoSuchKey", "BlobNotFound", "NotFound", "ResourceNotFound"}
_UNREACHABLE = (
    *("error sending request", "Connection refused", "ConnectError", "connect error", "Connection reset", "dns error"),
    *("connection closed", "IncompleteMessage", "Broken pipe", "UnexpectedEof", "unexpected EOF", "end of file"),
    *("error decoding response body", "error reading a body", "broken pipe", "channel closed", "connection error"),
)
_GARBAGE = (
    "Error parsing",
    "deserializ",
    "DeError",
    "invalid XML",
    "syntax error",
    "InvalidListResponse",
    "missing field",
)
_TIMEOUTS = ("operation timed out", "TimedOut", "Timeout", "deadline has elapsed", "timed out")
_CONFLICTS = (
    "commit conflict",
    "Incompatible transaction",
    "preempted by concurrent",
    "Too many concurrent writers",
    "TooMuchWriteContention",
)
_TLS = ("certificate", "InvalidCertificate", "UnknownIssuer", "tls handshake")
_NO_IDENTITY = (
    *("CredentialsNotLoaded", "no credentials", "NoCredentials", "credential provider", "instance metadata"),
    *("169.254.169.254", "169.254.170.2", "metadata.google.internal"),
)


def error_code(text: str) -> str | None:
    """The code of the store's own answer, such as ``NoSuchBucket``, where the text holds one."""
    found = _CODE.search(text) or _JSON_CODE.search(text)
    return found.group(1) if found else None


def error_status(text: str) -> int | None:
    """The HTTP status, where the text holds one."""
    found = _STATUS.search(text)
    return int(found.group(1)) if found else None


def is_absent(text: str) -> bool:
    """Whether the store itself says that there is no such object: an error page of a proxy does not."""
    return error_code(text) in _ABSENT


def is_missing(text: str) -> bool:
    """Whether an object that a table names is not there: the version that was read is too old, or the table is gone."""
    return is_absent(text) or "not found" in text.lower()


def is_commit_conflict(text: str) -> bool:
    """Whether Lance says that another commit came first: of a writer who lost its lease."""
    return any(phrase in text for phrase in _CONFLICTS)


def bucket_error(bucket: Bucket, what: str, error: BaseException) -> VectorwrightError:
    """Our error for one of obstore or lancedb. ``what`` says what was being done, such as ``listing tables``."""
    if isinstance(error, VectorwrightError):
        return error
    if isinstance(error, TimeoutError):
        return _timeout(bucket, what)
    text = str(error)
    code, status = error_code(text), error_status(text)
    return (
        _of_code(bucket, what, code)
        or _of_status(bucket, what, status, code)
        or _of_transport(bucket, what, text)
        or Retryable(f"{bucket.label}: {what} failed ({type(error).__name__}); the log says why", reason="StoreFailed")
    )


def _timeout(bucket: Bucket, what: str) -> Retryable:
    return Retryable(f"{bucket.label}: {what}: no answer in {bucket.timeout:g} s", reason="Timeout")


_BY_CODE: tuple[tuple[set[str], type[Terminal | Retryable], str, str], ...] = (
    (_NO_SUCH_BUCKET, Terminal, "BucketNotFound", "the bucket does not exist: make it, or correct its name"),
    (_WRONG_KEY, Terminal, "AccessDenied", "the store does not know this access key"),
    (_WRONG_SECRET, Terminal, "AccessDenied", "the secret key does not fit the access key"),
    (_EXPIRED, Terminal, "AccessDenied", "the session token is expired or invalid: renew it"),
    (_REGION, Terminal, "WrongRegion", "the bucket is in another region: correct s3.region"),
    (_SKEW, Retryable, "ClockSkew", "the clock of this machine differs from the store's by too much: set it"),
    (_BUSY, Retryable, "Throttled", "the store asks to slow down"),
)
_BY_STATUS: tuple[tuple[set[int], type[Terminal | Retryable], str, str], ...] = (
    ({409}, Retryable, "Unavailable", "another request is in its way"),
    ({413}, BatchTooLarge, "BatchTooLarge", "it is larger than the store takes"),
    ({401, 403}, Terminal, "AccessDenied", "this is not allowed to these credentials"),
    ({429, 503}, Retryable, "Throttled", "the store asks to slow down"),
    ({501}, Terminal, "UnsupportedByStore", "the store has no such thing"),
    ({301, 302, 307, 308}, Terminal, "UnexpectedRedirect", "it redirects elsewhere"),
    ({408}, Retryable, "Timeout", "the store waited too long for the request"),
)


def _of_code(bucket: Bucket, what: str, code: str | None) -> VectorwrightError | None:
    if code is None:
        return None
    for codes, kind, reason, sentence in _BY_CODE:
        if code in codes:
            return kind(f"{bucket.label}: {what}: {sentence} ({code})", reason=reason)
    if code.startswith("KMS."):
        problem = "the key of the server-side encryption cannot be used"
    elif code == "AccessDenied" or code.startswith("Authorization"):
        problem = "this is not allowed to these credentials"
    else:
        return None
    return Terminal(f"{bucket.label}: {what}: {problem} ({code})", reason="AccessDenied")


def _of_status(bucket: Bucket, what: str, status: int | None, code: str | None) -> VectorwrightError | None:
    if status is None:
        return None
    where, said = f"{bucket.label}: {what}", f"{status} {code}" if code else str(status)
    for statuses, kind, reason, sentence in _BY_STATUS:
        if status in statuses:
            return kind(f"{where}: {sentence} ({said})", reason=reason)
    if status >= 500:
        return Retryable(f"{where}: the store failed ({said})", reason="Unavailable")
    if code in _ABSENT:
        return NotFound(f"{where}: the store has no such object ({said})")
    if code is None:
        return Retryable(f"{where}: {said} in no form that an object store has", reason="UnexpectedAnswer")
    return Terminal(f"{where}: the store refused it ({said})", reason="RequestRefused")


def _of_transport(bucket: Bucket, what: str, text: str) -> VectorwrightError | None:
    def says(phrases: tuple[str, ...]) -> bool:
        return any(phrase in text for phrase in phrases)

    where = bucket.label
    if not bucket.secrets and says(_NO_IDENTITY):
        return Terminal(
            f"{where}: no credentials, and this pod has no identity of its own", reason="MissingCredentials"
        )
    if "incorrectly configured region" in text:  # a redirect that says not where to
        return Terminal(f"{where}: the bucket is in another region: correct s3.region", reason="WrongRegion")
    if says(_TLS):
        return Terminal(f"{where}: the certificate of the endpoint is not trusted", reason="TLSVerificationFailed")
    if says(_TIMEOUTS):
        return _timeout(bucket, what)
    if says(_UNREACHABLE):
        return Retryable(f"{where}: {what}: it cannot be reached, or ended the connection", reason="Unreachable")
    if says(_GARBAGE):
        return Retryable(f"{where}: {what}: an answer in no form that an object store has", reason="UnexpectedAnswer")
    return None
