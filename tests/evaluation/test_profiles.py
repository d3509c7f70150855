"""Scores of fifty answer sets for every profile and benchmark, and the traps that readers of answers fall into."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from answer_sets import KNOWN, LETTERS, SETS, SYNONYMS, Said, answered, items_of, replies_of
from sparring.data.errors import RecipeError
from sparring.evaluation.items import Item
from sparring.evaluation.marks import Answered
from sparring.evaluation.profiles import PROFILES, RULES, profiles_of, rule_of
from sparring.evaluation.results import profile_figures
from sparring.evaluation.rules import lmms_eval, official, vlmevalkit
from sparring.evaluation.rules.official import mmmu_letter, open_match, open_readings

RESOURCES = {"synonyms": SYNONYMS}
OTHERS = sorted((profile, rules) for profile, rules in RULES if profile not in ("sparring", "aot-strict") and rules != "chair")
OURS = sorted((profile, rules) for profile, rules in RULES if profile in ("sparring", "aot-strict") or rules == "chair")


def figures(profile: str, rules: str, items: Sequence[Item], replies: Sequence[Said]) -> dict[str, float]:
    own = answered(items, replies)
    rule = rule_of(profile, rules)  # type: ignore[arg-type]
    return rule.figures([pair for pair in zip(own, rule.read(own, RESOURCES), strict=True) if pair[1].status != "left_out"])


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
        assert found == pytest.approx({**found, **by_hand(rules, items, replies, box=profile == "aot-strict")}, abs=1e-9), number


def by_hand(rules: str, items: Sequence[Item], replies: Sequence[Said], *, box: bool) -> dict[str, float]:
    """The first figures of a set, from the readings that stand in the pools."""
    said = [reply.box if box else reply.strict for reply in replies]
    right = [float(word == item.answer) for word, item in zip(said, items, strict=True)]

    def groups(name: str) -> dict[str, list[float]]:
        keys = {item.category if name == "category" else item.meta[name] for item in items}
        return {
            key: [
                score for score, item in zip(right, items, strict=True) if key == (item.category if name == "category" else item.meta[name])
            ]
            for key in keys
        }

    if rules == "chair":
        named = [json.loads(word or "[]") for word in said]
        wrong = [[name for name in own if name not in item.meta["objects"]] for own, item in zip(named, items, strict=True)]
        mentions = sum(map(len, named))
        return {"CHAIRs": sum(map(bool, wrong)) / 12, "CHAIRi": sum(map(len, wrong)) / mentions if mentions else 0.0}
    if rules == "vqav2":
        return {"accuracy": KNOWN["vqav2 strict"][[replies_of(items, n) for n in range(SETS)].index(list(replies))]}
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
        # 6 VD questions on three figures, 6 VS questions, 2 of which have no figure; two pairs of three in each.
        figure = [[0, 3], [1, 4], [2, 5], [7, 10], [8, 11]]
        pair = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        return {
            "aAcc": sum(right) / 12,
            "fAcc": sum(min(right[place] for place in group) for group in figure) / 5,
            "qAcc": sum(min(right[place] for place in group) for group in pair) / 4,
        }
    return {"accuracy": sum(right) / 12}


def one(reply: str, *options: str, answer: str = "C") -> Answered:
    return Answered(Item("q", "choice", "?", answer, options or ("red", "blue", "green", "white")), (reply,))


def yes_no(reply: str) -> Answered:
    return Answered(Item("q", "yes_no", "?", "yes"), (reply,))


def said(profile: str, rules: str, asked: Answered) -> str | None:
    return rule_of(profile, rules).read([asked], RESOURCES)[0].said  # type: ignore[arg-type]


def test_traps_and_who_falls_into_them() -> None:
    image = one("As the image shows, B", answer="B")
    assert [said(profile, "blink", image) for profile in PROFILES] == ["B", None, "B", "A", None]
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
    assert said("aot-strict", "custom", boxed) is None
    # The letter is too far from the end for VLMEvalKit, and read by its older copy.
    far = one("C it is, as far as I can see in this picture of a lake")
    assert said("vlmevalkit", "hrbench", far) is None
    assert said("lmms-eval", "hrbench", far) == "C"


def test_aot_wants_every_trial_and_leaves_out_unreadable_pictures() -> None:
    right, wrong = "\\boxed{C}", "\\boxed{A}"
    base = one(right)
    cases = [
        replace(base, replies=(right, right, right)),
        replace(base, replies=(right, wrong)),
        replace(base, replies=(right, right, "C")),
        replace(base, replies=(), trouble="request"),
        replace(base, replies=(), trouble="picture"),
    ]
    rule = RULES["aot-strict", "custom"]
    marks = rule.read(cases, {})
    assert [mark.score for mark in marks] == [1, 0, 0, 0, 0]
    assert [mark.status for mark in marks] == ["read", "read", "unparsed", "error", "left_out"]
    found = profile_figures(cases, marks, rule)
    assert (found["value"], found["n"], found["unparsed"], found["errors"], found["left_out"]) == (0.25, 4, 1, 1, 1)
    assert RULES["sparring", "custom"].read(cases, {})[4].status == "error"


def test_pope_on_rows_and_on_different_questions() -> None:
    """The same answers, counted once a question and once a file that holds it."""
    items = items_of("pope")
    # Right on what is in one file, wrong on what is in several.
    own = [replace(a, replies=(a.item.answer if len(a.item.meta["splits"]) == 1 else "no",)) for a in answered(items, replies_of(items, 0))]
    by_question, by_row = (profile_figures(own, RULES[p, "pope"].read(own, {}), RULES[p, "pope"]) for p in ("sparring", "official"))  # type: ignore[index]
    assert by_question["value"] > by_row["value"] + 0.05
    assert {"f1 random", "f1 popular", "f1 adversarial"} <= by_row["figures"].keys()
    always_yes = by_question["baselines"]["first"]
    assert always_yes == pytest.approx(2 * 8 / (12 + 8))


def test_hallusionbench_keys_without_the_category_mix_two_sets() -> None:
    items = items_of("hallusionbench")
    own = answered(items, replies_of(items, 0))
    own = [replace(a, replies=("no" if a.item.answer == "yes" else "yes",)) if a.item.category == "VS" else a for a in own]
    official_found, mixed = (RULES[p, "hallusionbench"] for p in ("official", "vlmevalkit"))  # type: ignore[index]
    assert official_found.figures(list(zip(own, official_found.read(own, {}), strict=True)))["fAcc"] == pytest.approx(3 / 5)
    marked = [pair for pair in zip(own, mixed.read(own, {}), strict=True) if pair[1].status != "left_out"]
    assert mixed.figures(marked)["fAcc"] == pytest.approx(1 / 3)


def test_baselines_interval_and_counts() -> None:
    own = [Answered(Item(str(i), "choice", "?", "AB"[i % 3 == 0], ("x", "y")), ("A",), cluster=str(i // 2)) for i in range(30)]
    rule = RULES["sparring", "custom"]
    found = profile_figures(own, rule.read(own, {}), rule)
    assert found["value"] == found["baselines"]["first"] == found["baselines"]["majority"] == pytest.approx(2 / 3)
    assert found["ci95"][0] < 2 / 3 < found["ci95"][1]
    free = [Answered(Item("q", "open", "?", "12"), ("12.",))]
    assert profile_figures(free, rule.read(free, {}), rule)["baselines"] == {"first": None, "majority": None}
    nothing = profile_figures([], [], rule)
    assert (nothing["value"], nothing["n"], nothing["ci95"]) == (None, 0, [None, None])


def test_mmmu_guesses_from_its_seed_and_reads_numbers() -> None:
    unread = [replace(one("no idea"), item=replace(one("").item, id=str(i))) for i in range(8)]
    marks = official.mmmu(unread, {})
    assert {mark.status for mark in marks} == {"unparsed"}
    assert [mark.said for mark in marks] == ["A", "A", "C", "B", "B", "B", "A", "A"]  # random.Random(42) on four letters
    assert mmmu_letter("It is (A) or maybe (C)", ("a", "b", "c"), anywhere=False) == "C"
    assert mmmu_letter("Probably B", ("a", "b"), anywhere=False) == "B"
    assert open_match("1,200", open_readings("So the total is 1200.00"))
    assert open_match("['north', 'up']", open_readings("it points up"))
    assert not open_match("12", open_readings("about 13"))


def test_every_benchmark_is_known_to_us_and_a_missing_rule_is_named() -> None:
    assert all("sparring" in profiles_of(rules) for _, rules in RULES)
    with pytest.raises(RecipeError, match=r"official has no rule for vstar.*sparring, vlmevalkit, lmms-eval, aot-strict"):
        rule_of("official", "vstar")
    assert LETTERS.startswith("AB")
    assert vlmevalkit.yes_or_no("Yes, no?") is None
    assert lmms_eval.extracted_letter("") is None
