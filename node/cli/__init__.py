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
    turns        a conversation, each line of stdin a turn
    on_node      ... by the node that runs already
    store        import, models
    pull         a model from the hub or from peers
    progress     how far a fetch is
    thin         --thin: models without the weights of what is lent
    wanted       which models are here, and which peers are to bring
    invite       a line that lets another device into the swarm
    join         enter a swarm by such a line
    pair         pair, unpair
    peers        who is known and how it stands
    access       ban, trust
    doctor       what is wrong, and what to do
    interface    the terminal interface
    service      a systemd unit; shell completion
    facts        id, version
    bench        how fast this device is

Exit codes: 0 done; 1 failed (one line on stderr says why and what next); 2 wrong usage; 130 interrupted.
"""

from node.cli.main import main

__all__ = ["main"]
