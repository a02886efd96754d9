"""What this node does for others: linear layers and pieces of models, by the data plane.

data_plane   the thread: requests in, results out
lent         connections of the data plane that it did not accept itself
dialled      lines that the data plane dials
relays       hands results of spans on to the next device
commands     what other threads ask of the data plane
inbox        messages of peers that ask faster than they are served, unopened
reception    what is done with a message of a peer: an answer at once, or a request that waits for its turn
at_once      a share that comes while nothing else waits
attendance   as long as a peer asks alone, C answers it
native_shares  what C may answer (node/native/shares.c)
work_queue   requests that wait
turns        whose turn it is, by time used
breaks       when a thread that is asked for too much only listens
computing    which part of whose request is computed next
bulk         the thread of long requests
worker       linear layers, computed in parts
spans        runs of layers with their KV caches, for devices of the same owner
refusal      why a request is not served
outbox       answers on their way
hosting      which units this node holds and announces
lending      what was computed for whom, and whether anything is now
lending_watch  tells the swarm when that begins or ends
blobs        answers to questions for blobs
disk_reader    the thread that reads pieces and makes outlines
"""
