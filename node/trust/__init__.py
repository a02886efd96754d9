"""Devices of one owner: how they are paired here, who they are, and what each of them may learn.

paired       the paired devices, kept in the data directory
paired_file  the form of that file, every signature in it checked
desk         attempts to pair, as part of a running node
"""

from node.trust.desk import TrustDesk
from node.trust.paired import PairedDevices
from node.trust.paired_file import PairedDevice

__all__ = ["PairedDevice", "PairedDevices", "TrustDesk"]
