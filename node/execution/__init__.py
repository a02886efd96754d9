"""A linear layer computed by peers, exactly as if it had been computed here.

chunk        a chunk, its record and the table of its life
lanes        who may see what: lanes of guards, the cut of rows         split_prompt_for_remote
pads         pad sources, the one difference between privacy modes
pads_paired  pads of a device of the same owner, for `strict`
plain        none: rows as they are, for devices that may read them
peer         a peer in one session: role, debts, speed, trust
interrupt    how a pass ends that nobody wants any more
send         a request on its way                                       send_chunk_to_peer
gate         what every result must pass                                verify_result
merge        two verified halves become exact integers                  merge_results
lane         a lane of a running session
roster       the lanes of a session, the cut of a pass over them
requests     shares and seeds as they travel
mailbox      what the peers send
manager      which chunk to whom, until when, and what if not           ExecutionManager
distributed  the life of all chunks of one layer, in order              execute_distributed
hybrid       one call, local or distributed                             HybridExecutor
config       when to stop waiting
ledger       counts and times for the receipt
"""

from node.execution.distributed import execute_distributed
from node.execution.gate import verify_result
from node.execution.hybrid import HybridExecutor
from node.execution.lanes import split_prompt_for_remote
from node.execution.manager import ExecutionManager
from node.execution.merge import merge_results
from node.execution.send import send_chunk_to_peer

__all__ = [
    "ExecutionManager",
    "HybridExecutor",
    "execute_distributed",
    "merge_results",
    "send_chunk_to_peer",
    "split_prompt_for_remote",
    "verify_result",
]
