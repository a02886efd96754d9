"""A linear layer computed by peers, exactly as if it had been computed here.

chunk        a chunk, its record and the table of its life
lanes        which two peers make a lane
lane         a lane of a running session
roster       the lanes of a session, the cut of a pass over them
pads         sources of pads, the one difference between privacy modes
pads_paired  pads of a device of the same owner, for `strict`
plain        none: rows as they are, for devices that may read them
peer         a peer in one session: role, debts, speed, trust
account      what a peer costs, against this device alone
patience     how long a chunk is waited for
interrupt    how a pass ends that was cancelled
send         a request on its way    send_chunk_to_peer
gate         what every result must pass    verify_result
merge        two verified halves become exact integers    merge_results
requests     shares and seeds as they travel
mailbox      what the peers send
manager      which chunk to whom, until when, and what if not    ExecutionManager
distributed  the life of all chunks of one layer, in order    execute_distributed
hybrid       one call, local or distributed    HybridExecutor
config       when to stop waiting and trying
ledger       counts and times for the receipt
tally        what each peer has done for the sessions of this node
"""

from node.execution.distributed import execute_distributed
from node.execution.gate import verify_result
from node.execution.hybrid import HybridExecutor
from node.execution.manager import ExecutionManager
from node.execution.merge import merge_results
from node.execution.send import send_chunk_to_peer
from node.planning.cut import split_prompt_for_remote

__all__ = [
    "ExecutionManager",
    "HybridExecutor",
    "execute_distributed",
    "merge_results",
    "send_chunk_to_peer",
    "split_prompt_for_remote",
    "verify_result",
]
