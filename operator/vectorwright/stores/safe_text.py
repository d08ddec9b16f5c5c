"""What may be shown of a foreign error's text: one short line, without the credentials that we hold."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LENGTH = 300
"""Characters: enough for the sentence that matters, short enough for a condition's message."""


def safe_text(text: str, secrets: Iterable[str | None] = (), limit: int = MAX_LENGTH) -> str:
    """``text`` on one line, cut to ``limit`` characters, every one of ``secrets`` in it replaced by ``***``.

    Servers and proxies echo what they were sent, so text that a foreign error carries goes through here before it
    reaches a message. Secrets are replaced before the cut: half of one is still a secret.
    """
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        text = text.replace(secret, "***")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
