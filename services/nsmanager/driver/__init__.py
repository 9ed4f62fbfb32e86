"""nsmanager's hands: `Device` observes and changes route tables for the loop, `Standings` tells agents of their vServices,
`Examiner` tries to break what keeps tables apart."""

from services.nsmanager.driver.device import Device
from services.nsmanager.driver.examiner import Examiner
from services.nsmanager.driver.standings import Standings

__all__ = ["Device", "Examiner", "Standings"]
