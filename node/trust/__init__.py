"""Devices of one owner: how they are paired here, who they are, and what each of them may learn.

paired  the paired devices, kept in the data directory
desk    attempts to pair, as part of a running node
"""

from node.trust.desk import TrustDesk
from node.trust.paired import PairedDevice, PairedDevices

__all__ = ["PairedDevice", "PairedDevices", "TrustDesk"]
