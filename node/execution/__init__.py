"""A linear layer computed by peers, with exactly the same result as if it had been computed here.

chunk        a chunk, its record and its state table
lane         which two peers form a lane; a lane of a running session
roster       the lanes of a session, and how a pass is cut among them
pads/        sources of pads, the only difference between privacy modes
peer         a peer in one session: role, open requests, speed, status
account      time that a peer has cost beyond its allowance
patience     how long to wait for a chunk
interrupt    ends a pass that was cancelled
gate         verifies every result, and merges two halves    verify_result, merge_results
owed         answers that nobody waits for any more
owners       who waits for the answer to a request
requests     builds and sends requests with shares and seeds    send_chunk_to_peer
mailbox      reads what the peers send
answers      what their messages mean
direct       one answer, waited for, judged and merged in one call (node/native/direct.c)
exchange     the exchanges of few rows, one after the other: settled, and the next one sent, in one call
unit_pass    decides the next step for the chunks of one layer; no I/O
recovery     a chunk whose lane failed and whose weights are not here
manager      sends chunks, waits for them, and handles failures    ExecutionManager
distributed  computes a layer with a manager, step by step    execute_distributed
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
