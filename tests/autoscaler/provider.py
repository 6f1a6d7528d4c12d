"""Ray's own fake node provider, which writes down when it is asked for nodes and rid of them."""

import json
import os
import time
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

#: The file that it appends to.
NOTES = "FEWSTEP_AUTOSCALER_NOTES"


class NotedProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Makes and ends nodes as its base does; Ray's autoscaler imports it by its name."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        before = set(self._nodes)
        super()._create_node_with_resources_and_labels(*arguments)
        for node in self._nodes.keys() - before:
            _note("made", node)

    def terminate_node(self, node_id: str) -> None:
        """End a node's processes; noted before."""
        _note("ended", node_id)
        super().terminate_node(node_id)


def _note(what: str, node: str) -> None:
    line = json.dumps({"what": what, "node": node, "at_ms": time.time_ns() // 1_000_000})
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(f"{line}\n")
