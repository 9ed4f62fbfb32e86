"""The store on etcd: `client.EtcdStore`, and `embedded` for the etcd that the suite starts itself.

Imports nothing here, so that a supervisor can ask `embedded` for its argv without loading gRPC. The stubs are those of aetcd, the
channel and the watch are ours (docs/adr/0001-etcd-client.md). Above this package nobody knows gRPC's or etcd's errors.
"""
