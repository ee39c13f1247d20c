"""References beside the gate: what others built or would try, scored on the same frames.

One rule: nothing that judges a live frame imports this package. Start at `reference.py`.
"""
