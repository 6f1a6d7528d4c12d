"""Small pictures for pages that show many: what a browser fetches is kilobytes each."""

import io

from PIL import Image

from jobs.kept import KeptFiles
from jobs.layout import JobLayout
from jobs.manifest import Manifest
from jobs.pictures import PictureFile, Pictures, Place

#: Pixels of the longer side; a picture that is no larger is shown as it is.
SIDE = 256
_QUALITY = 82
#: Bytes of them that are kept in memory: about 5,000.
KEPT = 64 << 20


class Thumbnails:
    """Makes them from the pictures of committed shards."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._kept = KeptFiles(KEPT)

    def read(self, layout: JobLayout, manifest: Manifest, place: Place) -> PictureFile:
        """The small form of a picture that was located; raises NotFound where it just went."""
        key = (layout.root, place.sha256)
        return self._kept.get(key, lambda: _small(self._pictures.fetch(layout, manifest, place)))

    def first(self, layout: JobLayout) -> PictureFile:
        """That of the first picture that lies in the store; raises NotFound."""
        found = self._pictures.first(layout)
        return self._kept.get(found.sha256, lambda: _small(found))


def _small(found: PictureFile) -> PictureFile:
    with Image.open(io.BytesIO(found.data)) as picture:
        if max(picture.size) <= SIDE:
            return found
        # JPEG decodes to a fraction of its size by itself.
        picture.draft("RGB", (SIDE, SIDE))
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=_QUALITY, method=2)
    return PictureFile(out.getvalue(), "image/webp", f"{found.sha256}-{SIDE}")
