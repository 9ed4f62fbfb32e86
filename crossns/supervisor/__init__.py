"""Runs the suite in the foreground: what `crossns up` does where no systemd and no container engine does it.

Called by the command line and the demo. It knows no service: what runs, under which uid and in which order stands in
deploy/stack.toml. It never imports gRPC, because it starts processes.
"""
