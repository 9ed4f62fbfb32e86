"""nsmanager: route tables, interfaces, routes, and the addresses of vServices."""
