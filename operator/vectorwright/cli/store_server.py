"""``vectorwright store-server``: own Lance tables, FAISS indexes or a store in memory, and serve them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from vectorwright.errors import Terminal
from vectorwright.observability.logs import configure_logging
from vectorwright.settings import BindAddress
from vectorwright.stores.server.hosting import Hosted, HostedDirectory
from vectorwright.stores.server.memory import limit_memory

_DESCRIPTION = (
    "Own a directory of Lance tables, one of FAISS indexes, a store in memory, or several of them, and serve them over "
    "HTTP. A directory has one owner: a second server on it is refused. A write is acknowledged when it is on the "
    "disk. SIGTERM ends it in good order."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "store-server",
        help="serve the stores that live in files or memory",
        description=_DESCRIPTION,
        allow_abbrev=False,
    )
    parser.add_argument("--listen", type=_address, metavar="HOST:PORT", help="where to listen; port 0 is a free one")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="socket to listen on, for its owner only")
    parser.add_argument("--lance", type=Path, metavar="DIR", help="directory of Lance tables; made where there is none")
    parser.add_argument(
        "--lance-folders",
        action="store_true",
        help="clients name a folder below DIR, each a store of its own (for trials: the operator runs it so)",
    )
    parser.add_argument("--faiss", type=Path, metavar="DIR", help="directory of FAISS indexes, or the same; as above")
    parser.add_argument("--faiss-folders", action="store_true", help="as --lance-folders, below the DIR of --faiss")
    parser.add_argument(
        "--faiss-memory",
        type=_mebibytes,
        metavar="MIB",
        help="memory that all FAISS indexes together may take (default: three quarters of what there is)",
    )
    parser.add_argument(
        "--encryption-key-file",
        type=Path,
        metavar="FILE",
        help="encrypt FAISS indexes at rest (AES-256-GCM): a key of 32 bytes, raw, base64 or hexadecimal; further "
        "lines are older keys, to read with",
    )
    parser.add_argument("--memory", action="store_true", help="a store in memory, gone when the server stops")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="bearer tokens to let in, one a line; read again on change"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM) for --listen")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--insecure", action="store_true", help="let other machines in without a token")
    parser.add_argument("--no-fsync", action="store_true", help="acknowledge writes that a power cut may undo")
    parser.add_argument(
        "--lock-wait",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for another owner of DIR to go (default: %(default)g)",
    )
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="stop when stdin ends: with its parent")
    parser.add_argument("--log-format", choices=("json", "text"), default="json", help="(default: %(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)"
    )
    parser.set_defaults(run=run)


def _address(text: str) -> BindAddress:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as 127.0.0.1:8090 or [::]:8090")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"{text!r} needs its IPv6 address in brackets, such as [::1]:8090")
    return BindAddress(host, int(port))


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) > 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 600")
    return float(text)


def _mebibytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2**30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MiB, 1 or more")
    return int(text) << 20


def _directory(path: Path | None, folders: bool, name: str) -> HostedDirectory | None:
    if path is None and folders:
        raise Terminal(f"--{name}-folders needs --{name} DIR", reason="InvalidSettings")
    return None if path is None else HostedDirectory(path, folders)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 when it was told to stop, 1 when it cannot start, 2 for a wrong command line."""
    # The server's own libraries are loaded only here: --help answers at once.
    from vectorwright.stores.server.run import ServerSettings, serve  # noqa: PLC0415

    try:
        settings = ServerSettings(
            hosted=Hosted(
                lance=_directory(args.lance, args.lance_folders, "lance"),
                faiss=_directory(args.faiss, args.faiss_folders, "faiss"),
                memory=args.memory,
                fsync=not args.no_fsync,
                encryption_key_file=args.encryption_key_file,
                faiss_memory=args.faiss_memory,
            ),
            listen=args.listen,
            unix=args.unix,
            token_file=args.token_file,
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            insecure=args.insecure,
            lock_wait=args.lock_wait,
            exit_on_stdin_eof=args.exit_on_stdin_eof,
        )
        settings.check()
    except Terminal as error:
        print(f"vectorwright store-server: {error.message}", file=sys.stderr)
        return 2
    configure_logging(args.log_format, args.log_level)
    limit_memory()
    try:
        return asyncio.run(serve(settings, _announce))
    except Terminal as error:
        print(f"vectorwright store-server: {error.message}", file=sys.stderr)
        return 1


def _announce(addresses: list[str]) -> None:
    print(f"serving on {' '.join(addresses)}", flush=True)
