"""The text that HAProxy gets: what stands in it for which vService."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from crossns.v1 import v_service_pb2
from services.nsmanager.launcher import directive
from services.proxy import model, plan, render
from services.proxy.plan import wish
from services.proxy.render import head
from tests.unit.proxy import grammar, sample

SCENARIOS = Path(__file__).parents[2] / "testdata" / "proxy"
NAMES = sorted(path.stem for path in SCENARIOS.glob("*.yaml"))


def scenario(name: str) -> model.Desired:
    content = yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8"))
    messages = [json_format.ParseDict(each, v_service_pb2.VService()) for each in content["services"]]
    tables = {f"routeTables/{table}": f"{table}.{cookie}" for table, cookie in content["tables"].items()}
    return model.Desired(tuple(model.v_service(message) for message in messages), tables)


def rendered(desired: model.Desired, *left_out: render.Part) -> str:
    """As HAProxy gets it when it starts."""
    refused = {part: plan.Refusal("no", 1) for part in left_out}
    observed = plan.Observed(sample.LIMITS, namespaces=frozenset(desired.tables.values()), refused=refused)
    return wish.wish(desired, observed).config.text


@pytest.mark.parametrize("name", NAMES)
def test_scenario_is_rendered_as_reviewed(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"proxy/{name}.cfg", rendered(scenario(name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_launcher_lets_every_line_run(name: str) -> None:
    directive.check(rendered(scenario(name)), sample.LIMITS.engine_dir)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_one_of_the_few_that_there_are(name: str) -> None:
    assert grammar.strange(rendered(scenario(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_bind_and_server_line_names_its_namespace(name: str) -> None:
    lines = [line for line in grammar.body(rendered(scenario(name))) if line.split()[:1] in (["bind"], ["server"])]
    assert all(line.count(" namespace ") == 1 for line in lines)
    assert bool(lines) == (name != "nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_things_come_does_not_matter(name: str, dice: random.Random) -> None:
    desired = scenario(name)
    expected = rendered(desired)

    def shuffled(pool: model.Pool) -> model.Pool:
        # The pool that is filled in order says something by it.
        count = len(pool.members) if pool.algorithm != "first" else 0
        return dataclasses.replace(pool, members=(*dice.sample(pool.members, count), *pool.members[count:]))

    for _ in range(10):
        mixed = [
            dataclasses.replace(
                each,
                frontends=tuple(dice.sample(each.frontends, len(each.frontends))),
                pools=tuple(shuffled(pool) for pool in dice.sample(each.pools, len(each.pools))),
            )
            for each in dice.sample(desired.services, len(desired.services))
        ]
        assert rendered(dataclasses.replace(desired, services=tuple(mixed))) == expected


def test_a_part_that_is_left_out_leaves_the_rest_as_it_is() -> None:
    desired = model.Desired((sample.vservice(), sample.vservice("other", port=81)), sample.TABLES)
    whole = grammar.body(rendered(desired))
    without = grammar.body(rendered(desired, sample.listener("other", port=81), sample.server()))
    assert [line for line in whole if line not in without] == [
        "frontend vs.other.fe.fe from tcp",
        "    bind ipv4@203.0.113.10:81 namespace dmz.11 name dmz.11 transparent",
        "    default_backend vs.other.po.main",
    ]
    assert len([line for line in whole if line.startswith("    server a1.tenant-a.21 ipv4@10.0.0.5:8080 ")]) == 2
    assert len([line for line in without if line.startswith("    server a1.tenant-a.21 ipv4@10.0.0.5:8080 ")]) == 1


def test_a_table_that_was_made_anew_is_another_namespace() -> None:
    before = rendered(model.Desired((sample.vservice(),), sample.TABLES))
    after = rendered(model.Desired((sample.vservice(),), {**sample.TABLES, "routeTables/dmz": "dmz.12"}))
    assert "namespace dmz.11" in before
    assert "namespace dmz.12" in after
    assert "dmz.11" not in after


@pytest.mark.parametrize(
    ("open_files", "listeners", "connections"),
    [
        (20_000, 0, (20_000 - head._FILES_RESERVED) // 2),
        (20_000, 1_000, (20_000 - head._FILES_RESERVED - 1_000) // 2),
        (10_000_000, 0, 50_000),
        (512, 500, 1),
    ],
)
def test_connections_follow_from_the_limit_of_files(open_files: int, listeners: int, connections: int) -> None:
    assert render.max_connections(open_files, listeners) == connections


def test_the_file_says_how_many_connections_there_may_be() -> None:
    """Each port of a range is a listener; one that is not there is none."""
    (frontend,) = sample.vservice().frontends
    ranged = dataclasses.replace(frontend, end_port=frontend.port + 9)
    gone = dataclasses.replace(frontend, name="gone", table="routeTables/gone", end_port=1000)
    vservice = dataclasses.replace(sample.vservice(), frontends=(ranged, gone))
    text = rendered(model.Desired((vservice,), sample.TABLES))
    assert text.split("    maxconn ")[1].split("\n")[0] == str(render.max_connections(20_000, 10))


def test_what_is_structure_and_what_is_not_is_told_by_the_digest() -> None:
    """The digest is of every line but what changes while HAProxy runs, so two texts with one digest differ only there."""
    texts = [rendered(scenario(name)) for name in NAMES]
    digests = [grammar.structure(text) for text in texts]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 32 for digest in digests)
