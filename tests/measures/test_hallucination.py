"""Probes and their figures by hand; change-aware scores by hand and by what is left when a picture did not
change.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from sparring.data.errors import DataError
from sparring.data.presence import NEGATIVES, Annotated, presence_probes, read_annotations
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.hallucination import CHANGED, Change, change_scores, changes_of, presence_metrics

KITCHEN = [
    Annotated(Path("0.png"), ("cup", "fork")),
    Annotated(Path("1.png"), ("cup", "fork")),
    Annotated(Path("2.png"), ("cup", "apple")),
    Annotated(Path("3.png"), ("zebra", "apple", "umbrella")),
]


def asked(question: VisualQuestion) -> str:
    return (
        question.question.removeprefix("Is there a")
        .removeprefix("n ")
        .removesuffix(" in the picture?")
        .strip()
    )


def answered(question: VisualQuestion, word: str | None) -> Answer:
    choice = None if word is None else "AB"[["yes", "no"].index(word)]
    return Answer(question.id, "d", "", choice, "boxed", choice == question.answer)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_half_is_there_and_half_is_not(negatives: str) -> None:
    probes = presence_probes(KITCHEN, negatives, per_picture=2, seed=1)  # type: ignore[arg-type]
    assert Counter(question.answer_text for question in probes) == {"yes": 8, "no": 8}
    for question in probes:
        picture = KITCHEN[int(question.image.stem)]
        assert (asked(question) in picture.objects) == (question.answer_text == "yes")
    for number in range(4):
        own = [asked(question) for question in probes if question.image.stem == str(number)]
        assert len(set(own)) == 4  # nothing is asked twice of one picture
    assert probes == presence_probes(KITCHEN, negatives, per_picture=2, seed=1)  # type: ignore[arg-type]
    assert len({question.id for question in probes}) == 16
    assert {q.question for q in probes} >= {
        "Is there a cup in the picture?",
        "Is there an apple in the picture?",
    }


def test_popular_and_adversarial_negatives_by_hand() -> None:
    """cup is in three pictures, apple and fork in two, umbrella and zebra in one; fork stands beside cup
    twice, apple once.
    """

    def absent(negatives: str, picture: int) -> list[tuple[str, str]]:
        probes = presence_probes(KITCHEN, negatives, per_picture=2, seed=1)  # type: ignore[arg-type]
        own = [asked(question) for question in probes if question.image.stem == str(picture)]
        return list(zip(own[::2], own[1::2], strict=True))

    assert [name for _, name in absent("popular", 0)] == ["apple", "umbrella"]
    assert [name for _, name in absent("popular", 3)] == ["cup", "fork"]
    assert dict(absent("adversarial", 2))["cup"] == "fork"
    assert dict(absent("adversarial", 0))["cup"] == "apple"
    # Beside the apple stand cup, umbrella and zebra once each, ties by name; of these picture 2 holds the
    # cup.
    assert dict(absent("adversarial", 2))["apple"] == "umbrella"


def test_random_negatives_are_spread() -> None:
    many = [Annotated(Path(f"{n}.png"), (f"o{n % 8}",)) for n in range(400)]
    names = Counter(asked(q) for q in presence_probes(many, "random", per_picture=1) if q.answer_text == "no")
    assert len(names) == 8
    assert min(names.values()) > 25
    with pytest.raises(DataError, match="no absent object is left"):
        presence_probes([Annotated(Path("0.png"), ("cup",))], "random")


def test_metrics_by_hand() -> None:
    """Four there: three said yes, one not read. Four absent: one said yes, three no."""
    probes = presence_probes(KITCHEN, "random", per_picture=1)
    there, absent = ([q for q in probes if q.answer_text == word] for word in ("yes", "no"))
    words = {
        q.id: word
        for own, said in ((there, ["yes"] * 3 + [None]), (absent, ["yes"] + ["no"] * 3))
        for q, word in zip(own, said, strict=True)
    }
    found = presence_metrics(probes, [answered(question, words[question.id]) for question in probes])
    assert found["accuracy"]["value"] == 6 / 8
    assert (found["precision"], found["recall"], found["f1"]) == (3 / 4, 3 / 4, pytest.approx(3 / 4))
    assert (found["yes_rate"]["value"], found["unparsed"]["value"]) == (4 / 8, 1 / 8)
    never = presence_metrics(probes, [answered(question, "no") for question in probes])
    assert (never["precision"], never["recall"], never["f1"]) == (None, 0.0, None)
    json.dumps(never, allow_nan=False)


def test_change_scores_by_hand() -> None:
    removed = [
        (True, False, *said)
        for said in (("yes", "no"), ("yes", "no"), ("no", "yes"), ("yes", "yes"), ("no", "no"))
    ]
    added = [(False, True, *said) for said in (("no", "yes"), ("yes", "no"), ("no", "no"), (None, "yes"))]
    kept = [
        (True, True, "yes", "yes"),
        (True, True, "yes", "no"),
        (False, False, "no", "no"),
        (False, False, None, "no"),
    ]
    found = change_scores([Change(*each) for each in (*removed, *added, *kept)])
    assert [found["removed"][name]["value"] for name in CHANGED] == [2 / 5, 1 / 5, 1 / 5, 1 / 5, 0]
    assert [found["added"][name]["value"] for name in CHANGED] == [1 / 4, 1 / 4, 0, 1 / 4, 1 / 4]
    assert found["changed"]["true_understanding"] == {
        **found["changed"]["true_understanding"],
        "value": 3 / 9,
        "n": 9,
    }
    assert found["removed"]["stubbornness"]["value"] == 2 / 5
    assert (found["kept"]["indecision"]["value"], found["kept"]["indecision"]["n"]) == (1 / 4, 4)
    for kind in ("added", "removed", "changed"):
        assert sum(found[kind][name]["value"] for name in CHANGED) == pytest.approx(1)
    json.dumps(change_scores([]), allow_nan=False)


def test_pairs_are_found_by_their_ids() -> None:
    def question(name: str, answer: str, options: tuple[str, ...] = ("yes", "no")) -> VisualQuestion:
        return VisualQuestion(name, Path("x.png"), "Is there a cup?", options, answer)

    items = [
        question("a-before", "A"),
        question("a-after", "B"),
        question("b-before", "A"),
        question("c-before", "A", ("left", "right")),
    ]
    words = ["yes", "yes", "no", "yes"]
    assert changes_of(items, [answered(q, w) for q, w in zip(items, words, strict=True)]) == [
        Change(True, False, "yes", "yes")
    ]


def test_options_with_capitals_and_full_stops_mean_the_same() -> None:
    def question(name: str, answer: str, options: tuple[str, ...]) -> VisualQuestion:
        return VisualQuestion(name, Path("x.png"), "Is there a cup?", options, answer)

    found = []
    for options in (("yes", "no"), ("Yes.", " No. ")):
        items = [question("a-before", "A", options), question("a-after", "B", options)]
        answers = [answered(items[0], "yes"), answered(items[1], "no")]
        found.append((presence_metrics(items, answers), changes_of(items, answers)))
    assert found[0] == found[1]
    assert found[1][0]["accuracy"]["value"] == 1
    assert found[1][1] == [Change(True, False, "yes", "no")]


def test_annotations_from_lines_and_from_coco(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"image": "a.png", "objects": ["cup", "cup", "fork"]}\n\n')
    assert read_annotations(lines) == [Annotated((tmp_path / "a.png").resolve(), ("cup", "fork"))]
    coco = tmp_path / "instances.json"
    data = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [1.4, 2.0, 10.2, 5.0]}],
    }
    coco.write_text(json.dumps(data))
    (found,) = read_annotations(coco)
    assert (found.objects, found.targets[0].box) == (("cup",), (1, 2, 12, 7))
    coco.write_text(json.dumps({**data, "categories": None}))
    with pytest.raises(DataError, match="no COCO detection file: TypeError"):
        read_annotations(coco)
    lines.write_text('{"image": "../a.png", "objects": []}')
    with pytest.raises(DataError, match="leaves the folder"):
        read_annotations(lines)
    lines.write_text('{"image": "a.png"}')
    with pytest.raises(DataError, match='line 1: needs "image" and "objects"'):
        read_annotations(lines)
