"""Scripts that run a peer in its own environment and print one JSON object."""
