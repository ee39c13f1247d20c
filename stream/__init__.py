"""How frames move: wire formats, decoding, the shared-memory ring, the receiver, the sink."""
