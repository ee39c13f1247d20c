"""How a frame is judged: geometry, front end, gate, heads, weights, training, baselines."""
