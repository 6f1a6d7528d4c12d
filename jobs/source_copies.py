"""What a dataset tells of its prompt sources: their templates, and the rows that were left out."""

from jobs.extent import Extent
from jobs.layout import JobLayout
from jobs.store import Store

_JSON = "application/json"


def copy_sources(store: Store, layout: JobLayout, extent: Extent) -> None:
    """Copy them into the dataset, those of extensions too. May be repeated."""
    rejected = b""
    for one in extent.sources:
        if one.rows.template:
            data = store.get(layout.template(one.rows.prefix))
            store.put(layout.template_copy(one.first_row), data, content_type=_JSON)
        if one.rows.rejected:
            rejected += store.get(layout.rejected(one.rows.prefix))
    if rejected:
        store.put(layout.rejected_copy, rejected, content_type=_JSON)


def source_copies(store: Store, layout: JobLayout) -> list[str]:
    """The keys of what is there of them."""
    added = [found.key for found in store.list(layout.added_templates)]
    own = (layout.template_copy(), layout.rejected_copy)
    return [*(key for key in own if store.head(key) is not None), *added]
