"""Conversations and their contexts: who may use what, what runs when, and whose report is due.

The doors call `Service`; it calls an engine and shapes what comes back.
"""

from mcp_server.service.limits import ServiceLimits
from mcp_server.service.observer import ServiceObserver
from mcp_server.service.service import Service

__all__ = ["Service", "ServiceLimits", "ServiceObserver"]
