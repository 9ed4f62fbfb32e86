"""`python -m services.nsmanager`: the service process."""

import sys

from crossns import service
from services.nsmanager import app

sys.exit(service.main("nsmanager", app.build))
