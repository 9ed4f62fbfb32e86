"""pyroute2 without what its `__init__` loads: all of IPRoute, NDB, asyncio, sqlite3 and ssl, for a few message classes.

The package `agent` imports it first. What the zygote has not loaded does not lie between the things that its children touch: so
they touch, and copy, fewer pages (ADR 10). Whoever has loaded all of pyroute2 before keeps it.
"""

import importlib.util
import sys
import types


def install() -> None:
    """From now on `import pyroute2.x` loads x, and of pyroute2 itself nothing."""
    found = importlib.util.find_spec("pyroute2")
    if "pyroute2" in sys.modules or found is None or found.submodule_search_locations is None:
        return
    package = types.ModuleType("pyroute2")
    package.__path__ = list(found.submodule_search_locations)
    package.__spec__ = found
    sys.modules["pyroute2"] = package


install()
