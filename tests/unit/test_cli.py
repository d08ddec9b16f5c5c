"""The command line: one command, one import; and the parent process loads only what its memory budget allows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from vectorwright import __version__
from vectorwright.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module_and_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(COMMANDS[name].module) is not None
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    assert f"usage: vectorwright {name}" in capsys.readouterr().out


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.help in shown


def test_without_a_command_or_with_a_wrong_one_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err
    assert main(["opeator"]) == 2
    assert "no command 'opeator'; there are operator, worker" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"vectorwright {__version__}\n"


def test_the_parent_process_loads_nothing_heavy() -> None:
    program = (
        "import sys; import vectorwright.cli.operate, vectorwright.cli.supervision.parent;"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {program}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "asyncio" in loaded
    assert not loaded & {
        "aiohttp",
        "httpx",
        "kopf",
        "kubernetes",
        "numpy",
        "orjson",
        "prometheus_client",
        "pydantic",
        "yaml",
    }
