"""The processes: supervisor, worker loop, batching, devices, command line."""
