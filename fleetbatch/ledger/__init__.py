"""The only mutable state of a cell: orders, shards, leases, parts, consent, rounds; PostgreSQL decides."""
