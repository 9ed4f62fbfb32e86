"""`--metrics`: all route tables and vServices of the device in one scrape for Prometheus, on an address of its own.

`measure` names what is told, `family` makes metrics of it, `scrape` asks the services, `page` speaks HTTP. The app imports it
only where somebody wants it: prometheus_client costs 100 ms and memory.
"""

from gateway.metrics.page import serving

__all__ = ["serving"]
