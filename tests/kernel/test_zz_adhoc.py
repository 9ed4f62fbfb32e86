import asyncio, time, sys
import pytest
from tests.kernel.test_route_tables import *
from tests.kernel import test_route_tables as t

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("i", range(3))
async def test_x(device, lab, i):
    n = len(device.log)
    try:
        await t.make_drifting(device, lab)
        await t.plant("a")
        await device.delete("routeTables/a/routes/r", "interfaces/br", wait=False)
        await device.kill("nsmanager")
        t0 = time.time()
        async with asyncio.timeout(15):
            while True:
                try:
                    await device.client.get("routeTables/default")
                    break
                except Exception as e:
                    err = e
                    await asyncio.sleep(0.05)
        print("back", time.time() - t0)
    finally:
        for name, line in device.log[n:]:
            print("   ", name, str(line)[:1500])
        import subprocess

        print(
            subprocess.run(
                'ps ax -o pid,ppid,etimes,stat,args | grep -v "ps ax"; ls -la /run/crossns/services/nsmanager',
                shell=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    assert 0


for k in list(globals()):
    if k.startswith("test_") and k != "test_x":
        del globals()[k]
