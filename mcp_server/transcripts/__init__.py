"""Conversations on file: recorded while they happen, and played again.

`lines` is the format; `recorder` watches a service and writes; `replay` reads, runs everything again and says by
`comparison` what came out differently.
"""
