"""The screens: chat, peers, models, chunks, logs as modes; help, receipt, privacy and trouble on top of them."""
