"""Ray's own fake node provider, which writes down when it is asked for nodes and rid of them."""

import json
import os
import time
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

#: The file that it appends to.
NOTES = "FEWSTEP_AUTOSCALER_NOTES"


class NotedProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Makes and ends nodes as its base does; Ray's autoscaler imports it by its name."""

    def _create_node_with_resources_and_labels(
        self, config: Any, tags: Any, count: int, resources: dict[str, float], labels: Any
    ) -> None:
        before = set(self._nodes)
        # The fake provider has no word for a node's memory: it has what Ray finds.
        found = {name: size for name, size in resources.items() if name != "memory"}
        super()._create_node_with_resources_and_labels(config, tags, count, found, labels)
        for node in self._nodes.keys() - before:
            _note("made", node, self.node_tags(node)[TAG_RAY_USER_NODE_TYPE])

    def terminate_node(self, node_id: str) -> None:
        """End a node's processes; noted before."""
        _note("ended", node_id, self.node_tags(node_id)[TAG_RAY_USER_NODE_TYPE])
        super().terminate_node(node_id)


def _note(what: str, node: str, kind: str) -> None:
    at_ms = time.time_ns() // 1_000_000
    line = json.dumps({"what": what, "node": node, "kind": kind, "at_ms": at_ms})
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(f"{line}\n")
