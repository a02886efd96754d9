"""A linear layer computed by peers, exactly as if it had been computed here.

chunk        a chunk, its record and the table of its life
lane         which two peers make a lane; a lane of a running session
roster       the lanes of a session, the cut of a pass over them
pads/        sources of pads, the one difference between privacy modes
peer         a peer in one session: role, debts, speed, trust
account      what a peer costs, against this device alone
patience     how long a chunk is waited for
interrupt    how a pass ends that was cancelled
gate         what every result must pass; two halves become exact integers    verify_result, merge_results
owed         answers that nobody waits for any more
owners       who waits for the answer to a request
requests     shares and seeds as they travel    send_chunk_to_peer
mailbox      what the peers send
unit_pass    what is done next for the chunks of one layer: pure
recovery     a chunk whose lane failed and whose weights are not here
manager      which chunk to whom, until when, and what if not    ExecutionManager
distributed  does it, step by step    execute_distributed
hybrid       one call, local or distributed    HybridExecutor
config       when to stop waiting and trying
ledger       counts and times for the receipt
tally        what each peer has done for the sessions of this node
"""

from node.execution.distributed import execute_distributed
from node.execution.gate import merge_results, verify_result
from node.execution.hybrid import HybridExecutor
from node.execution.manager import ExecutionManager
from node.execution.requests import send_chunk_to_peer
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
