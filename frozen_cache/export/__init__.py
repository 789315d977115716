"""A detector and its head as one thing to hand on, and the proof that it gives the same masks."""
