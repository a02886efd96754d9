"""What an import and a pull do at their end: ask the swarm to hold the model."""

from __future__ import annotations

from node.cli.narrate import hint, say
from node.errors import ConfigError
from node.gateway.client.client import call_node
from node.gateway.client.connection import node_runs
from node.paths import DataDir
from node.transfer.published import PublishedModels


def publish_new(directory: DataDir, model_id: str) -> None:
    """Publish a whole model that has just come: by the node that runs here, or else when one starts."""
    if not node_runs(directory.path):
        try:
            with directory.alone():
                PublishedModels(directory.published).add(model_id, by_hand=False)
        except ConfigError as exc:  # the model is here all the same
            say(f"note: the swarm is not asked to hold parts of it: {exc}; `models publish` asks")
    elif call_node(directory.path, "publish", model=model_id, automatic=True)["published"]:
        asked = hint(directory.path, f"models show {model_id[:12]}")
        say(f"the members of your swarm are asked to hold parts of it; `{asked}` tells who does")
