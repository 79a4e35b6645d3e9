"""Runs INSIDE the sandbox: standard library only, relative imports only, syntax of Python 3.9.

The host imports `frames` from here and nothing else.
"""
