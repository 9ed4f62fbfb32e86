"""What is passed over because nothing was counted of it: nothing that was."""

import pytest

from services.proxy import plan
from tests.unit.proxy.show_stat import row
from tests.unit.proxy.test_statistics import FRONTEND, OWN, POOL, take


@pytest.mark.parametrize(
    "column",
    [
        *("stot", "bin", "bout", "dcon", "dses", "ereq", "req_tot", "econ", "wredis", "wretr"),
        *("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx"),
    ],
)
def test_every_number_counts_though_it_is_the_only_one(column: str) -> None:
    """A row of which nothing is counted is passed over."""
    ledger = plan.Ledger(0.0)
    kinds = row(FRONTEND, "FRONTEND", **{column: 7}), row(POOL, *OWN, **{column: 7})
    take(ledger, 1, *kinds)
    totals = {**ledger.totals(FRONTEND), **ledger.totals(POOL)}
    assert any(7 in map(abs, total) for total in totals.values())
