"""Reading opens regular files inside a folder and nothing else. Writing never follows a link."""

import os
import stat

import pytest

from protenix_multiseed.files import (
    is_file,
    make_scratch,
    open_to_write,
    publish_folder,
    read_text,
    remove,
    write_text,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    made = tmp_path / "folder"
    (made / "below").mkdir(parents=True)
    (made / "below" / "file").write_text("text")
    return made


PLACES = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("p")), path.symlink_to("p")),
    "link out": lambda path: path.symlink_to("../outside/secret"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_only_regular_files_inside_the_folder_are_opened(folder, make):
    """Before, opening a pipe waited for a writer for ever, and a link could lead to any file of the machine."""
    make(folder / "place")
    with pytest.raises(OSError, match="place"):
        read_text(folder / "place", folder)
    assert not is_file(folder / "place", folder)


@pytest.mark.parametrize("name", ["../outside/secret", "below/../../outside/secret", "/etc/passwd", "a\0b", "x" * 300])
def test_names_that_lead_out_are_refused(folder, name):
    with pytest.raises(OSError, match=r"leads out|not the name of a file|too long"):
        read_text(folder / name, folder)


def test_a_folder_that_is_a_link_out_is_not_entered(folder):
    (folder / "linked").symlink_to("../outside")
    with pytest.raises(OSError, match="leads out"):
        read_text(folder / "linked" / "secret", folder)


def test_links_inside_the_folder_are_read(folder):
    (folder / "linked").symlink_to("below")
    assert read_text(folder / "linked" / "file", folder) == "text"
    assert read_text(folder / "below" / ".." / "below" / "file", folder) == "text"
    (folder.parent / "alias").symlink_to(folder)
    assert read_text(folder.parent / "alias" / "below" / "file", folder.parent / "alias") == "text"


def test_a_link_is_replaced_and_its_target_kept(folder):
    (folder / "link").symlink_to("../outside/secret")
    write_text(folder / "link", "new")
    assert (folder / "link").read_text() == "new"
    assert not (folder / "link").is_symlink()
    assert (folder.parent / "outside" / "secret").read_text() == "secret"


@pytest.mark.parametrize("make", [PLACES["pipe"], PLACES["link out"], PLACES["dangling link"], PLACES["folder"]])
def test_a_folder_is_published_over_anything(folder, make):
    make(folder / "target")
    scratch = make_scratch(folder / "target")
    (scratch / "file").write_text("new")
    publish_folder(scratch, folder / "target")
    assert (folder / "target" / "file").read_text() == "new"
    assert (folder.parent / "outside" / "secret").read_text() == "secret"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_removing_does_not_follow_links(folder):
    (folder / "link").symlink_to("../outside")
    (folder / "below" / "link").symlink_to("../../outside")
    remove(folder / "link")
    remove(folder / "below")
    remove(folder / "missing")
    assert list(folder.iterdir()) == []
    assert (folder.parent / "outside" / "secret").exists()


def test_the_umask_decides_who_may_read(folder):
    before = os.umask(0o027)
    try:
        write_text(folder / "file", "text")
        scratch = make_scratch(folder / "target")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o750


def test_a_failed_write_names_the_file_and_not_its_temporary_name(folder):
    (folder / "place").mkdir()
    with pytest.raises(OSError, match=r"folder/place'$"):
        write_text(folder / "place", "text")
    assert sorted(path.name for path in folder.iterdir()) == ["below", "place"]


def test_opening_to_write_never_waits(folder):
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("../outside/new")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=name):
            os.close(open_to_write(folder / name, folder, os.O_RDWR))
    assert not (folder.parent / "outside" / "new").exists()
    with pytest.raises(OSError, match="pipe"):  # the user chose a pipe that nobody reads
        open_to_write(folder / "pipe", None, os.O_WRONLY)
    os.close(open_to_write(folder / "file", folder, os.O_WRONLY))
