"""Scores of fifty answer sets for every profile and benchmark, and the traps that readers of answers
fall into.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from answer_sets import KNOWN, LETTERS, SETS, SYNONYMS, Said, answered, items_of, replies_of
from sparring.benchmarks.items import Answered, Item
from sparring.benchmarks.profiles import RULES, profiles_of, rule_of
from sparring.benchmarks.results import headline, profile_figures, table_rows
from sparring.benchmarks.rules import lmms_eval, official, vlmevalkit
from sparring.benchmarks.rules.official import mmmu_letter, open_match, open_readings
from sparring.data.errors import RecipeError
from sparring.measures.statistics import wilson

RESOURCES = {"synonyms": SYNONYMS}
OTHERS = sorted((profile, rules) for profile, rules in RULES if profile != "sparring" and rules != "chair")
OURS = sorted((profile, rules) for profile, rules in RULES if profile == "sparring" or rules == "chair")


def figures(profile: str, rules: str, items: Sequence[Item], replies: Sequence[Said]) -> dict[str, float]:
    own = answered(items, replies)
    rule = rule_of(profile, rules)  # type: ignore[arg-type]
    return rule.figures(
        [pair for pair in zip(own, rule.read(own, RESOURCES), strict=True) if pair[1].status != "left_out"]
    )


@pytest.mark.parametrize(("profile", "rules"), OTHERS)
def test_other_harnesses_scores(profile: str, rules: str) -> None:
    """As their own functions score the sets."""
    items, known = items_of(rules), KNOWN[f"{profile}/{rules}"]
    assert len(known) == SETS == 50
    assert len({str(score) for score in known}) > 4  # the sets differ
    for number, score in enumerate(known):
        found = list(figures(profile, rules, items, replies_of(items, number)).values())
        expected = score if isinstance(score, list) else [score]
        assert found[: len(expected)] == pytest.approx(expected, abs=1e-9), number


@pytest.mark.parametrize(("profile", "rules"), OURS)
def test_our_scores(profile: str, rules: str) -> None:
    """As the rule has it, from what was read in every reply by hand."""
    items = items_of(rules)
    for number in range(SETS):
        replies = replies_of(items, number)
        found = figures(profile, rules, items, replies)
        assert found == pytest.approx({**found, **by_hand(rules, items, replies)}, abs=1e-9), number


def by_hand(rules: str, items: Sequence[Item], replies: Sequence[Said]) -> dict[str, float]:
    """The first figures of a set, from the readings that stand in the pools."""
    said = [reply.strict for reply in replies]
    right = [float(word == item.answer) for word, item in zip(said, items, strict=True)]

    def groups(name: str) -> dict[str, list[float]]:
        keys = {item.category if name == "category" else item.meta[name] for item in items}
        return {
            key: [
                score
                for score, item in zip(right, items, strict=True)
                if key == (item.category if name == "category" else item.meta[name])
            ]
            for key in keys
        }

    if rules == "chair":
        named = [json.loads(word or "[]") for word in said]
        wrong = [
            [name for name in own if name not in item.meta["objects"]]
            for own, item in zip(named, items, strict=True)
        ]
        mentions = sum(map(len, named))
        return {
            "CHAIRs": sum(map(bool, wrong)) / 12,
            "CHAIRi": sum(map(len, wrong)) / mentions if mentions else 0.0,
        }
    if rules == "vqav2":
        return {
            "accuracy": KNOWN["vqav2 strict"][
                [replies_of(items, n) for n in range(SETS)].index(list(replies))
            ]
        }
    if rules in ("pope", "amber"):
        positive = "yes" if rules == "pope" else "no"
        hits = sum(word == positive == item.answer for word, item in zip(said, items, strict=True))
        called, there = said.count(positive), sum(item.answer == positive for item in items)
        return {"f1": 2 * hits / (called + there) if hits else 0.0, "accuracy": sum(right) / 12}
    if rules == "hrbench":
        return {"cycle accuracy": sum(sum(part) / len(part) for part in groups("cycle").values()) / 4}
    if rules == "blink":
        return {"macro accuracy": sum(sum(part) / len(part) for part in groups("category").values()) / 3}
    if rules == "hallusionbench":
        # 6 VD questions on three figures, 6 VS questions, 2 of which have no figure; two pairs of three in
        # each.
        figure = [[0, 3], [1, 4], [2, 5], [7, 10], [8, 11]]
        pair = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        return {
            "aAcc": sum(right) / 12,
            "fAcc": sum(min(right[place] for place in group) for group in figure) / 5,
            "qAcc": sum(min(right[place] for place in group) for group in pair) / 4,
        }
    return {"accuracy": sum(right) / len(right)}


def one(reply: str, *options: str, answer: str = "C") -> Answered:
    return Answered(Item("q", "choice", "?", answer, options or ("red", "blue", "green", "white")), (reply,))


def yes_no(reply: str) -> Answered:
    return Answered(Item("q", "yes_no", "?", "yes"), (reply,))


def said(profile: str, rules: str, asked: Answered) -> str | None:
    return rule_of(profile, rules).read([asked], RESOURCES)[0].said  # type: ignore[arg-type]


def test_traps_and_who_falls_into_them() -> None:
    image = one("As the image shows, B", answer="B")
    assert [said(profile, "blink", image) for profile in profiles_of("blink")] == ["B", None, "B", "A"]
    assert said("official", "mmstar", image) == "A"
    car = one("The answer is a red car, option (C)")
    assert said("sparring", "custom", car) == said("vlmevalkit", "custom", car) == "C"
    assert said("official", "mmstar", car) == "A"
    assert said("sparring", "pope", yes_no("No doubt: yes.")) == "yes"
    assert said("official", "pope", yes_no("No doubt: yes.")) == "no"
    assert said("lmms-eval", "pope", yes_no("Yes.")) is None
    assert said("lmms-eval", "pope", yes_no("Yes")) == "yes"
    boxed = one("\\boxed{C. green}")
    assert said("sparring", "custom", boxed) == "C"
    assert said("aot", "hrbench", boxed) == "C"  # the first capital A to D
    assert said("aot", "vstar", boxed) is None
    # The letter is too far from the end for VLMEvalKit, and read by its older copy.
    far = one("C it is, as far as I can see in this picture of a lake")
    assert said("vlmevalkit", "hrbench", far) is None
    assert said("lmms-eval", "hrbench", far) == "C"


@pytest.mark.parametrize(
    ("reply", "hrbench", "vstar"),
    [
        ("\\boxed{b}", "B", "B"),
        ("first \\boxed{A}, then \\boxed{B}", "A", "A"),
        ("$\\boxed{\\text{B}}$", "B", "B"),
        ("As I see it, \\boxed{\\text{B}}", "A", "B"),
        ("boxed(C)", "C", "C"),
        ("The answer is definitely B.", "D", "D"),
        ("The answer is the left one", None, "T"),
        ("Final answer: C", "C", "C"),
        ("(D) green", "D", "D"),
        ("B", "B", "B"),
        ("It is B", "B", None),
        ("A cat sits there, so C", "A", "A"),
        ("red", None, None),
    ],
)
def test_aot_on_options(reply: str, hrbench: str | None, vstar: str | None) -> None:
    assert said("aot", "hrbench", one(reply)) == hrbench
    assert said("aot", "vstar", one(reply)) == vstar


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("No doubt: yes.", "no"),
        ("Yes or no? The answer is: No", "no"),
        ("no \\boxed{ Yes }", "yes"),
        ("\\boxed{\\text{Yes}}, not no", "yes"),
        ("There is none", None),
        ("<think>no</think>Yes", "no"),
        ("A", None),
    ],
)
def test_aot_on_yes_and_no(reply: str, word: str | None) -> None:
    assert said("aot", "pope", yes_no(reply)) == word
    asked = yes_no(reply)
    shown = replace(
        asked,
        item=replace(
            asked.item, meta={"shown": True, "subcategory": "x", "set": "0", "figure": "1", "pair": "0"}
        ),
    )
    assert said("aot", "hallusionbench", shown) == word


def test_aot_wants_every_trial_and_leaves_out_unreadable_pictures() -> None:
    right, wrong = "\\boxed{C}", "\\boxed{A}"
    base = one(right)
    cases = [
        replace(base, replies=(right, right, right)),
        replace(base, replies=(right, wrong)),
        replace(base, replies=(right, right, "no idea")),
        replace(base, replies=(), trouble="request"),
        replace(base, replies=(), trouble="picture"),
        replace(base, replies=(right, ""), later_trouble="request"),
    ]
    rule = RULES["aot", "vstar"]
    marks = rule.read(cases, {})
    assert [mark.score for mark in marks] == [1, 0, 0, 0, 0, 0]
    assert [mark.status for mark in marks] == ["read", "read", "unparsed", "error", "left_out", "error"]
    found = profile_figures(cases, marks, rule)
    assert (found["value"], found["n"], found["unparsed"], found["errors"], found["left_out"]) == (
        0.2,
        5,
        1,
        2,
        1,
    )
    assert RULES["sparring", "custom"].read(cases, {})[4].status == "error"


def test_aot_leaves_out_hallusionbench_without_a_picture_and_counts_hrbench_by_rows() -> None:
    items = items_of("hallusionbench")
    own = [replace(a, replies=(a.item.answer,)) for a in answered(items, replies_of(items, 0))]
    marks = rule_of("aot", "hallusionbench").read(own, {})
    assert [mark.status == "left_out" for mark in marks] == [not item.meta["shown"] for item in items]
    assert "accuracy" in figures("aot", "hrbench", items_of("hrbench"), replies_of(items_of("hrbench"), 2))


@pytest.mark.parametrize(
    ("reply", "handed"),
    [
        ("<think>no</think>Yes", "Yes"),
        (" Yes\n", "Yes"),
        ("<analysis>no</analysis> Yes", "Yes"),
        ("<think>a</think>Yes<think>b</think>", "Yes"),
        ("no</think>Yes", "Yes"),
        ("<think>no end, Yes", "<think>no end, Yes"),
        ("<THINK>no</THINK>Yes", "<THINK>no</THINK>Yes"),
        ("a</think>b<think>Yes", "a</think>b<think>Yes"),
        ("a</think>b</think>Yes", "Yes"),
    ],
)
def test_lmms_eval_takes_reasoning_off_before_any_rule(reply: str, handed: str) -> None:
    assert lmms_eval.without_reasoning(reply) == handed
    assert said("lmms-eval", "pope", yes_no(reply)) == ("yes" if handed == "Yes" else None)


def test_lmms_eval_on_ai2d_filters_before_the_reasoning_is_off() -> None:
    assert said("lmms-eval", "ai2d", one("C. green")) == "C"
    assert said("lmms-eval", "ai2d", one("<think>x</think>C")) == "C"
    assert said("lmms-eval", "ai2d", one("<think>x</think>C. green")) is None


def test_lmms_eval_open_questions_of_mmmu_never_count() -> None:
    for answer, reply in (("12", "12"), ("downhill", "It is downhill"), ("['cat', 'dog']", "a dog")):
        free = Answered(Item("q", "open", "?", answer), (reply,))
        assert rule_of("lmms-eval", "mmmu").read([free], {})[0].score == 0
        assert rule_of("official", "mmmu").read([free], {})[0].score == 1


def test_lmms_eval_on_refusals_and_missing_cycles() -> None:
    """A refusal is read as no option: the judge of HR-Bench is not asked. A cycle without a kind of
    question is left out of its mean.
    """
    refusal = one("Sorry, I can't help with images of people yet.")
    mark = rule_of("lmms-eval", "hrbench").read([refusal], {})[0]
    assert (mark.said, mark.score, mark.status) == ("Z", 0, "unparsed")
    items = [
        replace(one("").item, category=kind, meta={"cycle": cycle})
        for kind, cycle in (("single", "0"), ("cross", "0"), ("cross", "1"))
    ]
    own = [Answered(item, ("C",)) for item in items]
    by_harness = {
        profile: rule_of(profile, "hrbench").figures(
            list(zip(own, rule_of(profile, "hrbench").read(own, {}), strict=True))
        )  # type: ignore[arg-type]
        for profile in ("lmms-eval", "vlmevalkit")
    }
    assert by_harness["lmms-eval"] == {"cycle accuracy": 1, "FSP": 1, "FCP": 1}
    assert by_harness["vlmevalkit"] == {"cycle accuracy": 1, "FSP": 0.5, "FCP": 1}


def test_vlmevalkit_reports_the_splits_of_mmmu_apart() -> None:
    base = one("C").item
    names = ["dev", "validation", "validation"]
    by_field = [
        Answered(replace(base, id=str(i), meta={"split": name}), ("AC"[i == 1],))
        for i, name in enumerate(names)
    ]
    by_id = [
        replace(a, item=replace(a.item, id=f"{name}_Art_{i}", meta={}))
        for i, (a, name) in enumerate(zip(by_field, names, strict=True))
    ]
    rule = RULES["vlmevalkit", "mmmu"]
    for own in (by_field, by_id):
        found = profile_figures(own, rule.read(own, {}), rule)
        assert (found["figure"], found["value"], found["n"]) == ("accuracy validation", 0.5, 2)
        assert found["figures"] == {"accuracy validation": 0.5, "accuracy dev": 0.0}
    without = [replace(a, item=replace(a.item, meta={})) for a in by_field]
    assert profile_figures(without, rule.read(without, {}), rule)["figure"] == "accuracy"


@pytest.mark.parametrize(
    ("gold", "reply", "score"),
    [
        ("12", "12", 1),
        ("12", "A", 1),
        ("A", "A", 1),
        ("B", "B", 1),
        ("B", "A", 0),
        ("D", "A", 0),
        ("D", "The answer is D", 0),
        ("red", "B", 0),
    ],
)
def test_vlmevalkit_takes_an_open_gold_of_one_capital_for_a_letter(
    gold: str, reply: str, score: float
) -> None:
    assert (
        rule_of("vlmevalkit", "mmmu").read([Answered(Item("q", "open", "?", gold), (reply,))], {})[0].score
        == score
    )


@pytest.mark.parametrize("name", ["None", "N/A", "NA", "null", "nan"])
def test_vlmevalkit_has_no_options_whose_names_pandas_takes_for_empty(name: str) -> None:
    gone = one("D", "red", "blue", "green", name, answer="D")
    assert [said(profile, "custom", gone) for profile in ("sparring", "vlmevalkit")] == ["D", None]
    assert said("vlmevalkit", "custom", replace(gone, replies=(f"red, I think, {name}",))) == "A"
    # MMMU without an option A is an open question: its answer against Other Answers.
    first = one("B", name, "blue", "green", "white", answer="B")
    assert vlmevalkit.mmmu_options(first.item) == {"A": "B", "B": "Other Answers", "C": "green", "D": "white"}


def test_lists_of_answers_may_hold_commas() -> None:
    assert official.open_match("['1,200', 'x, y']", open_readings("It is 1,200"))
    assert official.open_match("['1,200', 'x, y']", open_readings("x, y"))
    assert not official.open_match("['1,200', 'x, y']", open_readings("the answer is 200"))
    assert not official.open_match('["24/7", "3.429"]', open_readings("the answer is 24"))
    free = Answered(Item("q", "open", "?", '["24/7", "3.429"]'), ("3.429",))
    assert RULES["sparring", "mmmu"].read([free], {})[0].score == 1
    assert official.open_match("[1, 2)", open_readings("the interval is [1, 2)"))


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("a man's hat", ["person"]),
        ("A dog\u2019s puppy", ["dog", "dog"]),
        ("The women's cups", ["person", "cup"]),
        ("two dogs' chairs", ["dog", "chair"]),
        ("a wood-chair", []),
        ("it's nobody's", []),
    ],
)
def test_possessives_name_objects(text: str, objects: list[str]) -> None:
    asked = Answered(Item("q", "caption", "?", "", meta={"objects": []}), (text,))
    assert RULES["official", "chair"].read([asked], RESOURCES)[0].detail["named"] == objects


def test_pope_on_rows_and_on_different_questions() -> None:
    """The same answers, counted once a question and once a file that holds it."""
    items = items_of("pope")
    # Right on what is in one file, wrong on what is in several.
    own = [
        replace(a, replies=(a.item.answer if len(a.item.meta["splits"]) == 1 else "no",))
        for a in answered(items, replies_of(items, 0))
    ]
    by_question, by_row = (
        profile_figures(own, RULES[p, "pope"].read(own, {}), RULES[p, "pope"])
        for p in ("sparring", "official")
    )  # type: ignore[index]
    assert by_question["value"] > by_row["value"] + 0.05
    assert (by_question["n"], by_row["n"]) == (12, sum(len(item.meta["splits"]) for item in items))
    assert {"f1 random", "f1 popular", "f1 adversarial"} <= by_row["figures"].keys()
    always_yes = by_question["baselines"]["first"]
    assert always_yes == pytest.approx(2 * 8 / (12 + 8))


def test_hallusionbench_keys_without_the_category_mix_two_sets() -> None:
    items = items_of("hallusionbench")
    own = answered(items, replies_of(items, 0))
    own = [
        replace(a, replies=("no" if a.item.answer == "yes" else "yes",)) if a.item.category == "VS" else a
        for a in own
    ]
    official_found, mixed = (RULES[p, "hallusionbench"] for p in ("official", "vlmevalkit"))  # type: ignore[index]
    assert official_found.figures(list(zip(own, official_found.read(own, {}), strict=True)))[
        "fAcc"
    ] == pytest.approx(3 / 5)
    marked = [pair for pair in zip(own, mixed.read(own, {}), strict=True) if pair[1].status != "left_out"]
    assert mixed.figures(marked)["fAcc"] == pytest.approx(1 / 3)


def test_baselines_interval_and_counts() -> None:
    own = [
        Answered(Item(str(i), "choice", "?", "AB"[i % 3 == 0], ("x", "y")), ("A",), cluster=str(i // 2))
        for i in range(30)
    ]
    rule = RULES["sparring", "custom"]
    found = profile_figures(own, rule.read(own, {}), rule)
    assert (
        found["value"]
        == found["baselines"]["first"]
        == found["baselines"]["majority"]
        == pytest.approx(2 / 3)
    )
    assert found["ci95"][0] < 2 / 3 < found["ci95"][1]
    free = [Answered(Item("q", "open", "?", "12"), ("12.",))]
    assert profile_figures(free, rule.read(free, {}), rule)["baselines"] == {"first": None, "majority": None}
    nothing = profile_figures([], [], rule)
    assert (nothing["value"], nothing["n"], nothing["ci95"]) == (None, 0, [None, None])


def test_baselines_of_a_harness_that_has_options_of_its_own() -> None:
    """VLMEvalKit asks an open question as its answer, option A, against Other Answers."""
    own = [Answered(Item(f"q{i}", "open", "?", "12"), ("12",)) for i in range(3)]
    own += [one("A", answer="B"), one("A", "None", "blue", "green", answer="B"), yes_no("no")]
    for name in ("mmmu", "custom"):
        rule = RULES["vlmevalkit", name]
        found = profile_figures(own[:5], rule.read(own[:5], {}), rule)["baselines"]
        assert found == {"first": 3 / 5 + (name == "custom") / 5, "majority": 3 / 5}, name
    rule = RULES["vlmevalkit", "custom"]
    assert profile_figures(own, rule.read(own, {}), rule)["baselines"]["first"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(("reply", "value"), [("C", 1.0), ("A", 0.0)])
def test_a_figure_of_items_that_are_all_alike_has_wilsons_interval(reply: str, value: float) -> None:
    cases: dict[str, list[Answered]] = {
        "blink": [
            replace(one(reply), item=replace(one(reply).item, id=str(i), category="ab"[i % 2]))
            for i in range(6)
        ],
        "hrbench": [
            replace(one(reply), item=replace(one(reply).item, id=str(i), meta={"cycle": str(i % 4)}))
            for i in range(6)
        ],
    }
    for name, own in cases.items():
        rule = RULES["sparring", name]
        found = profile_figures(own, rule.read(own, {}), rule)
        assert (found["value"], found["ci95"]) == (value, pytest.approx(wilson(round(6 * value), 6))), name


def test_f1_of_items_that_are_all_right_has_no_interval() -> None:
    own = [Answered(Item(str(i), "yes_no", "?", "yes"), ("yes",)) for i in range(6)]
    rule = RULES["sparring", "amber"]
    found = profile_figures(own, rule.read(own, {}), rule)
    assert (found["figure"], found["ci95"]) == ("f1", [None, None])
    told = {"profiles": {"sparring": found}}
    assert headline(told, "sparring") == "f1 0.0 %  of 6  (no interval)"
    assert table_rows(told["profiles"])[1][3] == "–"


def test_rows_of_one_picture_are_not_counted_as_so_many_trials() -> None:
    rule = RULES["sparring", "custom"]

    def width(rows: int, pictures: int, wrong: int = 3) -> float:
        own = [
            Answered(
                Item(str(i), "choice", "?", "AB"[i % pictures % wrong == 0], ("x", "y")),
                ("A",),
                cluster=str(i % pictures),
            )
            for i in range(rows)
        ]
        low, high = profile_figures(own, rule.read(own, {}), rule)["ci95"]
        assert low < high
        return float(high - low)

    once = width(60, 60)
    assert width(240, 60) == pytest.approx(once, rel=0.15)  # four replies a picture, right or wrong together
    assert width(240, 240) < 0.6 * once
    assert width(60, 60, wrong=1) == width(240, 60, wrong=1)  # nothing right


def test_a_split_whose_pictures_are_shared_has_an_interval() -> None:
    rule = RULES["vlmevalkit", "mmmu"]
    own = [
        Answered(
            Item(f"{split}_Art_{i}", "choice", "?", "AB"[i % 2], ("x", "y"), meta={"split": split}),
            ("A",),
            cluster=str(i // 2),
        )
        for split, number in (("dev", 12), ("validation", 2))
        for i in range(number)
    ]
    found = profile_figures(own, rule.read(own, {}), rule)
    assert (found["figure"], found["n"], found["value"]) == ("accuracy validation", 2, 0.5)
    assert found["ci95"] == [0.5, 0.5]  # of the one picture that both show
    apart = [replace(one, cluster=one.item.id) for one in own]
    assert profile_figures(apart, rule.read(apart, {}), rule)["ci95"] == pytest.approx(wilson(1, 2))
    right = [replace(one, item=replace(one.item, answer="A")) for one in own]
    assert profile_figures(right, rule.read(right, {}), rule)["ci95"] == pytest.approx(wilson(1, 1))


def test_mmmu_guesses_from_its_seed_and_reads_numbers() -> None:
    unread = [replace(one("no idea"), item=replace(one("").item, id=str(i))) for i in range(8)]
    marks = official.mmmu(unread, {})
    assert {mark.status for mark in marks} == {"unparsed"}
    # random.Random(42) on four letters
    assert [mark.said for mark in marks] == ["A", "A", "C", "B", "B", "B", "A", "A"]
    assert mmmu_letter("It is (A) or maybe (C)", ("a", "b", "c"), anywhere=False) == "C"
    assert mmmu_letter("Probably B", ("a", "b"), anywhere=False) == "B"
    assert open_match("1,200", open_readings("So the total is 1200.00"))
    assert open_match("['north', 'up']", open_readings("it points up"))
    assert not open_match("12", open_readings("about 13"))


def test_every_benchmark_is_known_to_us_and_a_missing_rule_is_named() -> None:
    assert all("sparring" in profiles_of(rules) for _, rules in RULES)
    with pytest.raises(
        RecipeError, match=r"official has no rule for vstar.*sparring, vlmevalkit, lmms-eval, aot"
    ):
        rule_of("official", "vstar")
    assert LETTERS.startswith("AB")
    assert vlmevalkit.yes_or_no("Yes, no?") is None
    assert lmms_eval.extracted_letter("") is None
