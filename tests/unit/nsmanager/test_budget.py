"""Budgets: what a spec may say, what has to be done, and rules whose comments say which budget they are."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossns import counter, errors, operation
from crossns.budget import Budget, PutBudget, RemoveBudget, Seen
from crossns.v1 import route_table_pb2
from services.nsmanager import model, plan
from services.nsmanager.agent import budget_rules, nfnl, nft
from services.nsmanager.model import parse
from services.nsmanager.plan import At, Observed

BUDGET = Budget(1000, 100, 200)
TABLE = model.Table("routeTables/a", "a", 1, forwarding=False, generation=1)
numbers = st.integers(1, 1_000_000)
budgets = st.one_of(
    st.builds(Budget, numbers), st.builds(Budget, st.just(0), numbers, numbers), st.builds(Budget, numbers, numbers, numbers)
)


def parsed(**budget: int) -> Budget | None:
    message = route_table_pb2.RouteTable(name="routeTables/a")
    message.spec.budget.CopyFrom(route_table_pb2.Budget(**budget))
    return parse.route_table(message).budget


def test_budget_is_what_is_asked_and_nothing_is_none() -> None:
    assert parse.route_table(route_table_pb2.RouteTable(name="routeTables/a")).budget is None
    assert parsed() is None
    assert parsed(max_sessions=7) == Budget(7)
    assert parsed(max_sessions=7, new_sessions_per_second=5, burst=9) == Budget(7, 5, 9)


def test_burst_that_is_not_given_is_that_of_a_second() -> None:
    assert parsed(new_sessions_per_second=50) == Budget(0, 50, 50)


@pytest.mark.parametrize(
    ("budget", "path", "words"),
    [
        ({"max_sessions": -1}, "spec.budget.max_sessions", "-1 is not within 0..1000000"),
        ({"new_sessions_per_second": 1_000_001}, "spec.budget.new_sessions_per_second", "not within"),
        ({"burst": 5}, "spec.budget.burst", "set new_sessions_per_second, too"),
        ({"max_sessions": 5, "burst": 5}, "spec.budget.burst", "set new_sessions_per_second, too"),
    ],
)
def test_budget_that_says_nothing_is_refused_with_what_to_do(budget: dict[str, int], path: str, words: str) -> None:
    with pytest.raises(errors.InvalidSpec, match=words) as caught:
        parsed(**budget)
    assert caught.value.metadata["field"] == path


def planned(wanted: Budget | None, seen: Seen | None, *, is_there: bool = True) -> list[object]:
    namespace = operation.Namespace(table="a", cookie=1, attached=True)
    snapshot = operation.Snapshot(cookie=1, links=(), addresses=(), routes=(), sysctls={}, budget_seen=seen)
    observed = Observed(namespace, snapshot, "boot") if is_there else Observed()
    ops = plan.plan(model.Desired("a", dataclasses.replace(TABLE, budget=wanted)), observed)
    return [op.operation for op in ops if isinstance(op, At) and isinstance(op.operation, PutBudget | RemoveBudget)]


@pytest.mark.parametrize(
    ("wanted", "seen", "ops"),
    [
        (None, None, []),
        (BUDGET, Seen(BUDGET), []),
        (BUDGET, None, [PutBudget(budget=BUDGET)]),
        (BUDGET, Seen(None), [PutBudget(budget=BUDGET)]),
        (BUDGET, Seen(Budget(1)), [PutBudget(budget=BUDGET)]),
        (None, Seen(BUDGET), [RemoveBudget()]),
        (None, Seen(None), [RemoveBudget()]),
    ],
)
def test_budget_is_put_where_it_is_not_in_force_and_taken_away_where_none_is_asked(
    wanted: Budget | None, seen: Seen | None, ops: list[object]
) -> None:
    assert planned(wanted, seen) == ops


def test_table_that_is_to_be_made_gets_its_budget_before_its_links() -> None:
    assert planned(BUDGET, None, is_there=False) == [PutBudget(budget=BUDGET)]
    link = model.Link("interfaces/l", "a", "l", "dummy", (), 0, up=True, generation=1)
    desired = model.Desired("a", dataclasses.replace(TABLE, budget=BUDGET), links=(link,), all_links={"interfaces/l": link})
    kinds = [type(op.operation).__name__ for op in plan.plan(desired, Observed())]
    assert kinds.index("PutBudget") < kinds.index("CreateLink")


@given(budgets)
def test_budget_is_read_from_the_comments_of_its_rules(budget: Budget) -> None:
    assert budget_rules.budget_of(budget_rules.comments(budget)) == budget


@given(budgets, st.data())
def test_rules_that_are_not_all_there_in_their_order_are_no_budget(budget: Budget, data: st.DataObject) -> None:
    seen = list(budget_rules.comments(budget))
    place = data.draw(st.integers(0, len(seen) - 1))
    kept = Budget(0, budget.new_sessions_per_second, budget.burst), Budget(budget.max_sessions)
    without = seen[:place] + seen[place + 1 :]
    # Less one limit it is the budget that has no such limit.
    assert budget_rules.budget_of(without) in {None, Budget(), *kept} - {budget}
    assert budget_rules.budget_of([*seen[:place], "", *seen[place:]]) is None
    if len(set(seen)) > 1:
        assert budget_rules.budget_of(seen[1:] + seen[:1]) is None


def test_transaction_keeps_what_stands_unless_it_is_to_be_made_anew() -> None:
    kept, anew = (budget_rules.render(BUDGET, "1", anew=anew) for anew in (False, True))
    assert "delete" not in kept
    assert anew.index("delete table inet crossns_budget") < anew.index("add counter")
    for text in (kept, anew):
        assert "limit rate over 100/second burst 200 packets counter name too_fast drop" in text
        assert "ct count over 1000 counter name too_many drop" in text
        assert {line.split()[3] for line in text.splitlines()} == {"crossns_budget"}


def test_what_the_budget_drops_is_told_and_no_budget_is_not_told() -> None:
    read = counter.KernelCounters(time_ns=0, links=(), values={}, budget=counter.Budget(too_fast=3, too_many=4))
    told = plan.statistics("routeTables/a", read)
    assert (told.budget.too_fast_total, told.budget.too_many_total) == (3, 4)
    assert not plan.statistics("routeTables/a", counter.KernelCounters(time_ns=0, links=(), values={})).HasField("budget")


def test_attributes_are_found_by_number_whatever_flags_they_have() -> None:
    # 0x8004: nested. Padding stands between them.
    data = b"\x05\x00\x01\x00a\x00\x00\x00" + b"\x08\x00\x04\x80abcd"
    assert nfnl.attributes(data) == {1: b"a", 4: b"abcd"}
    assert nfnl.attributes(b"\0\0\0\0") == {0: b""}


def test_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_LIBRARY", "libnone.so.1")
    with pytest.raises(nft.Refused, match=r"this device has no libnone\.so\.1"):
        nft.library.__wrapped__()
