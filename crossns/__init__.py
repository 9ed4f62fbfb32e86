"""What every crossns service stands on; it knows no service."""
