"""The demo's picture and its proof, from made-up answers: it must notice every fault that it looks for."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from crossns import errors, proc
from crossns.cli import document, render
from crossns.cli.demo import bill, maintenance, picture, proof
from crossns.cli.demo.stage import ACTORS, Stage
from crossns.cli.processes import Process

EXAMPLE = Path(__file__).parents[2] / "examples" / "two-tenants.yaml"


def example() -> dict[str, list[dict[str, Any]]]:
    plain = [render.to_plain(each) for each in document.parse(EXAMPLE.read_text(), "example")]
    kinds: dict[str, list[dict[str, Any]]] = {"RouteTable": [], "Interface": [], "VService": []}
    for each in plain:
        kinds[each["kind"]].append(each)
    return kinds


def drawn(status: Mapping[str, Any], width: int = 110) -> str:
    kinds = example()
    kinds["VService"][0]["status"] = status
    for number, table in enumerate(kinds["RouteTable"], start=1):
        table["status"] = {"index": number}
    world = picture.World(kinds["RouteTable"], kinds["Interface"], kinds["VService"], {"card-a": "backend-a"})
    console = Console(width=width, file=io.StringIO())
    console.print(picture.draw(world, width))
    return cast("io.StringIO", console.file).getvalue()


def test_picture_shows_every_table_link_vip_and_member_that_the_api_tells_of() -> None:
    text = drawn({"state": "READY"})
    kinds = example()
    for table in kinds["RouteTable"]:
        assert text.count(table["name"]) == 1
    for interface in kinds["Interface"]:
        assert f"lan {interface['spec']['addresses'][0]}" in text
    for front in ("VIP 203.0.113.10:80", "VIP 192.0.2.10:80", "VIP [2001:db8:2::10]:80"):
        assert text.count(front) == 1
    assert text.count(" 10.0.0.5:8080") == 2
    assert "card-a ── backend-a" in text
    assert "vServices/web" in text


@pytest.mark.parametrize("width", [110, 80])
def test_picture_fits_the_terminal_and_loses_nothing(width: int) -> None:
    text = drawn({"state": "READY"}, width)
    assert max(map(len, text.splitlines())) <= width
    assert "│ lan 192.0.2.1/24 2001:db8:2::1/64" in text
    assert "…" not in text


def test_picture_tells_ready_from_not_yet_and_wrong() -> None:
    parts = [{"name": "dmz", "state": "READY"}, {"name": "dmz", "state": "READY"}, {"name": "office", "state": "ERROR"}]
    text = drawn({"state": "DEGRADED", "frontends": parts, "members": [{"name": "ipv4/a", "state": "READY"}]})
    assert "● VIP 203.0.113.10:80" in text
    assert "✗ VIP 192.0.2.10:80" in text
    assert "○ VIP [2001:db8:2::10]:80" in text
    assert text.count("● 10.0.0.5:8080") == 1
    assert "DEGRADED" in text


def test_part_is_ready_only_where_all_services_say_so() -> None:
    parts = [{"name": "dmz", "state": "READY"}, {"name": "dmz", "state": "PENDING"}]
    assert "○ VIP 203.0.113.10:80" in drawn({"state": "PENDING", "frontends": parts})


class FakeStage:
    """Answers command lines as `answer` does, in JSON lines."""

    def __init__(self, answer: Callable[[str], list[object]]) -> None:
        self._answer = answer
        self.lines: list[str] = []

    async def run(self, line: str) -> proc.Completed:
        self.lines.append(line)
        return proc.Completed((line,), 0, "\n".join(json.dumps(each) for each in self._answer(line)), "")


def counts(ok: int, failed: int, by: Mapping[str, int]) -> list[object]:
    return [{"new": {"ok": ok, "failed": failed}, "by_backend": dict(by)}]


BOTH = {"backend-a": 50, "backend-b": 50}


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (counts(100, 0, BOTH), True),
        (counts(99, 1, BOTH), False),
        (counts(99, 0, BOTH), False),
        (counts(100, 0, {"backend-a": 100}), False),
        (counts(100, 0, {**BOTH, "": 1}), False),
        (counts(0, 100, {}), False),
    ],
)
async def test_only_full_service_by_both_tenants_is_right(answer: list[object], is_right: bool) -> None:
    served = await proof.serve(cast("Stage", FakeStage(lambda _line: answer)))
    assert [each.target for each in served] == ["203.0.113.10:80", "192.0.2.10:80", "[2001:db8:2::10]:80"]
    assert {each.is_right for each in served} == {is_right}


def reaching(extra: set[tuple[str, str]], missing: set[str]) -> Callable[[str], list[object]]:
    """Answers of a world where each place reaches its own network, `extra` (place, target) too, and `missing` places nobody."""

    def answer(line: str) -> list[object]:
        words = line.split()
        place = words[1] if words[0] == "host" else f"routeTables/{words[2]}"
        own = next(actor for actor in ACTORS if place in (actor.name, f"routeTables/{actor.table}"))
        targets = words[words.index("reach") + 1 :]
        reached = [
            (target.startswith(own.own) and place not in missing) or any(place == who and target == what for who, what in extra)
            for target in targets
        ]
        return [{"reached": yes, "why": "" if yes else "no answer"} for yes in reached]

    return answer


async def test_networks_that_reach_only_themselves_are_right() -> None:
    reached = await proof.isolate(cast("Stage", FakeStage(reaching(set(), set()))))
    assert len(reached) == 2 * len(ACTORS)
    assert all(each.is_right for each in reached)


@pytest.mark.parametrize("target", ["10.0.0.102", "10.0.0.102:8080"])
@pytest.mark.parametrize("place", ["backend-a", "routeTables/tenant-a", "client-dmz"])
async def test_one_answer_from_another_network_is_a_fault(place: str, target: str) -> None:
    reached = await proof.isolate(cast("Stage", FakeStage(reaching({(place, target)}, set()))))
    assert [each.place for each in reached if not each.is_right] == [place]


async def test_attempts_that_cannot_succeed_at_all_prove_nothing() -> None:
    reached = await proof.isolate(cast("Stage", FakeStage(reaching(set(), {"backend-b"}))))
    assert [each.place for each in reached if not each.is_right] == ["backend-b"]


async def test_program_that_fails_is_an_error_and_no_proof() -> None:
    class Broken(FakeStage):
        async def run(self, line: str) -> proc.Completed:
            return proc.Completed((line,), 1, "not json", "no such program")

    with pytest.raises(ExceptionGroup) as raised:
        await proof.isolate(cast("Stage", Broken(lambda _line: [])))
    assert isinstance(raised.value.exceptions[0], errors.PermanentError)


def test_every_host_has_an_address_of_its_own_beside_what_it_shares() -> None:
    assert len({actor.own for actor in ACTORS}) == len(ACTORS)
    backends = [actor for actor in ACTORS if not actor.targets]
    assert len({(actor.addresses[:2], actor.cable.host_mac, actor.cable.card_mac) for actor in backends}) == 1


@pytest.mark.parametrize(("by", "is_right"), [({"backend-b": 40}, True), ({"backend-a": 1, "backend-b": 39}, False), ({}, False)])
def test_a_drained_member_that_answers_anything_new_is_a_fault(by: dict[str, int], *, is_right: bool) -> None:
    assert maintenance.Step("crossns service drain web ipv4/a", by, {"backend-b"}).is_right == is_right


@pytest.mark.parametrize(
    ("kept", "new", "lost", "is_right"), [(400, 200, 0, True), (400, 200, 1, False), (199, 200, 0, False), (400, 99, 0, False)]
)
def test_nothing_lost_counts_only_under_load(kept: int, new: int, lost: int, *, is_right: bool) -> None:
    assert maintenance.Throughout("traffic load", 2.0, kept, new, lost).is_right == is_right


def test_the_bill_has_every_process_and_its_sum() -> None:
    mib = 2**20
    agents = [Process(f"agent {table}", pid, 1, 7 * mib) for pid, table in enumerate(("a", "b"))]
    console = Console(width=110, file=io.StringIO())
    console.print(bill.table([Process("launcher", 9, 1, 12 * mib), *agents]))
    rows = [line.split() for line in cast("io.StringIO", console.file).getvalue().splitlines()]
    assert rows[1:3] == [
        ["launcher", "1", "12.0", "the", "privileged", "process"],
        ["agent", "2", "7.0", "14.0", "one", "per", "route", "table"],
    ]
    assert rows[3] == ["in", "all", "3", "26.0"]
