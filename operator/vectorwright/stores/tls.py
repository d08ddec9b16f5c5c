"""The TLS settings of a connection as an SSL context, and what a failed handshake means."""

from __future__ import annotations

import ssl

from vectorwright.errors import Terminal

from .registry import TlsSettings

VERIFICATION_FAILED = "TLSVerificationFailed"
"""Reason of a Terminal: the server's certificate is not one that the settings trust."""


def ssl_context(tls: TlsSettings) -> ssl.SSLContext:
    """A context for a client. A CA bundle replaces the system's authorities.

    Raises Terminal (``InvalidCA``) where the bundle holds no certificate that can be read.
    """
    if tls.insecure_skip_verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if tls.ca is None:
        return ssl.create_default_context()
    bundle = tls.ca.encode("ascii", "ignore").decode()  # comments between certificates may be in any language
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError):  # ValueError: an empty bundle
        raise Terminal(
            "the CA bundle of spec.tls holds no PEM certificate that can be read: check the key of the Secret or "
            "ConfigMap that it comes from",
            reason="InvalidCA",
        ) from None
    return context


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS failure among the causes of ``error``, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
