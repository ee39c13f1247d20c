"""A detector that is not there: physics, frames, the Eiger emulator, faults."""
