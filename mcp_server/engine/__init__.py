"""Providers of contexts. `base` is the port; the composition root alone picks an implementation."""
