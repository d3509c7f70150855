"""Options and the right answer: one rule, the same for every layout and every verb."""

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from small_benchmarks import write_tsv
from sparring.benchmarks.items import shuffled_options
from sparring.benchmarks.layouts import find_benchmark, read_benchmark
from sparring.data.answers import Answers
from sparring.data.choices import embedded_options, options_of
from sparring.data.errors import DataError, Fault
from sparring.data.items import Item, options_speak_of_others
from sparring.data.questions import read_questions


def right(*rows: dict[str, Any]) -> list[str]:
    """The texts of the right options of a file of these rows; where there is none, the fault's reason."""
    answers = Answers().learn(rows)
    found = []
    for row in rows:
        try:
            options = options_of(row)[1]
            found.append(options.texts[answers.place(row["answer"], options)])
        except Fault as fault:
            found.append(f"({fault.reason})")
    return found


def row(options: Any, answer: Any, **more: Any) -> dict[str, Any]:
    return {"question": "Which?", "options": options, "answer": answer, **more}


SIDES = ["left", "right", "above", "below"]
DIGITS = ["4", "2", "3", "1"]


@pytest.mark.parametrize(
    ("options", "answer", "text"),
    [
        # letters, however they are dressed
        (SIDES, "B", "right"),
        (SIDES, "b", "right"),
        (SIDES, "(B)", "right"),
        (SIDES, "B.", "right"),
        (SIDES, "[B]", "right"),
        (SIDES, " B ", "right"),
        (DIGITS, "B", "2"),
        # texts
        (SIDES, "above", "above"),
        (SIDES, "Above ", "above"),
        (DIGITS, "3", "3"),
        (["yes", "no"], "no", "no"),
        (["1.5 m", "2.5 m"], "2.5 m", "2.5 m"),
        (["a", "b", "c", "d"], "c", "c"),
        # letter and text
        (SIDES, "C. above", "above"),
        (SIDES, "(C) above", "above"),
        # numbers: from 0, unless the file shows that they are counted from 1
        (SIDES, 0, "left"),
        (SIDES, 3, "below"),
        (SIDES, "3", "below"),
        (SIDES, 4, "below"),
        (SIDES, 2.0, "above"),
        (DIGITS, 3, "1"),  # a number among texts counts options
        ([4, 2, 3, 1], 3, "3"),  # a number among numbers is one of them
        ([4, 2, 3, 1], "3", "3"),
        # lists of references
        (SIDES, ["B"], "right"),
        (SIDES, ["B", "right"], "right"),
        (SIDES, [1], "right"),
        # what is none, or two
        (SIDES, "E", "(answer is no option)"),
        (SIDES, "up", "(answer is no option)"),
        (SIDES, 5, "(answer is no option)"),
        (SIDES, -1, "(answer is no option)"),
        (SIDES, "AB", "(answer is no option)"),
        (SIDES, ["A", "B"], "(several answers)"),
        (SIDES, True, "(answer is no option)"),
        (SIDES, float("inf"), "(answer is no option)"),
        (["red", "red", "blue"], "red", "(answer is no option)"),
    ],
)
def test_one_answer(options: Any, answer: Any, text: str) -> None:
    assert right(row(options, answer)) == [text]


def test_the_other_records_of_a_file_say_what_a_digit_is() -> None:
    counting = row(DIGITS, "3")
    assert right(counting) == ["3"]
    assert right(counting, row(SIDES, "2")) == ["1", "above"]  # elsewhere "2" can only be a number
    assert right(counting, row(SIDES, "above")) == ["3", "above"]
    assert right(counting, row(SIDES, "2"), row(SIDES, "above"))[0] == "(answer is ambiguous)"
    assert right(row(DIGITS, 3), row(["7", "2", "3", "9"], 7)) == ["3", "7"]  # 7 is a text: so is 3
    # AI2D as on the hub: numbers written as texts, among options some of which are numbers.
    hub = [
        row(["2", "3", "4", "1"], "3"),
        row(SIDES, "0"),
        row(["a", "b"], "1"),
        row(["4", "8", "1", "2"], "1"),
    ]
    assert right(*hub) == ["1", "left", "b", "8"]


def test_options_are_counted_from_one_where_the_file_does() -> None:
    assert right(row(SIDES, 1), row(SIDES, 4), row(SIDES, 2)) == ["left", "below", "right"]
    assert right(row(SIDES, 1), row(SIDES, 3), row(SIDES, 0)) == ["right", "below", "left"]
    assert right(row(SIDES, 0), row(SIDES, 4)) == ["left", "(answer is no option)"]


def test_the_other_records_say_what_a_letter_is() -> None:
    letters = row(["B", "C", "A"], "B")
    assert right(letters) == ["C"]  # the letter of the second option
    assert right(letters, row(SIDES, "above")) == ["B", "above"]
    assert right(letters, row(SIDES, "D")) == ["C", "below"]
    assert right(letters, row(SIDES, "D"), row(SIDES, "above"))[0] == "(answer is ambiguous)"
    assert right(row(["A", "B"], "B"), row(SIDES, "D"), row(SIDES, "above"))[0] == "B"  # both are the same


@pytest.mark.parametrize(
    ("options", "answer", "texts", "text"),
    [
        ({"A": "below", "B": "right"}, "B", ("below", "right"), "right"),
        ({"B": "right", "A": "below"}, "B", ("below", "right"), "right"),
        ({"a": "below", "b": "right"}, "B", ("below", "right"), "right"),
        ({"A": "below", "B": "right"}, "right", ("below", "right"), "right"),
        ({"A": "below", "B": "right", "C": None, "D": None}, "B", ("below", "right"), "right"),
        ({"0": "below", "1": "right"}, "1", ("below", "right"), "right"),
        ({"1": "below", "2": "right"}, "2", ("below", "right"), "right"),
        ({"1": "below", "2": "right"}, 1, ("below", "right"), "below"),
        ({"option_a": "below", "option_b": "right"}, "b", ("below", "right"), "right"),
        ({"text": ["below", "right"], "label": ["A", "B"]}, "B", ("below", "right"), "right"),
        ({"text": ["below", "right"], "label": ["1", "2"]}, "1", ("below", "right"), "below"),
        (
            [{"label": "A", "text": "below"}, {"label": "B", "text": "right"}],
            "B",
            ("below", "right"),
            "right",
        ),
        ([{"id": "B", "text": "right"}, {"id": "A", "text": "below"}], "A", ("below", "right"), "below"),
        ('{"A": "below", "B": "right"}', "B", ("below", "right"), "right"),
        ("['below', \"it's right\"]", "B", ("below", "it's right"), "it's right"),
        ("('below', 'right')", "B", None, ""),
        ("A. below\nB. right", "B", ("below", "right"), "right"),
        ("A: below, B: right", "B", ("below", "right"), "right"),
        ({"left": 1, "right": 2}, "A", None, ""),
        ({"text": ["below"], "label": ["A", "B"]}, "A", None, ""),
    ],
)
def test_mappings_and_texts_of_options(
    options: Any, answer: Any, texts: tuple[str, ...] | None, text: str
) -> None:
    if texts is None:
        with pytest.raises(Fault):
            options_of(row(options, answer))
    else:
        assert options_of(row(options, answer))[1].texts == texts
        assert right(row(options, answer)) == [text]


@pytest.mark.parametrize(
    ("options", "answer", "texts", "text"),
    [
        (["A. below", "B. right", "C. left"], "C", ("below", "right", "left"), "left"),
        (["(A) below", "(B) right"], "(B)", ("below", "right"), "right"),
        (["A) below", "B) right"], "B) right", ("below", "right"), "right"),
        (["A: below", "B: right"], "right", ("below", "right"), "right"),
        (["a. below", "b. right"], 1, ("below", "right"), "right"),
        (["[A] below", "[B] right"], "A", ("below", "right"), "below"),
        (["A、下", "B、右"], "B", ("下", "右"), "右"),
        (["Option A: below", "Option B: right"], "B", ("below", "right"), "right"),
        (["1. below", "2. right"], "2", ("below", "right"), "right"),
        (["1) below", "2) right"], "B", ("below", "right"), "right"),
        (["B. right", "A. below"], "A", ("right", "below"), "below"),
        (["A.below", "B.right"], "B", ("below", "right"), "right"),
        (["**A.** below", "**B.** right"], "B", ("below", "right"), "right"),
        (["**A**: below", "**B**: right"], "A", ("below", "right"), "below"),
        (["A - below", "B - right"], "B", ("below", "right"), "right"),
        (["A．下", "B．右"], "A", ("下", "右"), "下"),
        # no labels of options
        (["A.D.", "B.C."], "B", ("A.D.", "B.C."), "B.C."),
        (["a.m.", "b.m."], "A", ("a.m.", "b.m."), "a.m."),
        (["1: 2", "2: 3"], "2: 3", ("1: 2", "2: 3"), "2: 3"),
        (["1:00 pm", "2:00 pm"], "2:00 pm", ("1:00 pm", "2:00 pm"), "2:00 pm"),
        (["A. Smith", "C. Brown"], "C. Brown", ("A. Smith", "C. Brown"), "C. Brown"),
        (["A cat", "B flat"], "A", ("A cat", "B flat"), "A cat"),
        (["A - B", "B - C"], "B", ("A - B", "B - C"), "B - C"),
        (
            ["A. below", "C. left", "D. right"],
            "C",
            ("A. below", "C. left", "D. right"),
            "(answer is ambiguous)",
        ),
        (["A. below", "C. left", "D. right"], "A", ("A. below", "C. left", "D. right"), "A. below"),
        (["B. below", "C. left"], "B", ("B. below", "C. left"), "(answer is ambiguous)"),
        (["1.5", "2.5"], "2.5", ("1.5", "2.5"), "2.5"),
        (["A", "B"], "B", ("A", "B"), "B"),
        (["A. below", "right"], "B", ("A. below", "right"), "right"),
        (["2. place", "3. place"], "B", ("2. place", "3. place"), "3. place"),
    ],
)
def test_labels_in_the_texts_are_taken_off(
    options: list[str], answer: Any, texts: tuple[str, ...], text: str
) -> None:
    assert options_of(row(options, answer))[1].texts == texts
    assert right(row(options, answer)) == [text]


@pytest.mark.parametrize(
    ("names", "answer", "text"),
    [
        (("option_a", "option_b", "option_c"), "B", "right"),
        (("optionA", "optionB"), "right", "right"),
        (("Option A", "Option B"), "A", "below"),
        (("option1", "option2", "option3"), "2", "right"),
        (("choice_0", "choice_1"), 1, "right"),
        (("a", "b", "c"), "b", "right"),
    ],
)
def test_columns_of_options_under_other_names(names: tuple[str, ...], answer: Any, text: str) -> None:
    record = {"question": "?", "answer": answer, **dict(zip(names, ("below", "right", None), strict=False))}
    assert options_of(record)[1].texts == ("below", "right")
    assert right(record) == [text]


@pytest.mark.parametrize(
    "others", [{"x": 3, "y": 4}, {"w": 30, "h": 40}, {"option": "B"}, {"a": "b"}, {"choice": 2}]
)
def test_other_fields_are_no_options(others: dict[str, Any]) -> None:
    assert options_of({"question": "?", "answer": "two"} | others)[1].texts == ()


def test_a_missing_option_among_columns_of_other_names_is_refused() -> None:
    with pytest.raises(Fault, match="is empty, though"):
        options_of({"question": "?", "option_a": "x", "option_b": "", "option_c": "y", "answer": "A"})


def test_a_letter_that_answers_a_record_without_options_is_refused_where_others_choose_letters(
    tmp_path: Path,
) -> None:
    lost = [row([], "D"), row(["", None, "nan"], "B"), row([], "D", question_type="open"), row([], "EXIT")]
    for path in files(tmp_path, [{"question_type": ""} | own for own in (row(SIDES, "A"), *lost)]):
        items = read_benchmark(find_benchmark("custom"), path, skip_bad=True)
        assert [(item.kind, item.answer) for item in items] == [
            ("choice", "A"),
            ("open", "D"),
            ("open", "EXIT"),
        ], path.name
        with pytest.raises(DataError, match="no options, and its answer D is a letter"):
            read_benchmark(find_benchmark("custom"), path)


@pytest.mark.parametrize("empty", [None, "", "  ", "nan", float("nan")])
def test_a_missing_option_is_refused_and_the_last_ones_may_be_missing(empty: Any) -> None:
    for gap in (["four", empty, "three"], {"A": "four", "B": empty, "C": "three"}):
        with pytest.raises(Fault, match="is empty, though"):
            options_of(row(gap, "A"))
    with pytest.raises(Fault, match="option B is empty, though D is there"):
        options_of({"question": "?", "A": "four", "B": empty, "C": "three", "D": "one", "answer": "A"})
    with pytest.raises(Fault, match="option A is empty"):
        options_of({"question": "?", "A": empty, "B": "four", "answer": "B"})
    with pytest.raises(Fault, match="option B is missing, though C is there"):
        options_of({"question": "?", "A": "four", "C": "three", "answer": "A"})
    found = options_of({"question": "?", "A": "four", "B": "three", "C": empty, "D": empty, "answer": "A"})[1]
    assert found.texts == ("four", "three")
    assert options_of(row(["four", "three", empty], "A"))[1].texts == ("four", "three")


@pytest.mark.parametrize("word", ["None", "NA", "N/A", "null", "no", "0"])
def test_words_for_nothing_are_options(word: str) -> None:
    assert options_of({"question": "?", "A": word, "B": "two", "answer": "A"})[1].texts == (word, "two")


@pytest.mark.parametrize(
    ("question", "asked", "texts"),
    [
        ("Which?\nOptions: A: The cup is red., B: It is blue., C: 3, 4, and 5, D: None", "Which?", ("The cup is red.", "It is blue.", "3, 4, and 5", "None")),
        ("Which?\nOptions: A: 25°, B: 35°", "Which?", ("25°", "35°")),
        ("Which?\n\nA. Left\nB. Straight\nPlease answer directly.", "Which?", ("Left", "Straight")),
        ("Which?\n(A) red\n(B) blue\nAnswer with the letter.", "Which?", ("red", "blue")),
        ("Which? (A) red (B) blue", "Which?", ("red", "blue")),
        ("Which?\nOptions:\nA: left\nB: right\nOutput the answer.", "Which?", ("left", "right")),
        ("Which?\nChoices:\nA) left\nB) right", "Which?", ("left", "right")),
        ("Which?\na) left\nb) right", "Which?", ("left", "right")),
        ("Which?\na. left\nB. right", "Which?\na. left\nB. right", ()),
        ("What does (A) show?", "What does (A) show?", ()),
        ("Options: none", "Options: none", ()),
        ("Which?\nB. x\nC. y", "Which?\nB. x\nC. y", ()),
    ],
)  # fmt: skip
def test_options_in_the_question(question: str, asked: str, texts: tuple[str, ...]) -> None:
    assert embedded_options(question) == (asked, texts)


def test_options_that_stand_in_the_question_as_well_are_shown_once() -> None:
    listed = "Which?\nA. Left\nB. right"
    assert options_of({"question": listed, "A": "left", "B": "right", "answer": "A"})[0] == "Which?"
    assert options_of(row(["left", "right"], "A", question="Which? (A) left (B) right"))[0] == "Which?"
    # a list of something else
    assert options_of({"question": listed, "A": "1", "B": "2", "answer": "A"})[0] == listed
    assert (
        options_of({"question": "A. left\nB. right", "A": "left", "B": "right", "answer": "A"})[0]
        == "A. left\nB. right"
    )


@pytest.mark.parametrize(
    "option",
    ["All of the above", "None of the above.", "Both A and B", "A and C only", "none of these", "Neither A nor B", "(a) and (b)",
     "Options A and B", "all the above", "A, B and C", "not the above", "以上都是", "Any of the above options"],
)  # fmt: skip
def test_options_that_speak_of_others_keep_the_order(option: str) -> None:
    assert options_speak_of_others(("left", "right", option))
    items = [Item(str(number), "choice", "?", "C", ("left", "right", option)) for number in range(20)]
    assert [shuffled_options(item, 5) for item in items] == items


def test_options_that_differ_in_the_name_of_a_point_alone_keep_the_order() -> None:
    assert options_speak_of_others(("A is closer", "B is closer"))
    assert not options_speak_of_others(("A is closer", "B is farther"))
    assert not options_speak_of_others(("A", "B"))


@pytest.mark.parametrize(
    "option",
    [
        "above",
        "Above the cup",
        "None",
        "both",
        "Vitamin B",
        "A cat and a dog",
        "A",
        "Brad and Ann",
        "left or right",
        "R&B",
    ],
)
def test_options_that_speak_of_none_are_shuffled(option: str) -> None:
    assert not options_speak_of_others(("left", "right", option))
    items = [Item(str(number), "choice", "?", "C", ("left", "right", option)) for number in range(20)]
    assert {shuffled_options(item, 5).answer for item in items} == {"A", "B", "C"}


# ---- the same in every file and every verb


def files(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as JSON lines, a JSON list, Parquet and TSV."""
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    rows = [{"image": "a.png"} | own for own in rows]
    (folder / "q.jsonl").write_text("".join(json.dumps(own) + "\n" for own in rows))
    (folder / "q.json").write_text(json.dumps(rows, indent=1))
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "q.parquet")
    write_tsv(folder / "q.tsv", [own | {"options": json.dumps(own["options"])} for own in rows])
    return [folder / f"q.{suffix}" for suffix in ("jsonl", "json", "parquet", "tsv")]


@pytest.mark.parametrize(
    ("rows", "answers"),
    [
        ([row(["2", "3", "4", "1"], "3"), row(SIDES, "0")], ["D", "A"]),
        ([row(["A. below", "B. right"], "B"), row(["A. x", "B. y"], "A")], ["B", "A"]),
        ([row(SIDES, "(C)"), row(SIDES, "right")], ["C", "B"]),
    ],
)
def test_every_file_and_verb_reads_alike(
    tmp_path: Path, rows: list[dict[str, Any]], answers: list[str]
) -> None:
    for path in files(tmp_path, rows):
        items = read_benchmark(find_benchmark("custom"), path)
        questions = read_questions(path).records
        assert [item.answer for item in items] == [question.answer for question in questions] == answers, (
            path.name
        )
        assert [item.options for item in items] == [question.options for question in questions]


def test_a_bad_row_is_named_and_the_others_can_be_had(tmp_path: Path) -> None:
    bad = [row(["x", "", "y"], "A"), row(SIDES, "Z"), row(["x", "y"], "")]
    for path in files(
        tmp_path, [row(SIDES, "A", id="0"), *(own | {"id": str(k)} for k, own in enumerate(bad, start=1))]
    ):
        for read in (read_questions, lambda own: read_benchmark(find_benchmark("custom"), own)):
            with pytest.raises(
                DataError, match=r'2 \(id "1"\).*is empty.*\n.*"2".*it is "Z".*\n.*"3".*answer is empty'
            ) as error:
                read(path)
            assert "--skip-bad-records" in str(error.value)
        assert [question.id for question in read_questions(path, skip_bad=True)] == ["0"]
        assert [item.id for item in read_benchmark(find_benchmark("custom"), path, skip_bad=True)] == ["0"]


def test_open_questions_and_their_references(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    lettered = "How many lines?\nA. one line\nB. two lines"
    rows: list[dict[str, Any]] = [
        {"id": "a", "question": "?", "options": "[]", "answer": "['1', 'one, or so']"},
        {"id": "b", "question": "?", "answer": ["1", "one"]},
        {"id": "c", "question": "?", "answer": 2},
        {"id": "d", "question": lettered, "answer": "B", "question_type": "open"},
        {"id": "e", "question": lettered, "answer": "3"},
        {"id": "f", "question": lettered, "answer": "B"},
        {"id": "g", "question": "?", "answer": "[sic]"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps({"image": "a.png"} | own) for own in rows))
    for suite in ("custom", "mmmu", "realworldqa"):
        found = {item.id: item for item in read_benchmark(find_benchmark(suite), tmp_path / "q.jsonl")}
        assert {item.kind for name, item in found.items() if name != "f"} == {"open"}
        assert found["a"].meta["accepted"] == ["1", "one, or so"]
        assert found["a"].answer == "['1', 'one, or so']"  # as other harnesses read it
        assert found["b"].meta["accepted"] == ["1", "one"]
        assert (found["c"].answer, found["g"].answer) == ("2", "[sic]")
        assert found["d"].question == found["e"].question == lettered
        assert (found["f"].kind, found["f"].answer, found["f"].question) == ("choice", "B", "How many lines?")
