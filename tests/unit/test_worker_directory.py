"""What a worker is given and what it leaves: its directory, its termination message, its command line."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.ingest import Bench

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.cli import main
from vectorwright.errors import Terminal
from vectorwright.ingest.run_directory import read_ca, read_run, read_secret, store_connection
from vectorwright.ingest.runspec import EXIT_RETRYABLE, EXIT_SUCCESS, EXIT_TERMINAL, RunState
from vectorwright.ingest.worker import _tell, exit_code


async def write(directory: Path, **overrides: Any) -> None:
    spec = (await Bench.make()).spec()
    (directory / "run.json").write_bytes(orjson.dumps(spec.dump() | overrides))


async def test_a_run_is_read_with_its_credentials_and_authorities(tmp_path: Path) -> None:
    await write(tmp_path)
    for name, content in {
        "credentials/store/token": "t0ken-value\n",
        "credentials/store/username": "ada",
        "credentials/store/password": "p4ssword-value",
        "tls/store/ca.crt": "PEM",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    spec = read_run(tmp_path)
    found = store_connection(spec, tmp_path)
    credentials = found.credentials
    assert (credentials.token, credentials.username, credentials.password) == ("t0ken-value", "ada", "p4ssword-value")
    assert found.tls.ca == "PEM"
    assert "t0ken-value" not in repr(found)
    assert (read_secret(tmp_path, "source").token, read_ca(tmp_path, "embedder")) == (None, None)


async def test_what_is_no_run_is_refused_without_telling_its_values(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match=r"run\.json cannot be read"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(Terminal):
        read_run(tmp_path)
    await write(tmp_path, deadlineSeconds="sometime-secret")
    with pytest.raises(Terminal, match="deadlineSeconds") as error:
        read_run(tmp_path)
    assert "sometime-secret" not in error.value.message
    await write(tmp_path, precomputedField="v")
    with pytest.raises(Terminal, match="two origins"):
        read_run(tmp_path)
    await write(tmp_path, embedder=None)
    with pytest.raises(Terminal, match="no origin") as error:
        read_run(tmp_path)
    assert error.value.reason == "InvalidRun"


@pytest.mark.parametrize(
    ("phase", "retryable", "code"),
    [
        (Phase.SUCCEEDED, False, EXIT_SUCCESS),
        (Phase.SUCCEEDED_WITH_ERRORS, False, EXIT_SUCCESS),
        (Phase.UNVERIFIED, False, EXIT_SUCCESS),
        (Phase.FAILED, False, EXIT_TERMINAL),
        (Phase.FAILED, True, EXIT_RETRYABLE),
    ],
)
def test_the_exit_status_says_what_may_be_done(phase: Phase, retryable: bool, code: int) -> None:
    assert exit_code(RunState(run_id="r", phase=phase, retryable=retryable)) == code


@pytest.mark.parametrize("mounted", [False, True])
def test_the_termination_message_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool
) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 9000)

    def busy(_: Path, __: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    if mounted:
        monkeypatch.setattr(Path, "replace", busy)
    _tell(path, RunState(run_id="r", phase=Phase.SUCCEEDED))
    assert RunState.model_validate_json(path.read_bytes()).run_id == "r"
    assert [entry.name for entry in tmp_path.iterdir()] == ["termination-log"]


@pytest.mark.parametrize("arguments", [[], ["--directory", "x", "--listen", "nowhere"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", *arguments]) == 2
    assert "vectorwright worker: --" in capsys.readouterr().err
