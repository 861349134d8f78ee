"""Real processes under faults: replicas, a store on disk, Pub/Sub and venues, each reached through a way that can be broken."""
