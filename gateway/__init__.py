"""The management plane: one gRPC address for every service of the device. See README.md."""
