"""Client of the launcher: makes namespaces, runs engines.

Called by the drivers of nsmanager (namespaces) and proxy (engines); the launcher refuses each what is the other's.
"""

from crossns import session


class Launcher(session.Session):
    """`await Launcher.connect(layout.launcher_socket, service, token, on_event)`, then `await launcher.call(operation)`."""

    reason = "LAUNCHER_UNAVAILABLE"
    peer_name = "the launcher"
