"""The host's side of isolation: what works here, and the cell in which workers live."""
