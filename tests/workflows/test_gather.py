"""Folders, files, archives, URLs and lists of URLs, mixed freely, become one dataset."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.sources import repeats_of
from dreamctl.workflows.heap import UrlOutcome
from dreamctl.workflows.prepare import PrepareReport
from tests.fakes import Recorder
from tests.website import Answer, Site, serving
from tests.workflows.preparing import picture, snapshot
from tests.workflows.preparing import run as prepare_small

Run = Callable[..., PrepareReport]
PAGE = Answer(b"<html>log in</html>")


@pytest.fixture
def reporter() -> Recorder:
    return Recorder()


@pytest.fixture
def run(user: Path, reporter: Recorder) -> Run:
    def prepared(*words: str | Path, **options: bool | Path) -> PrepareReport:
        return prepare_small(Context.open(None, {}, reporter), *words, **{"allow_private": True, **options})

    return prepared


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Callable[[int], bytes]:
    """The bytes of different PNG pictures."""
    return lambda seed: picture(tmp_path / "made" / f"{seed}.png", seed).read_bytes()


def pack(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_all_kinds_of_sources_on_one_line(
    run: Run, site: Site, user: Path, data: Callable[[int], bytes], reporter: Recorder
) -> None:
    picture(user / "original" / "a.png", 1)
    picture(user / "single.png", 2)
    pack(user / "heap.zip", **{"in/b.png": data(3), "in/b.txt": b"at night", "in/bad.png": b"no"})
    listed = site.put("/list/c.png", Answer(data(4)))
    (user / "urls.txt").write_text(f"# mine\n{listed}\nnonsense\n{site.url}/gone.png\n")
    told = site.put("/d.png", Answer(data(5)))
    (user / "urls.csv").write_text(f'url,caption,name\n{told},"on a beach, waving",best\n')
    named = site.put("/e.png", Answer(data(6)))
    page = site.put("/page.png", PAGE)
    report = run("original", "single.png", "heap.zip", "urls.txt", "urls.csv", named, page)
    host = f"127.0.0.1:{site.port}"
    assert {item.source: item.file for item in report.pictures} == {
        "original/a.png": "a.jpg", "single.png": "single.jpg", "heap.zip/in/b.png": "b.jpg",
        f"{host}/list/c.png": "c.jpg", f"{host}/d.png": "best.jpg", f"{host}/e.png": "e.jpg",
    }  # fmt: skip
    assert {item.source: item.reason for item in report.skipped} == {
        "urls.txt:3": "is not an http or https URL",
        f"{site.url}/gone.png": "is not there (404)",
        f"{site.url}/page.png": "is a web page, not a picture",
        "heap.zip/in/bad.png": "is not a picture of a kind that is read",
    }
    assert all(item.advice for item in report.skipped)
    assert set(report.urls) == {
        UrlOutcome(listed, "c.jpg"), UrlOutcome(told, "best.jpg"), UrlOutcome(named, "e.jpg"),
        UrlOutcome(f"{site.url}/gone.png", None, "is not there (404)"),
        UrlOutcome(page, None, "is a web page, not a picture"),
        UrlOutcome("nonsense", None, "urls.txt:3 is not an http or https URL"),
    }  # fmt: skip
    captions = DatasetFolder(report.dataset).captions()
    assert {name: text for name, text in captions.items() if text} == {
        "b.jpg": "at night", "best.jpg": "on a beach, waving",
    }  # fmt: skip
    assert any(f"{site.url}/gone.png is not there (404): skipped" in text for text in reporter.warnings)
    assert not (report.dataset / ".prepare").exists()


def test_again_nothing_is_fetched_or_made(run: Run, site: Site, user: Path, data: Callable[[int], bytes]) -> None:
    url = site.put("/a.png", Answer(data(1), headers={"ETag": '"7"'}), Answer(status=304))
    heap = pack(user / "heap.zip", **{"b.png": data(2)})
    first = run(url, heap)
    second = run(url, heap)
    assert (second.made, second.digest, second.urls) == ((), first.digest, first.urls)
    assert site.seen[1][1]["if-none-match"] == '"7"'


def test_offline_the_copies_are_used_and_people_are_told(
    run: Run, site: Site, data: Callable[[int], bytes], reporter: Recorder
) -> None:
    url = site.put("/a.png", Answer(data(1)), Answer(status=503, headers={"Retry-After": "0"}))
    first = run(url)
    again = run(url)
    assert (again.made, again.skipped, again.digest) == ((), (), first.digest)
    with pytest.raises(DreamctlError, match=r"1 problem: .*status 503: the copy of 20"):
        run(url, strict=True)
    assert any("status 503: the copy of 20" in text for text in again.warnings)
    assert again.warnings[0] in reporter.warnings


def test_what_cannot_be_looked_at_again_stays(run: Run, site: Site, user: Path, data: Callable[[int], bytes]) -> None:
    away = site.put("/a.png", Answer(data(1)), Answer(status=503, headers={"Retry-After": "0"}))
    here = site.put("/b.png", Answer(data(2)))
    first = run(away, here)
    shutil.rmtree(paths.cache_dir() / "downloads")
    picture(user / "a.png", 3)  # wants the name that is taken
    again = run(away, here, user / "a.png")
    assert (again.skipped, again.removed, len(again.made)) == ((), (), 1)
    assert {item.source: item for item in first.pictures}.items() <= {
        item.source: item for item in again.pictures
    }.items()
    assert any("a.png could not be looked at again: its picture stays as it was" in text for text in again.warnings)
    (outcome,) = [item for item in again.urls if item.url == away]
    assert outcome.file == first.urls[0].file and "503" in str(outcome.reason)
    larger = run(away, here, user / "a.png", size=96)
    assert [item.source for item in larger.skipped] == [away], "it cannot be made anew"


def test_a_retouched_picture_whose_source_is_absent_stays_true(
    run: Run, site: Site, data: Callable[[int], bytes]
) -> None:
    away = site.put("/a.png", Answer(data(1)), Answer(status=503, headers={"Retry-After": "0"}))
    here = site.put("/b.png", Answer(data(2)))
    first = run(away, here)
    shutil.rmtree(paths.cache_dir() / "downloads")
    Image.new("RGB", (64, 64), "pink").save(first.dataset / "a.jpg")
    run(away, here)
    again = run(away, here)
    assert all(sha256_file(again.dataset / item.file) == item.sha256 for item in again.pictures)
    assert not any("edited" in text for text in again.warnings)


def test_absent_sources_of_one_name_stay_apart(run: Run, site: Site, data: Callable[[int], bytes]) -> None:
    secret = "id=" + "A" * 40  # long queries are not told, so all three have one name
    answers = [Answer(data(number)) for number in range(3)]
    site.put("/uc", *answers, Answer(status=503, headers={"Retry-After": "0"}), answers[1], answers[2])
    words = [f"{site.url}/uc?{secret}{number}" for number in range(3)]
    first = run(*words)
    assert len({item.sha256 for item in first.pictures}) == 3
    shutil.rmtree(paths.cache_dir() / "downloads")
    again = run(*words)
    assert sorted(item.file for item in again.pictures) == sorted(item.file for item in first.pictures)
    for item in again.pictures:
        assert sha256_file(again.dataset / item.file) == item.sha256


def test_the_pictures_of_an_absent_archive_stay(run: Run, site: Site, user: Path, data: Callable[[int], bytes]) -> None:
    heap = pack(user / "heap.zip", **{"a.png": data(1), "b.png": data(2)})
    away = site.put("/heap.zip", Answer(heap.read_bytes()), Answer(status=503, headers={"Retry-After": "0"}))
    here = site.put("/c.png", Answer(data(3)))
    first = run(away, here)
    shutil.rmtree(paths.cache_dir() / "downloads")
    again = run(away, here)
    assert (again.removed, again.skipped, again.digest) == ((), (), first.digest)
    assert {outcome.url: (outcome.file, outcome.files) for outcome in again.urls} == {
        away: (None, 2),
        here: ("c.jpg", 0),
    }
    more = run(away, here, site.put("/d.png", Answer(data(4))))
    assert len(more.pictures) == 4, "what is absent is nobody else's"


def test_a_failed_url_is_a_bad_file_under_strict(
    run: Run, site: Site, user: Path, data: Callable[[int], bytes]
) -> None:
    url = site.put("/a.png", Answer(data(1)))
    with pytest.raises(DreamctlError, match=r"1 file cannot be used: http.*/gone\.png is not there") as raised:
        run(url, f"{site.url}/gone.png", strict=True)
    assert raised.value.exit_code == 1
    assert not (user / "processed").exists()
    with pytest.raises(DreamctlError, match="no file can be used: http"):
        run(f"{site.url}/gone.png")
    assert not (user / "processed").exists()


def test_where_nothing_comes_any_more_the_dataset_stays(
    run: Run, site: Site, user: Path, data: Callable[[int], bytes]
) -> None:
    url = site.put("/a.png", Answer(data(1)), Answer(status=404))
    before = snapshot(run(url).dataset)
    with pytest.raises(DreamctlError, match=r"no file can be used: http.*/a\.png is not there"):
        run(url)
    assert snapshot(user / "processed") == before


def test_this_computer_is_not_fetched_from_by_default(run: Run, site: Site) -> None:
    url = site.put("/a.png", PAGE)
    with pytest.raises(DreamctlError, match="asks for port") as raised:
        run(url, allow_private=False)
    assert "--allow-private" in str(raised.value.hint) and site.seen == []


def test_a_presigned_url_leaves_no_trace(
    run: Run, site: Site, user: Path, data: Callable[[int], bytes], reporter: Recorder
) -> None:
    url = site.put("/me/a.png", Answer(data(1), headers={"ETag": '"7"'}))
    secret = "?X-Amz-Credential=AKGEHEIM&X-Amz-Signature=GEHEIM&X-Amz-Expires=60"
    report = run(url + secret, f"{site.url}/gone.png{secret}")
    texts = [str(report), *reporter.warnings, *reporter.notes]
    texts += [path.read_bytes().decode("latin-1") for path in user.parent.rglob("*") if path.is_file()]
    assert not any("GEHEIM" in text for text in texts)
    assert report.pictures[0].source == f"127.0.0.1:{site.port}/me/a.png"
    again = run(url + secret.replace("=GEHEIM", "=GEHEIMGEHEIM"), f"{site.url}/gone.png")
    assert again.made == (), "the same picture under a new signature"


def test_two_urls_that_differ_in_their_secret_stay_apart(run: Run, site: Site, data: Callable[[int], bytes]) -> None:
    url = site.put("/get", Answer(data(1)), Answer(data(2)))
    report = run(f"{url}?token=one", f"{url}?token=two")
    assert sorted(item.source for item in report.pictures) == [
        f"127.0.0.1:{site.port}/get", f"127.0.0.1:{site.port}/get (2)",
    ]  # fmt: skip
    assert {item.file for item in report.urls} == {"get.jpg", "get-2.jpg"}


def test_an_archive_behind_a_url(run: Run, site: Site, user: Path, data: Callable[[int], bytes]) -> None:
    heap = pack(user / "heap.zip", **{"x/a.png": data(1), "b.png": data(2)})
    url = site.put("/heap.zip", Answer(heap.read_bytes()))
    report = run(url)
    host = f"127.0.0.1:{site.port}"
    assert [item.source for item in report.pictures] == [f"{host}/heap.zip/x/a.png", f"{host}/heap.zip/b.png"]
    assert report.urls == (UrlOutcome(url, None, "is an archive of 2 files", 2),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04 and no more", "heap.zip is a damaged archive"),
        (b"PK\x05\x06" + bytes(18), "heap.zip holds no pictures"),
    ],
)
def test_an_archive_of_which_nothing_is_used(run: Run, user: Path, content: bytes, says: str) -> None:
    (user / "heap.zip").write_bytes(content)
    with pytest.raises(DreamctlError, match=says) as raised:
        run("heap.zip")
    assert raised.value.hint and not (user / "processed").exists()
    picture(user / "good.png")
    assert len(run("heap.zip", "good.png").skipped) == 1


def test_an_archive_and_its_folder_give_the_same_pictures(run: Run, user: Path) -> None:
    for number in range(3):
        picture(user / "original" / f"{number}.png", number)
    folder = run("original")
    shutil.make_archive(str(user / "moved"), "zip", user, "original")
    archive = run("moved.zip", out=user / "other")
    assert archive.digest == folder.digest
    assert run("moved.zip", out=user / "processed").made == (), "known by their content"


def test_captions_on_the_line_are_no_lists(run: Run, user: Path) -> None:
    picture(user / "original" / "a.png")
    picture(user / "original" / "b.JPG").rename(user / "original" / "b.GIF")
    (user / "original" / "a.txt").write_text("http://127.0.0.1:9/is a caption")
    for name in ("b.txt", "b.AAE", "a.json"):
        (user / "original" / name).write_text("http://127.0.0.1:9/")
    report = run(*sorted((user / "original").iterdir()))
    assert (len(report.pictures), report.skipped, report.urls) == (2, (), ())
    captions = {"a.jpg": "http://127.0.0.1:9/is a caption", "b.jpg": "http://127.0.0.1:9/"}
    assert DatasetFolder(report.dataset).captions() == captions
    shutil.rmtree(report.dataset)
    assert run("original").urls == (), "nor are those in a folder"


@pytest.mark.parametrize(
    ("word", "kind", "says"),
    [
        ("gone.txt", NotFound, "gone.txt does not exist"),
        ("gone.zip", NotFound, "gone.zip does not exist"),
        ("empty.txt", InvalidInput, "empty.txt names no URLs"),
        ("ftp://h/a.jpg", DreamctlError, "no file can be used: ftp://h/a.jpg is not an http or https URL"),
        ("http://me:GEHEIM@h/a.jpg", DreamctlError, "no file can be used: http://h/a.jpg holds a user name"),
    ],
)  # fmt: skip
def test_what_is_no_source(run: Run, user: Path, word: str, kind: type[DreamctlError], says: str) -> None:
    (user / "empty.txt").write_text("\n")
    with pytest.raises(kind, match=says) as raised:
        run(word)
    assert raised.value.hint and "GEHEIM" not in raised.value.message
    assert not (user / "processed").exists()


# repeats


def test_a_folder_s_name_tells_repeats(run: Run, user: Path, data: Callable[[int], bytes]) -> None:
    picture(user / "set" / "10_luna" / "a.png", 1)
    picture(user / "set" / "plain" / "b.png", 2)
    pack(user / "heap.zip", **{"3_luna/c.png": data(3), "d.png": data(4)})
    report = run("set", "heap.zip", recursive=True)
    assert {item.file: item.repeats for item in report.pictures} == {"a.jpg": 10, "b.jpg": 1, "c.jpg": 3, "d.jpg": 1}
    assert run("set/10_luna", out=user / "other").pictures[0].repeats == 10
    (user / "set" / "10_luna").rename(user / "set" / "5_luna")
    again = run("set", "heap.zip", recursive=True)
    assert again.made == () and {item.file: item.repeats for item in again.pictures}["a.jpg"] == 5
    assert DatasetFolder(again.dataset).manifest().pictures == again.pictures


@pytest.mark.parametrize(
    ("folder", "repeats"),
    [("10_luna", 10), ("1_x", 1), ("999_x", 999), ("2024_sea", 1), ("01_sea", 1), ("10", 1), ("10_", 1), ("x_10", 1)],
)
def test_which_names_tell_repeats(folder: str, repeats: int) -> None:
    assert repeats_of(folder) == repeats


# manifests of strangers


@pytest.mark.parametrize(
    "name", ["../victim.txt", "/etc/passwd", "a/../../victim.txt", "..\\victim.txt", "C:/x", ".", ""]
)
def test_a_manifest_cannot_name_files_outside_its_folder(run: Run, user: Path, name: str) -> None:
    picture(user / "original" / "a.png")
    (user / "victim.txt").write_text("precious")
    report = run("original")
    manifest = json.loads((report.dataset / "dataset.json").read_text())
    for key in ("file", "mask"):
        evil = {**manifest, "pictures": [{**manifest["pictures"][0], key: name}]}
        (report.dataset / "dataset.json").write_text(json.dumps(evil))
        before = snapshot(user)
        with pytest.raises(InvalidInput, match="must be the name of a file inside the dataset"):
            DatasetFolder(report.dataset).manifest()
        with pytest.raises(DreamctlError, match="inside the dataset"):
            run("original")
        assert snapshot(user) == before


def test_the_name_of_a_dataset_does_not_climb(run: Run, user: Path) -> None:
    picture(user / "original" / "a.png")
    (user / "deep" / "er").mkdir(parents=True)
    report = run("original", out=Path("deep/er/../../mine"), zip_=True)
    assert (report.dataset, report.zip) == (user / "mine", user / "mine.zip")
    with pytest.raises(InvalidInput, match="cannot be a dataset folder"):
        run("original", out=Path("/"))
