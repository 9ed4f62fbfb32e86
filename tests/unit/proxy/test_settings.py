"""The proxy's own variables."""

import resource

import pytest

from crossns import errors
from services.proxy import settings


def test_unset_variables_mean_this_process_s_limit_and_a_short_interval() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert settings.from_environ({}) == settings.Settings(open_files=hard, reload_interval_s=0.05)


def test_variables_that_are_set_count() -> None:
    environ = {"CROSSNS_PROXY_OPEN_FILES": "4096", "CROSSNS_PROXY_RELOAD_INTERVAL_MS": "0"}
    assert settings.from_environ(environ) == settings.Settings(open_files=4096, reload_interval_s=0.0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CROSSNS_PROXY_OPEN_FILES", "511"),
        ("CROSSNS_PROXY_OPEN_FILES", "many"),
        ("CROSSNS_PROXY_OPEN_FILES", "-1"),
        ("CROSSNS_PROXY_RELOAD_INTERVAL_MS", "0.5"),
        ("CROSSNS_PROXY_RELOAD_INTERVAL_MS", "5\n6"),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(errors.InvalidSpec, match=f"^{variable}: ") as caught:
        settings.from_environ({variable: value})
    assert "\n" not in caught.value.message
