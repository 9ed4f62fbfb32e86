"""The gateway's flags: what opens the device to strangers is refused, everything else says what it wants."""

import re
from pathlib import Path

import pytest

from crossns import errors
from gateway import settings

TLS = ("--tls-cert", "c.pem", "--tls-key", "k.pem", "--client-ca", "ca.pem")


def test_nothing_but_the_unix_socket_is_listened_on_unless_asked() -> None:
    assert settings.parse([], {}) == settings.Settings()


@pytest.mark.parametrize("address", ["127.0.0.1:7443", "127.8.8.8:0", "[::1]:7443"])
def test_loopback_needs_no_tls(address: str) -> None:
    (listen,) = settings.parse(["--listen", address], {}).listen
    assert str(listen) == address


@pytest.mark.parametrize("address", ["0.0.0.0:7443", "192.0.2.1:7443", "[::]:7443", "[2001:db8::1]:7443", "[::ffff:192.0.2.1]:1"])
def test_what_other_machines_reach_needs_tls(address: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="--tls-cert, --tls-key and --client-ca"):
        settings.parse(["--listen", address], {})
    assert settings.parse(["--listen", address, *TLS], {}).tls == settings.Tls(Path("c.pem"), Path("k.pem"), Path("ca.pem"))


@pytest.mark.parametrize(
    ("text", "table", "host"),
    [
        ("mgmt:192.0.2.1:7443", "mgmt", "192.0.2.1"),
        ("mgmt:[2001:db8::1]:7443", "mgmt", "2001:db8::1"),
        ("default:0.0.0.0:7443", "default", "0.0.0.0"),
        ("192.0.2.1:7443", "", "192.0.2.1"),
        ("[2001:db8::1]:7443", "", "2001:db8::1"),
    ],
)
def test_address_may_be_that_of_a_route_table(text: str, table: str, host: str) -> None:
    (listen,) = settings.parse(["--listen", text, *TLS], {}).listen
    assert (listen.table, str(listen.host), listen.port, str(listen)) == (table, host, 7443, text)


def test_rules_are_the_same_in_a_route_table() -> None:
    assert settings.parse(["--listen", "mgmt:127.0.0.1:1", "--listen", "mgmt:[::1]:2"], {}).tls is None
    with pytest.raises(errors.InvalidSpec, match=re.escape("mgmt:192.0.2.1:7443 can be reached")):
        settings.parse(["--listen", "mgmt:192.0.2.1:7443"], {})


@pytest.mark.parametrize(
    "text",
    [
        ":127.0.0.1:1",
        "Mgmt:127.0.0.1:1",
        "mg mt:127.0.0.1:1",
        "../mgmt:127.0.0.1:1",
        "mgmt:eth0:1",
        "mgmt:127.0.0.1",
        "mgmt::1:1",
    ],
)
def test_what_is_no_address_of_a_route_table_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        settings.parse(["--listen", text], {})
    assert caught.value.metadata["field"] == "--listen"


def test_metrics_are_not_told_in_a_route_table() -> None:
    with pytest.raises(errors.InvalidSpec, match="ADDRESS:PORT"):
        settings.parse(["--metrics", "mgmt:127.0.0.1:9417"], {})


@pytest.mark.parametrize("flag", ["--listen", "--metrics"])
def test_wrong_address_is_refused_under_the_name_of_its_flag(flag: str) -> None:
    for address in ("nowhere", "0.0.0.0:9417"):
        with pytest.raises(errors.InvalidSpec) as caught:
            settings.parse([flag, address], {})
        assert caught.value.metadata["field"] == flag


def test_metrics_are_told_nowhere_unless_asked_and_on_loopback_without_tls() -> None:
    assert settings.parse([], {}).metrics is None
    assert str(settings.parse([], {"CROSSNS_GATEWAY_METRICS": "127.0.0.1:9417"}).metrics) == "127.0.0.1:9417"
    assert str(settings.parse(["--metrics", "0.0.0.0:9417", *TLS], {}).metrics) == "0.0.0.0:9417"


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_tls_files_come_together(missing: int) -> None:
    given = TLS[:missing] + TLS[missing + 2 :]
    with pytest.raises(errors.InvalidSpec, match="all three"):
        settings.parse(["--listen", "0.0.0.0:7443", *given], {})


@pytest.mark.parametrize(
    "address",
    ["", "7443", "localhost:7443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:7443", "[127.0.0.1]:1"],
)
def test_what_is_no_address_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(errors.InvalidSpec, match=re.escape("127.0.0.1:7443")):
        settings.parse(["--listen", address], {})


@pytest.mark.parametrize("uid", ["root", "-1", "1.5", "", "4294967295"])
def test_what_is_no_uid_is_refused(uid: str) -> None:
    with pytest.raises(errors.InvalidSpec, match="admin-uid"):
        settings.parse(["--admin-uid", uid], {})


def test_variables_stand_in_for_flags_and_flags_add_to_lists() -> None:
    environ = {
        "CROSSNS_GATEWAY_ADMIN_UID": "1000, 1001",
        "CROSSNS_GATEWAY_LISTEN": "127.0.0.1:1",
        "CROSSNS_GATEWAY_TLS_CERT": "c",
        "CROSSNS_GATEWAY_TLS_KEY": "k",
        "CROSSNS_GATEWAY_CLIENT_CA": "ca",
    }
    parsed = settings.parse(["--admin-uid", "7", "--listen", "[::1]:2", "--tls-key", "other"], environ)
    assert parsed.admin_uids == {7, 1000, 1001}
    assert [str(address) for address in parsed.listen] == ["127.0.0.1:1", "[::1]:2"]
    assert parsed.tls == settings.Tls(Path("c"), Path("other"), Path("ca"))


def test_help_and_readme_name_every_flag_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings.parse(["--help"], {})
    assert ended.value.code == 0
    readme = Path(settings.__file__).with_name("README.md").read_text(encoding="utf-8")
    text = capsys.readouterr().out
    for flag in ("--admin-uid", "--listen", "--metrics", "--tls-cert", "--tls-key", "--client-ca"):
        for words in (flag, f"CROSSNS_GATEWAY_{flag[2:].replace('-', '_').upper()}"):
            assert words in text
            assert f"`{words}`" in readme
