"""`python -m services.proxy`: the service process."""

import sys

from crossns import service
from services.proxy import app

sys.exit(service.main("proxy", app.build))
