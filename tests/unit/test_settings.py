"""Settings from the environment, and the layout of the device that follows from them."""

from pathlib import Path

import pytest

from crossns import errors, settings
from crossns.layout import DEFAULT_UID_BASE, Layout


def test_empty_environment_gives_the_device_as_the_units_have_it() -> None:
    assert settings.from_environ({}) == settings.Settings()
    assert settings.from_environ({}).etcd.endpoints == (f"unix:{Layout().etcd_socket}",)


def test_variables_that_are_set_but_empty_count_as_unset() -> None:
    variables = ["DEVICE", "RUN_DIR", "STATE_DIR", "NETNS_DIR", "UID_BASE", "ETCD", "ETCD_CA", "ETCD_CERT", "ETCD_KEY", "LOG"]
    assert settings.from_environ({f"CROSSNS_{name}": "" for name in variables}) == settings.Settings()


def test_every_variable_arrives() -> None:
    read = settings.from_environ(
        {
            "CROSSNS_DEVICE": "edge-1",
            "CROSSNS_RUN_DIR": "/r",
            "CROSSNS_STATE_DIR": "/s",
            "CROSSNS_NETNS_DIR": "/n",
            "CROSSNS_UID_BASE": "70000",
            "CROSSNS_ETCD": "a:2379, b:2379,",
            "CROSSNS_ETCD_CA": "/ca",
            "CROSSNS_ETCD_CERT": "/cert",
            "CROSSNS_ETCD_KEY": "/key",
            "CROSSNS_LOG": "DEBUG",
        }
    )
    layout = Layout(run=Path("/r"), state=Path("/s"), netns=Path("/n"), uid_base=70000)
    etcd = settings.Etcd(("a:2379", "b:2379"), Path("/ca"), Path("/cert"), Path("/key"))
    assert read == settings.Settings("edge-1", layout, etcd, "DEBUG")


def test_embedded_etcd_is_looked_for_in_the_run_directory_that_is_set() -> None:
    assert settings.from_environ({"CROSSNS_RUN_DIR": "/r"}).etcd.endpoints == ("unix:/r/etcd/client:0",)


@pytest.mark.parametrize("value", ["x", "-1", "0", "1.5", str(2**31), "64100 "])
def test_what_is_no_block_of_uids_is_refused_by_name(value: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        settings.from_environ({"CROSSNS_UID_BASE": value})
    assert caught.value.metadata["field"] == "CROSSNS_UID_BASE"


def test_device_must_be_an_id_because_it_begins_every_key() -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        settings.from_environ({"CROSSNS_DEVICE": "edge/1"})
    assert caught.value.metadata["field"] == "CROSSNS_DEVICE"


@pytest.mark.parametrize("process", ["etcd", "nsmanager", "proxy", "gateway", "haproxy"])
def test_every_process_has_a_uid_of_its_own_that_leads_back_to_it(process: str) -> None:
    layout = Layout(uid_base=70000)
    assert layout.process_of(layout.uid(process)) == process
    assert 70000 <= layout.uid(process) < layout.store_gid <= 70000 + 31


def test_uid_outside_the_block_is_nobodys() -> None:
    assert Layout().process_of(0) is None
    assert Layout().process_of(DEFAULT_UID_BASE - 1) is None
    assert Layout().process_of(Layout().store_gid) is None


def test_everything_of_a_run_lies_below_the_run_directory() -> None:
    layout = Layout(run=Path("/r"), netns=Path("/n"))
    paths = [
        layout.launcher_socket,
        layout.launcher_dir,
        layout.agent_socket("a"),
        layout.fence_dir,
        layout.incarnations,
        layout.service_socket("proxy"),
        layout.gateway_socket,
        layout.etcd_socket,
        layout.haproxy_master,
    ]
    assert all(Path("/r") in path.parents for path in paths)
    assert len(set(paths)) == len(paths)


def test_unix_sockets_fit_into_an_address() -> None:
    # sun_path has 108 bytes (unix(7)); the longest table id has 63 characters.
    assert len(str(Layout().agent_socket("x" * 63))) < 108
