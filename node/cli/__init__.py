"""The command line: `kekahyde-node`. stdout is data, stderr is narration.

    main         the group of commands and the exit codes
    lazy         imports a command when it is called
    options      options that several commands share
    duration     durations as people write them
    narrate      logging and one-line errors on stderr
    stop_signal  Ctrl-C and SIGTERM
    serve        start a node (no subcommand)
    run          answer a prompt
    reading      what was asked, as a model reads it
    waiting      one line about an answer that has not begun
    turns        a chat: each line of stdin is a turn
    on_node      answer it with the node that already runs
    store        import, models
    publishing   an import or a pull asks the swarm to hold the model
    pull         fetch a model from the hub or from peers
    progress     show the progress of a fetch
    thin         --thin: models without the weights of lent units
    wanted       which models are here, and which to fetch from peers
    invite       a line that lets another device into the swarm
    join         enter a swarm with such a line
    pair         pair, unpair
    peers        the known peers and their state
    access       ban, trust
    doctor       what is wrong, and what to do
    interface    the terminal interface
    key          keys for programs on other devices
    name         names of this device and of peers
    lend         what this device computes for others
    launch       start another program with the address of this node
    service      a systemd unit; shell completion
    facts        id, version
    bench        how fast this device is
    audit        what peers receive, attacked as they could

Exit codes: 0 done; 1 failed (one line on stderr says why and what to do next); 2 wrong usage; 130 interrupted.
"""

from node.cli.main import main

__all__ = ["main"]
