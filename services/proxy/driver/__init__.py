"""The proxy's hands: HAProxy under the launcher.

`device` observes and applies, `master` asks HAProxy itself, `check` tells which members accept connections, `counting` what
HAProxy counts, `retirement` ends the workers that a reload replaced, and `access_log` writes down what HAProxy says of each
connection.
"""

from services.proxy.driver.access_log import AccessLog
from services.proxy.driver.check import Checker
from services.proxy.driver.counting import Counting
from services.proxy.driver.device import Beside, Device
from services.proxy.driver.retirement import Retirement

__all__ = ["AccessLog", "Beside", "Checker", "Counting", "Device", "Retirement"]
