"""Whatever is asked, meddled with and killed: in the end the kernel is as was asked, and nothing of others was touched."""

import asyncio
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from crossns import errors
from crossns.testing.device import Device, doc, wait_until
from crossns.testing.lab import Lab
from tests.fault import kernel, wandering
from tests.kernel import relay
from tests.kernel.view import addresses, bridge

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]


# A thousand steps and more, and who dies again and again is started again later and later.
@pytest.mark.timeout(1800)
async def test_whatever_happens_the_kernel_comes_to_what_was_asked_and_nothing_of_others_is_touched(
    device: Device, lab: Lab, count: Callable[[int, int], int], request: pytest.FixtureRequest
) -> None:
    for name, cable in wandering.CABLES.items():
        await lab.host(name.split("/")[1], cable)
    walk = wandering.Walk(device, asyncio.get_running_loop())
    settings = hypothesis.settings(
        max_examples=count(4, 60),
        stateful_step_count=count(20, 60),
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    make: Any = lambda: wandering.Wandering(walk, count(2, 6))  # noqa: E731 - the seed is put on it
    machine = hypothesis.seed(request.config.getoption("--seed"))(make)
    async with wandering.unmoved():
        try:
            await asyncio.to_thread(run_state_machine_as_test, machine, settings=settings)
        except BaseException as error:
            if walk.failure is None:
                raise
            await kernel.uproot(wandering.SHARED)
            raise walk.failure from error


async def test_route_that_names_an_interface_of_another_table_is_refused(device: Device) -> None:
    await device.apply(doc("routeTables/a"), doc("routeTables/b"), bridge("x", addresses=["10.0.0.1/24"]))
    with pytest.raises(errors.InvalidSpec) as caught:
        await device.apply(doc("routeTables/b/routes/r", destination="0.0.0.0/0", gateways=[{"interface": "interfaces/x"}]))
    assert caught.value.metadata["field"] == "spec.gateways[0].interface"
    assert "routeTables/a" in caught.value.message


async def test_bridge_that_moves_out_of_a_table_that_goes_is_there_at_once(device: Device) -> None:
    """It waits for what it was there, which goes with the namespace: nobody tells of that but the table's own round."""
    await device.apply(doc("routeTables/a"), doc("routeTables/b"), bridge("x", addresses=["10.0.0.1/24"]))
    async with relay.between(device, "a") as fate:
        fate.begin("a", "DeleteLink(")
        await device.apply(doc("interfaces/x", routeTable="routeTables/b", bridge={}, addresses=["10.0.0.1/24"]), wait=False)
        await wait_until(lambda: fate.is_met)
        assert await device.state("interfaces/x") != "READY"
        await device.delete("routeTables/a", wait=False)
        await device.wait_until_state("interfaces/x", "READY")
        assert await addresses("x", "b") == {"10.0.0.1/24"}
