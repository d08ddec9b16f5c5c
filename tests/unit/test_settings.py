"""Settings: flags win over variables, those over defaults; whatever is wrong is told in one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from vectorwright.settings import BindAddress, Settings, SettingsError, add_arguments, from_arguments


def parse(*flags: str, **variables: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(list(flags)), {f"VECTORWRIGHT_{k}": v for k, v in variables.items()})


def test_without_anything_the_defaults_hold() -> None:
    assert parse() == Settings()
    assert parse().cluster_wide
    assert parse().leader_election


def test_flags_win_over_variables() -> None:
    assert parse(LOG_LEVEL="debug").log_level == "debug"
    assert parse("--log-level=error", LOG_LEVEL="debug").log_level == "error"
    assert parse("--no-read-only", READ_ONLY="true").read_only is False
    assert parse("--namespace=c", NAMESPACE="a,b").namespaces == ("c",)


def test_a_repeatable_setting_takes_several_values_without_doubles() -> None:
    assert parse("--namespace=a", "--namespace=b", "--namespace=a").namespaces == ("a", "b")
    assert parse(NAMESPACE="a, b,,a").namespaces == ("a", "b")
    assert not parse("--namespace=a").cluster_wide


def test_an_empty_variable_counts_as_absent() -> None:
    assert parse(INSTALLATION_ID="", NAMESPACE=" ", READ_ONLY="") == Settings()


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("False", False), ("no", False)])
def test_switches_as_variables(text: str, value: bool) -> None:
    assert parse(LEADER_ELECTION=text).leader_election is value


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(":8080", "", 8080), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:9090", "::1", 9090), ("0.0.0.0:1", "0.0.0.0", 1)],
)
def test_bind_addresses(text: str, host: str, port: int) -> None:
    address = parse(f"--metrics-bind-address={text}").metrics_bind_address
    assert address == BindAddress(host, port)
    assert str(address) == text


def test_networks_are_kept_in_their_normal_form() -> None:
    assert parse("--allow-networks=10.0.0.0/8", "--allow-networks=FD00::/8").allow_networks == (
        "10.0.0.0/8",
        "fd00::/8",
    )


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").touch()
    settings = parse("--kubeconfig=config", "--local-stores=stores")
    assert settings.kubeconfig == tmp_path / "config"
    assert settings.local_stores == tmp_path / "stores"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--namespace=Team"], "--namespace: 'Team' is not the name of a namespace"),
        (["--namespace=" + "a" * 64], "is not the name of a namespace"),
        (["--installation-id=a_b"], "--installation-id: 'a_b' is not a name"),
        (["--allow-networks=10.1.0.0/8"], "--allow-networks: '10.1.0.0/8' is not a network such as 10.0.0.0/8"),
        (["--worker-image=a b"], "--worker-image: 'a b' is not an image reference"),
        (["--max-concurrent-reconciles=0"], "--max-concurrent-reconciles: '0' is not a number from 1 to 256"),
        (["--max-concurrent-reconciles=many"], "'many' is not a number from 1 to 256"),
        (["--shutdown-grace=-1"], "--shutdown-grace: '-1' is not a number of seconds"),
        (["--log-format=xml"], "--log-format: 'xml' is none of json, text"),
        (["--log-level=loud"], "--log-level: 'loud' is none of debug, info, warning, error"),
        (["--metrics-bind-address=8080"], "--metrics-bind-address: '8080' is not an address such as :8080"),
        (["--metrics-bind-address=:65536"], "':65536' is not an address"),
        (["--metrics-bind-address=::1:80"], "needs its IPv6 address in brackets"),
        (["--kubeconfig=/nonexistent"], "--kubeconfig: '/nonexistent' is not a file"),
        (["--leader-election-name=A"], "--leader-election-name: 'A' is not the name of a Kubernetes object"),
        (["--local-stores=/dev/null"], "--local-stores: '/dev/null' is not a directory"),
    ],
)
def test_what_is_wrong_is_told_with_its_flag(flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(*flags)
    assert message in refused.value.message
    assert refused.value.reason == "InvalidSettings"
    assert "\n" not in refused.value.message


def test_a_wrong_variable_is_told_with_its_own_name() -> None:
    with pytest.raises(SettingsError, match=r"VECTORWRIGHT_READ_ONLY: 'perhaps' is neither true nor false"):
        parse(READ_ONLY="perhaps")


def test_every_flag_names_its_variable_in_the_help() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for action in parser._actions:
        if action.dest != "help":
            flag = action.option_strings[0]
            assert f"[VECTORWRIGHT_{flag.removeprefix('--').replace('-', '_').upper()}]" in str(action.help)
