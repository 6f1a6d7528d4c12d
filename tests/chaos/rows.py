"""Rows of the fault matrix that are not struck here yet, and why."""

NOT_STRUCK: dict[str, str] = {
    "32": "a raylet killed: needs a Ray cluster of several nodes in its own namespaces. A killed "
    "renderer under real Ray is in `tests/flow/test_cluster.py`, a cut-off node is row 31",
    "33": "a raylet frozen: as 32. Recovery rests on the lease, not on Ray (rows 4 and 31)",
    "34": "Ray's head killed: as 32. Renderers are then ended by Ray, which is row 1",
    "36": "scale-down while busy: needs Ray's fake autoscaler. A drain of busy renderers is row 37",
}
