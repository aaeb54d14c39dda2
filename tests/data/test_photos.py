"""Which photos are found in a folder or a CSV, and how they are dealt to splits."""

import os
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerexp.data import photos
from flowerexp.data.division import SPLITS, stratify
from flowerexp.errors import UserError


def plant(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def found(folder):
    return {photo.identifier: photo.label for photo in photos.listed(folder).photos}


NAMES = ("rose/a.jpg", "rose/b [1], c.JPEG", "rose/deep/er/a.jpg", "tulip é/ü .PNG",
         "tulip é/x.webp", "a 'b'/c.gif")


def test_a_folder_in_it_is_a_class_and_the_order_is_by_name(tmp_path):
    one, other = plant(tmp_path / "one", *NAMES), plant(tmp_path / "two", *reversed(NAMES))
    listing = photos.listed(one)
    assert [photo.identifier for photo in listing.photos] == sorted(NAMES)
    assert found(one) == found(other) == {name: name.partition("/")[0] for name in NAMES}
    assert all(photo.path.read_bytes().decode() == photo.identifier for photo in listing.photos)
    assert (listing.left_out, listing.notes) == ((), ())


def test_what_is_no_photo_is_counted_and_said(tmp_path):
    plant(tmp_path, "rose/a.jpg", "rose/notes.txt", "rose/.DS_Store", "rose/._a.jpg", "Thumbs.db",
          ".git/x.jpg", "thorn/readme.TXT", "loose.jpg")
    listing = photos.listed(tmp_path)
    assert [photo.identifier for photo in listing.photos] == ["rose/a.jpg"]
    assert listing.left_out == (("loose.jpg", "it is outside of every class's folder"),)
    files, empty = listing.notes
    assert files.startswith("6 files and folders ignored because they are not photos")
    for kind in (".txt 2", ".DS_Store 1", ".db 1", ".git 1", ".jpg 1"):
        assert kind in files
    assert empty == "1 folder without a photo: 'thorn'."


def test_links_are_followed_and_none_in_a_circle(tmp_path):
    plant(tmp_path / "elsewhere", "a.jpg", "b.jpg")
    plant(tmp_path / "photos", "rose/c.jpg")
    (tmp_path / "photos/tulip").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/rose/again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/rose/d.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert sorted(found(tmp_path / "photos")) == ["rose/c.jpg", "rose/d.jpg", "tulip/a.jpg",
                                                  "tulip/b.jpg"]


def test_a_name_that_is_no_utf8_can_be_written_and_read(tmp_path):
    place = tmp_path / "rose"
    place.mkdir()
    with open(os.fsencode(place) + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    (photo,) = photos.listed(tmp_path).photos
    assert photo.identifier == "rose/\\xff.jpg"
    assert photo.path.read_bytes() == b"x"


@pytest.mark.parametrize(("names", "words"), [
    ((), "holds no photo of a class"), (("a.jpg",), "holds no photo of a class"),
    (("rose/a.txt",), "1 folder without a photo"),
    (("train/a.jpg", "val/b.jpg"), "holds train, val, which are splits, not classes: their photos"),
    (("val/rose/a.jpg", "test/rose/b.jpg"), "are splits, not classes: none is named train"),
    (("train/rose/a.jpg", "val/rose/a.jpg", "valid/rose/a.jpg"), "which both name the split val")])
def test_folders_without_classes_are_refused(tmp_path, names, words):
    with pytest.raises(UserError, match=words):
        photos.listed(plant(tmp_path, *names))


def test_nothing_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: give a folder"):
        photos.listed(tmp_path / "nowhere")


def test_classes_that_are_numbers_are_in_their_order():
    assert photos.in_order(["10", "9", "0", "9"]) == ["0", "9", "10"]
    assert photos.in_order(["10", "9", "x"]) == ["10", "9", "x"]


def csv_of(tmp_path, text, name="list.csv"):
    (tmp_path / name).write_bytes(text.encode())
    return photos.listed(tmp_path / name)


def rows_of(listing):
    return [(photo.identifier, photo.label) for photo in listing.photos]


@pytest.mark.parametrize("header", ["path,label\n", "\ufeffPath, Label\r\n", ""])
def test_a_csv_with_and_without_header(tmp_path, header):
    listing = csv_of(tmp_path, header + "b.jpg,rose\nx/a.jpg, NA\n./c d.jpg,007\n")
    assert rows_of(listing) == [("b.jpg", "rose"), ("c d.jpg", "007"), ("x/a.jpg", "NA")]
    assert listing.photos[1].path == tmp_path / "c d.jpg"


def test_paths_of_a_csv_are_relative_to_it_or_absolute(tmp_path):
    (tmp_path / "lists").mkdir()
    listing = csv_of(tmp_path / "lists", f"path,label\n../x/a.jpg,1\n{tmp_path}/lists/b.jpg,2\n"
                                         "/far/c.jpg,3\n")
    assert rows_of(listing) == [("../x/a.jpg", "1"), ("/far/c.jpg", "3"), ("b.jpg", "2")]
    assert [photo.path for photo in listing.photos] == [
        tmp_path / "x/a.jpg", Path("/far/c.jpg"),
        tmp_path / "lists/b.jpg"]


def test_labels_with_commas_quotes_and_lines(tmp_path):
    listing = csv_of(tmp_path, 'label,path\n"a, ""b""",1.jpg\n"two\nlines",2.jpg\n')
    assert rows_of(listing) == [("1.jpg", 'a, "b"'), ("2.jpg", "two\nlines")]


def test_other_columns_repeated_and_incomplete_rows_are_said(tmp_path):
    listing = csv_of(tmp_path, "id,path,label,who\n1,a.jpg,x,me\n2,./a.jpg,x,me\n3,b.jpg,,me\n"
                               "4,,x,me\n")
    assert rows_of(listing) == [("a.jpg", "x")]
    assert listing.left_out == (("b.jpg", "row 3 of list.csv has no label"),
                                ("row 4", "row 4 of list.csv has no path"))
    assert listing.notes == ("2 other columns of list.csv ignored: 'id', 'who'.",
                             "1 row of list.csv ignored as repeated.")


@pytest.mark.parametrize(("text", "words"), [
    ("", "cannot be read as a CSV"), ("path,label\n", "holds no photo"),
    ("a.jpg,x,1\n", "3 columns and no header"), ("a.jpg\n", "1 columns and no header"),
    ("path,label\na.jpg,x\na.jpg,y\n", "a.jpg has two labels, 'x' and 'y'"),
    ("path,label\na,b,c.jpg,x\n", "cannot be read as a CSV")])
def test_csvs_that_are_wrong_are_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as mistake:
        csv_of(tmp_path, text)
    assert "\n" not in str(mistake.value)


def test_the_fingerprint_tells_a_changed_a_new_and_a_missing_photo(tmp_path):
    plant(tmp_path, "rose/a.jpg", "rose/b.jpg")
    seen = [photos.fingerprint(photos.listed(tmp_path))]
    assert photos.fingerprint(photos.listed(tmp_path)) == seen[0]
    os.utime(tmp_path / "rose/a.jpg", (1, 1))
    seen.append(photos.fingerprint(photos.listed(tmp_path)))
    plant(tmp_path, "rose/c.jpg")
    seen.append(photos.fingerprint(photos.listed(tmp_path)))
    (tmp_path / "rose/b.jpg").unlink()
    seen.append(photos.fingerprint(photos.listed(tmp_path)))
    assert len(set(seen)) == 4


hundredths = st.integers(1, 98).flatmap(lambda val: st.tuples(
    st.just(Fraction(val, 100)), st.integers(0, 99 - val).map(lambda test: Fraction(test, 100))))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=150), hundredths, st.integers(0, 9),
       st.randoms())
@settings(deadline=None, max_examples=150)
def test_every_photo_is_in_one_split_and_every_class_is_split_alike(labels, shares, seed, random):
    val, test = shares
    ids = [f"photo {number}" for number in range(len(labels))]
    splits = stratify(labels, ids, val, test, seed)
    assert set(splits) <= set(SPLITS)
    for label, number in Counter(labels).items():
        counts = Counter(split for split, its in zip(splits, labels, strict=True) if its == label)
        assert counts["train"] >= 1
        for split, share in zip(SPLITS, (1 - val - test, val, test), strict=True):
            assert abs(counts[split] - number * share) < 1
    order = list(range(len(labels)))
    random.shuffle(order)
    again = stratify([labels[index] for index in order], [ids[index] for index in order], val,
                     test, seed)
    assert [splits[index] for index in order] == again


def deal(labels, val="0.15", test="0.15", seed=0):
    return stratify(labels, [f"{number}.jpg" for number in range(len(labels))], Fraction(val),
                    Fraction(test), seed)


def test_shares_are_exact_and_the_seed_draws():
    assert Counter(deal([0] * 20)) == {"train": 14, "val": 3, "test": 3}
    assert Counter(deal([0] * 100, "0.29", "0")) == {"train": 71, "val": 29}
    assert deal([0] * 20) == deal([0] * 20)
    assert deal([0] * 20) != deal([0] * 20, seed=1)


def test_five_thousand_classes_of_two_photos_still_give_a_data_set_its_shares():
    counts = Counter(deal([number // 2 for number in range(10_000)]))
    assert all(abs(counts[split] - share) <= 1
               for split, share in zip(SPLITS, (7000, 1500, 1500), strict=True))


def test_a_class_of_one_is_trained_on():
    assert set(deal(list(range(50)), "0.45", "0.45")) == {"train"}
