"""Captioned pictures: what is found in tars, what is left out, what is refused; and places."""

import gc
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import captioned_check
from jobs.captioned import Captioned, captioned
from jobs.captioned_check import Span
from jobs.errors import BadConfiguration, InvalidInput
from jobs.places import FolderPlace, Place, check_writable, place_of
from jobs.settings import Settings
from jobs.store import Store
from tests.captioned_tars import picture, write_members
from tests.s3_servers import settings_for

RED = b"a red circle"
PNG = picture(40, 36)


def found(source: Path | str, settings: Settings | None = None) -> list[tuple[str, str]]:
    listed = captioned([str(source)], 32, 32, settings or Settings())
    return [(one.key, one.caption) for one in listed.pictures]


def test_captions_come_from_text_or_json_and_keys_keep_their_folder(tmp_path: Path) -> None:
    write_members(
        tmp_path / "train" / "00000.tar",
        [
            ("a/0.png", PNG),
            ("a/0.txt", b" a red circle\n"),
            ("a/0.json", b'{"prompt": "another"}'),
            ("b/0.webp", picture(32, 32, "WEBP")),
            ("b/0.json", b'{"caption": "a blue star"}'),
            ("b/1.seg.png", PNG),
            ("b/1.JPG", picture(64, 32, "JPEG")),
            ("b/1.json", b'{"prompt": "a ring"}'),
        ],
    )
    assert found(tmp_path) == [("a/0", "a red circle"), ("b/0", "a blue star"), ("b/1", "a ring")]
    first = captioned([str(tmp_path)], 32, 32, Settings()).pictures[0]
    assert (first.read(), first.width, first.height) == (PNG, 40, 36)


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    write_members(
        tmp_path / "0.tar",
        [
            *[("0.png", PNG), ("0.txt", RED)],
            *[("1.png", PNG), ("2.txt", RED)],
            *[("3.png", PNG[:20]), ("3.txt", RED), ("4.png", picture(40, 31)), ("4.txt", RED)],
            *[("5.png", PNG), ("5.json", b"[1"), ("6.png", PNG), ("6.txt", b" ")],
        ],
    )
    listed = captioned([str(tmp_path)], 32, 32, Settings())
    assert [one.key for one in listed.pictures] == ["0"]
    assert listed.left_out == {
        "without a caption": 3,
        "without a picture": 1,
        "with a picture that cannot be read": 1,
        "smaller than 32x32": 1,
    }


def broken_chunk() -> bytes:
    """A picture with a good header, in whose body a chunk is named as none may be."""
    at = PNG.index(b"IDAT")
    return PNG[:at] + b"\x01\x02\x03\x04" + PNG[at + 4 :]


def text_bomb() -> bytes:
    """One with a text that unpacks to a gigabyte, as Pillow reads it: not at all."""
    packed = zlib.compress(b"x" * (1 << 26), 9)
    body = b"zTXt" + b"a\x00\x00" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return PNG[:33] + chunk + PNG[33:]


def test_pictures_with_a_good_header_and_a_broken_body_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = picture(64, 64, "JPEG")
    bad = {
        "cut": PNG[: len(PNG) * 2 // 3],
        "chunk": broken_chunk(),
        "bomb": text_bomb(),
        "jpeg": jpeg[: len(jpeg) // 2],
    }
    members = [("good.png", PNG), ("good.txt", RED)]
    for name, data in bad.items():
        members += [(f"{name}.png", data), (f"{name}.txt", RED)]
    write_members(tmp_path / "0.tar", members)
    settings = Settings(cache=tmp_path / "cache")
    listed = captioned([str(tmp_path)], 32, 32, settings)
    assert [one.key for one in listed.pictures] == ["good"]
    assert listed.left_out["with a picture that cannot be read"] == len(bad)

    def never(tar: Path) -> Callable[[Span], str]:
        raise AssertionError(f"{tar} is looked at again")

    monkeypatch.setattr(captioned_check, "_looking", never)
    assert captioned([str(tmp_path)], 32, 32, settings) == listed


def test_other_pictures_and_captions_have_another_digest(tmp_path: Path) -> None:
    def digest(*members: tuple[str, bytes]) -> str:
        write_members(tmp_path / "0.tar", members)
        settings = Settings(cache=tmp_path / f"cache-{len(list(tmp_path.iterdir()))}")
        return captioned([str(tmp_path / "0.tar")], 32, 32, settings).sha256

    one, other = ("0.png", PNG), ("0.png", PNG[:-1] + b"x")
    assert len(PNG) == len(other[1])
    first = digest(one, ("0.txt", RED))
    assert digest(one, ("0.txt", RED), ("0.json", b"{}")) == first
    changed = {
        digest(one, ("0.txt", b"a blue circle")),
        digest(other, ("0.txt", RED)),
        digest(one, ("0.txt", RED), ("1.png", PNG), ("1.txt", RED)),
    }
    assert len(changed | {first}) == 4


def test_a_caption_of_a_megabyte_is_left_out(tmp_path: Path) -> None:
    long = b"x" * 1_000_001
    members = [("0.png", PNG), ("0.txt", long), ("1.png", PNG), ("1.txt", RED)]
    write_members(tmp_path / "0.tar", [*members, ("2.png", PNG), ("2.json", b'["' + long + b'"]')])
    listed = captioned([str(tmp_path)], 32, 32, Settings())
    assert [one.key for one in listed.pictures] == ["1"]
    assert listed.left_out == {"with a caption of more than 1000000 bytes": 2}


BAD = {
    "no captions": ([("0.png", PNG)], "1 without a caption"),
    "no pictures": ([("0.txt", RED)], "1 without a picture"),
    "wrong sizes": ([("0.png", picture(31, 64)), ("0.txt", RED)], "1 smaller than 32x32"),
    "nothing": ([], "its tars are empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_dataset_of_no_use_is_refused(tmp_path: Path, case: str) -> None:
    members, says = BAD[case]
    write_members(tmp_path / "0.tar", members)
    with pytest.raises(InvalidInput, match=says):
        found(tmp_path)


def test_no_folder_no_tar_and_no_real_tar_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        found(tmp_path / "gone")
    with pytest.raises(InvalidInput, match=r"no \.tar"):
        found(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(InvalidInput, match="no tar that can be read"):
        found(tmp_path)


def test_tars_of_a_store_are_copied_once(tmp_path: Path, moto_url: str) -> None:
    given = settings_for(moto_url)
    settings = given.model_copy(update={"cache": tmp_path / "cache"})
    store = Store.connect(settings, create_bucket=True)
    tar = write_members(tmp_path / "0.tar", [("0.png", PNG), ("0.txt", RED)])
    store.put_file("sets/one/train/0.tar", tar)
    store.put("sets/one/README.md", b"# not a tar")
    place = f"s3://{settings.s3_bucket}/sets/one"
    assert found(place, settings) == [("0", "a red circle")]
    copies = list((settings.cache / "captioned").glob("*.tar"))
    assert found(place, settings) == [("0", "a red circle")]
    assert list((settings.cache / "captioned").glob("*.tar")) == copies
    with pytest.raises(InvalidInput, match=r"no \.tar"):
        found(f"s3://{settings.s3_bucket}/sets/two", settings)
    with pytest.raises(InvalidInput, match="no place in a store"):
        found(f"s3://{settings.s3_bucket}", settings)
    store.close()


def test_copies_that_no_run_needs_make_room(tmp_path: Path, moto_url: str) -> None:
    tars = [write_members(tmp_path / f"{n}.tar", [("0.png", PNG), ("0.txt", RED)]) for n in "abc"]
    size = tars[0].stat().st_size
    update = {"cache": tmp_path / "cache", "cache_bytes": 2 * size}
    settings = settings_for(moto_url).model_copy(update=update)
    store = Store.connect(settings, create_bucket=True)
    for tar in tars:
        store.put_file(f"sets/{tar.stem}/0.tar", tar)
    store.close()

    def places() -> set[str]:
        return {one.name for one in (settings.cache / "captioned").glob("*.tar")}

    def run(name: str) -> Captioned:
        return captioned([f"s3://{settings.s3_bucket}/sets/{name}/"], 32, 32, settings)

    first = run("a")
    (of_first,) = places()
    run("b")
    assert len(places()) == 2
    # `first` still needs its copy, so nothing goes although the limit is passed.
    run("c")
    assert len(places()) == 3
    assert first.pictures[0].read() == PNG
    del first
    gc.collect()
    run("b")
    run("a")
    assert len(places()) == 3, "all are there, so nothing is fetched and nothing has to go"
    kept = places()
    write_members(tmp_path / "d.tar", [("0.png", PNG), ("0.txt", b"another")])
    store = Store.connect(settings)
    store.put_file("sets/d/0.tar", tmp_path / "d.tar")
    store.close()
    run("d")
    assert len(places()) == 2
    assert of_first in places(), "used last but one"
    assert len(places() & kept) == 1
    assert list((settings.cache / "captioned" / "held").iterdir()) == []


def exercise(place: Place) -> None:
    assert place.names() == []
    assert place.read("a/b.txt") is None
    place.write("a/b.txt", b"one")
    place.write("a/b.txt", b"two")
    place.write("c", b"three")
    assert (place.names(), place.read("a/b.txt")) == (["a/b.txt", "c"], b"two")
    place.remove("c")
    place.remove("c")
    assert place.names() == ["a/b.txt"]


def test_a_folder_and_a_store_are_the_same_place(tmp_path: Path, moto_url: str) -> None:
    settings = settings_for(moto_url)
    Store.connect(settings, create_bucket=True).close()
    exercise(check_writable(str(tmp_path / "out"), settings))
    out = f"s3://{settings.s3_bucket}/adapters/mine"
    exercise(check_writable(out, settings))
    assert place_of(out, settings).where == out


def test_a_death_while_writing_leaves_no_file(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path)
    place.write("a", b"whole")
    (tmp_path / ".a.12345678.part").write_bytes(b"ha")
    assert place.names() == ["a"]


def test_places_that_cannot_be_written_are_refused(tmp_path: Path, moto_url: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        check_writable(str(tmp_path / "file" / "out"), Settings())
    with pytest.raises(BadConfiguration, match="create the bucket"):
        check_writable("s3://no-such-bucket-here/x", settings_for(moto_url))
    with pytest.raises(InvalidInput, match="no folder"):
        place_of("gs://bucket/x", Settings())
