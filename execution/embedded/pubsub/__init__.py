"""A local Pub/Sub emulator, for development: real gRPC, real semantics, nothing on disk.

    broker      topics, subscriptions and leases
    filters     subscription filters
    checks      what Pub/Sub refuses
    faults      what can be made to go wrong, to order
    server      the broker over gRPC
    process     the server as a child process

Left out, and refused: push, snapshots, schemas.
"""
