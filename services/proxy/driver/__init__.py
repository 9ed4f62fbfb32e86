"""The proxy's hands: HAProxy under the launcher.

`device` observes and applies, `master` asks HAProxy itself, `check` tells which members accept connections, `counting` what
HAProxy counts, and `access_log` writes down what it says of each connection.
"""

from services.proxy.driver.access_log import AccessLog
from services.proxy.driver.check import Checker
from services.proxy.driver.counting import Counting
from services.proxy.driver.device import Beside, Device

__all__ = ["AccessLog", "Beside", "Checker", "Counting", "Device"]
